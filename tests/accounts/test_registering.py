"""POST /auth/register."""

import uuid

import pytest

from tests.accounts.people import at_once, new_email
from tests.client import PASSWORD, Client, assert_problem


@pytest.fixture
def visitor(server):
    client = Client(server.url)
    yield client
    client.close()


def register(client, email, password=PASSWORD):
    return client.http.post("/auth/register", json={"email": email, "password": password})


def faults(answer):
    document = assert_problem(answer, 422, "validation_failed")
    return {(error["pointer"], error["code"]) for error in document["errors"]}


def test_a_new_user_is_answered_with_id_email_and_time(visitor):
    answer = register(visitor, visitor.email)

    assert answer.status_code == 201
    assert set(answer.json()) == {"id", "email", "created_at"}
    assert uuid.UUID(answer.json()["id"]).version == 7
    assert answer.json()["created_at"].endswith("Z")
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_the_email_is_returned_trimmed_with_its_case_kept(visitor):
    assert register(visitor, f"  A.{visitor.email} ").json()["email"] == f"A.{visitor.email}"


def test_a_user_has_an_event_counter_from_the_start(visitor, sql):
    user_id = register(visitor, visitor.email).json()["id"]

    assert sql.execute("SELECT last_sequence FROM feeds WHERE user_id = %s", [user_id]).fetchone() == (0,)


@pytest.mark.parametrize(
    "spelled",
    [str.upper, lambda e: f" {e}\t", lambda e: e.replace("u", "\uff55", 1)],
    ids=["case", "spaces", "unicode"],
)
def test_another_spelling_of_a_taken_email_is_taken(alice, spelled):
    assert_problem(register(alice, spelled(alice.email)), 409, "email_taken")


def test_one_of_ten_registrations_of_one_email_at_once_wins(visitor, sql):
    answers = at_once(10, lambda: register(visitor, visitor.email))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert sql.execute("SELECT count(*) FROM users WHERE email = %s", [visitor.email]).fetchone() == (1,)


@pytest.mark.parametrize("email", ["ann@shop.test", "ann@müller.example", "änn@shop.example", "a+b@sub.shop.example"])
def test_any_address_with_the_right_syntax_is_taken(visitor, email):
    assert register(visitor, f"{uuid.uuid4().hex}{email}").status_code == 201


@pytest.mark.parametrize(
    "email",
    ["", "ann", "ann@", "@shop.example", "ann@shop", "a b@shop.example", "ann@@shop.example", "Ann <ann@shop.example>",
     "ann@[127.0.0.1]", "a@shop..example", "ann@shop.example\nBcc: x@y.example", "a" * 250 + "@shop.example"],
)  # fmt: skip
def test_what_is_no_address_is_refused(visitor, email):
    assert faults(register(visitor, email)) == {("#/email", "invalid_format")}


@pytest.mark.parametrize("length", [8, 256])
def test_a_password_may_have_8_to_256_characters(visitor, length):
    password = "žx9-" * (length // 4)

    assert register(visitor, visitor.email, password).status_code == 201


@pytest.mark.parametrize("length", [0, 7, 257])
def test_a_password_of_another_length_is_refused(visitor, length):
    assert faults(register(visitor, visitor.email, "x" * length)) == {("#/password", "out_of_range")}


@pytest.mark.parametrize("password", ["password", "PassWord", "\uff50assword", "qwertyuiop"])
def test_a_common_password_is_refused_however_it_is_spelled(visitor, password):
    assert faults(register(visitor, visitor.email, password)) == {("#/password", "too_common")}


@pytest.mark.parametrize("field", ["id", "user_id", "created_at", "email_key", "password_hash", "role"])
def test_proof_7_who_registers_sets_nothing_else(visitor, field):
    credentials = {"email": visitor.email, "password": visitor.password}

    answer = visitor.http.post("/auth/register", json={**credentials, field: "01900000-0000-7000-8000-000000000000"})

    assert faults(answer) == {(f"#/{field}", "unknown_field")}
    assert visitor.http.post("/auth/login", json=credentials).status_code == 401


def test_all_faults_of_a_registration_are_listed_at_once(visitor):
    answer = visitor.http.post("/auth/register", json={"email": 1, "admin": True})

    assert faults(answer) == {("#/email", "invalid_type"), ("#/password", "required"), ("#/admin", "unknown_field")}


def test_a_nul_character_is_refused(visitor):
    assert faults(register(visitor, new_email(), "pass\0word long")) == {("#/password", "invalid_character")}
