"""POST /auth/login and GET /auth/me."""

import re

import bcrypt
import pytest

from tests.accounts.people import WRONG, log_in, new_email
from tests.client import assert_problem


def without_trace(document):
    return {name: value for name, value in document.items() if name != "trace_id"}


def test_a_login_is_answered_with_a_pair_of_tokens(alice):
    answer = log_in(alice)

    assert answer.status_code == 200
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 900)
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_login_costs_four_statements(alice):
    assert 'desc="4 statements' in log_in(alice).headers["Server-Timing"]


def test_proof_3_unknown_email_and_wrong_password_are_alike_in_body_and_statements(alice):
    wrong, unknown = log_in(alice, WRONG), log_in(alice, WRONG, email=new_email())

    known_document = assert_problem(wrong, 401, "credentials_invalid")
    unknown_document = assert_problem(unknown, 401, "credentials_invalid")
    assert without_trace(known_document) == without_trace(unknown_document)
    counts = [re.search(r"(\d+) statements", answer.headers["Server-Timing"])[1] for answer in (wrong, unknown)]
    assert counts == ["3", "3"]


def test_proof_3_unknown_email_and_wrong_password_take_the_same_time(serve, client_of):
    """The quickest of each within a tenth, after one to five rounds: others use this machine too."""
    server = serve(BCRYPT_ROUNDS="8")
    accounts = [client_of(server) for _ in range(5)]

    def seconds(email):
        return log_in(accounts[0], WRONG, email=email).elapsed.total_seconds()

    wrong, unknown, ratios = [], [], []
    for _ in range(5):
        for account in accounts * 3:
            wrong.append(seconds(account.email))
            unknown.append(seconds(new_email()))
        quickest = min(wrong), min(unknown)
        ratios.append(max(quickest) / min(quickest))
        if ratios[-1] < 1.1:
            return
        for account in accounts:
            account.login()  # its failures count no longer
    pytest.fail(f"one takes {ratios} times as long as the other")


@pytest.mark.parametrize("email", [str.upper, lambda e: f"  {e} ", lambda e: e.replace("u", "\uff55", 1)])
def test_any_spelling_of_the_email_logs_in(alice, email):
    assert log_in(alice, email=email(alice.email)).status_code == 200


def test_a_password_too_short_to_be_registered_is_simply_wrong(alice):
    assert_problem(log_in(alice, "x"), 401, "credentials_invalid")


def test_me_tells_who_is_logged_in(alice):
    answer = alice.get("/auth/me")

    assert (answer.json()["id"], answer.json()["email"]) == (alice.user_id, alice.email)
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_a_hash_of_another_cost_is_renewed_by_the_next_login(alice, sql):
    read = "SELECT password_hash FROM users WHERE id = %s"
    digest = sql.execute(read, [alice.user_id]).fetchone()[0]
    assert digest.startswith("$2b$04$")
    older = bcrypt.hashpw(_digest_of(alice.password), bcrypt.gensalt(5)).decode()
    sql.execute("UPDATE users SET password_hash = %s WHERE id = %s", [older, alice.user_id])

    assert log_in(alice).status_code == 200

    assert sql.execute(read, [alice.user_id]).fetchone()[0].startswith("$2b$04$")
    assert log_in(alice).status_code == 200


def _digest_of(password):
    from orders_api.accounts.passwords import _digest

    return _digest(password)
