"""POST /auth/refresh and /auth/logout; what ends a session."""

import hashlib

import pytest

from tests.accounts.people import at_once
from tests.client import assert_problem


def refresh(client, token=None):
    return client.http.post("/auth/refresh", json={"refresh_token": token or client.refresh_token})


def works(client, access_token):
    answer = client.http.get("/auth/me", headers={"Authorization": f"Bearer {access_token}"})
    return answer.status_code == 200


def move_spent_back(sql, token):
    digest = hashlib.sha256(token.encode()).digest()
    sql.execute("UPDATE refresh_tokens SET spent_at = spent_at - interval '11 s' WHERE token_hash = %s", [digest])


def test_a_refresh_gives_a_new_working_pair(alice):
    answer = refresh(alice)

    assert answer.status_code == 200
    assert answer.json()["refresh_token"] != alice.refresh_token
    assert works(alice, answer.json()["access_token"])
    assert answer.headers["Cache-Control"] == "no-store"


def test_refresh_tokens_are_stored_hashed(alice, sql):
    stored = sql.execute("SELECT token_hash FROM refresh_tokens WHERE user_id = %s", [alice.user_id]).fetchall()

    assert stored == [(hashlib.sha256(alice.refresh_token.encode()).digest(),)]


def test_parallel_retries_within_the_grace_all_get_working_pairs(alice):
    answers = at_once(8, lambda: refresh(alice))

    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.json()["refresh_token"] for answer in answers}) == 8
    assert all(refresh(alice, answer.json()["refresh_token"]).status_code == 200 for answer in answers)


def test_reuse_after_the_grace_ends_the_whole_session(alice, sql):
    renewed = refresh(alice).json()
    move_spent_back(sql, alice.refresh_token)

    assert_problem(refresh(alice), 401, "refresh_token_invalid")

    assert_problem(refresh(alice, renewed["refresh_token"]), 401, "refresh_token_invalid")
    assert not works(alice, renewed["access_token"])
    assert not works(alice, alice.access_token)


def test_reuse_ends_no_other_session_of_the_user(alice, sql):
    first = alice.refresh_token
    alice.login()
    refresh(alice, first)
    move_spent_back(sql, first)

    assert refresh(alice, first).status_code == 401
    assert works(alice, alice.access_token)
    assert refresh(alice).status_code == 200


def test_an_expired_refresh_token_is_refused(alice, sql):
    sql.execute(
        "UPDATE refresh_tokens SET created_at = now() - interval '31 days', expires_at = now() WHERE user_id = %s",
        [alice.user_id],
    )

    assert_problem(refresh(alice), 401, "refresh_token_invalid")


@pytest.mark.parametrize(
    "token", ["", "x", "é" * 76, "0" * 32 + "." + "A" * 43, "1" * 32 + "." + "A" * 42, "A" * 60_000]
)
def test_what_is_no_refresh_token_of_ours_is_refused(alice, token):
    answer = alice.http.post("/auth/refresh", json={"refresh_token": token})

    assert_problem(answer, 401, "refresh_token_invalid")


def test_a_refresh_token_under_another_users_name_is_refused(alice, bob):
    mine, theirs = alice.refresh_token.split(".")[1], bob.refresh_token.split(".")[0]

    assert_problem(refresh(alice, f"{theirs}.{mine}"), 401, "refresh_token_invalid")


def test_proof_2_logout_ends_access_and_refresh_tokens(alice):
    answer = alice.post("/auth/logout")

    assert (answer.status_code, answer.content) == (204, b"")
    assert_problem(alice.get("/auth/me"), 401, "token_invalid")
    assert_problem(refresh(alice), 401, "refresh_token_invalid")


def test_logout_ends_no_other_session(alice):
    other = alice.access_token
    alice.login().post("/auth/logout")

    assert works(alice, other)


def test_a_session_known_to_be_open_costs_no_statement(alice):
    alice.get("/auth/me")

    assert 'desc="1 statements' in alice.get("/auth/me").headers["Server-Timing"]
