"""Five failed logins within 15 minutes lock the email for 15 minutes."""

import socket

import pytest

from tests.accounts.people import WRONG, at_once, codes, hash_of, lock, log_in, new_email, pend
from tests.client import assert_problem


def test_the_right_password_is_refused_while_locked(alice):
    lock(alice)

    answer = log_in(alice)

    assert assert_problem(answer, 429, "account_locked")["retry"]["after_s"] == int(answer.headers["Retry-After"])
    assert 890 <= int(answer.headers["Retry-After"]) <= 900


def test_four_failures_lock_nothing(alice):
    for _ in range(4):
        log_in(alice, WRONG)

    assert log_in(alice).status_code == 200


def test_success_resets_the_count(alice):
    for _ in range(2):
        for _ in range(4):
            assert log_in(alice, WRONG).status_code == 401
        assert log_in(alice).status_code == 200


def test_an_unknown_email_locks_alike(alice):
    email = new_email()
    lock(alice, email)

    assert_problem(log_in(alice, email=email), 429, "account_locked")


def test_proof_4_of_100_guesses_at_once_at_most_5_are_evaluated(alice):
    answers = codes(at_once(100, lambda: log_in(alice, WRONG)))

    evaluated = answers.count("credentials_invalid")
    assert evaluated == 5 or (evaluated < 5 and "overloaded" in answers)  # what is refused counts for nothing
    assert set(answers) <= {"credentials_invalid", "rate_limited", "account_locked", "overloaded"}
    for _ in range(5 - evaluated):
        assert log_in(alice, WRONG).status_code == 401
    assert_problem(log_in(alice), 429, "account_locked")


def test_20_right_passwords_at_once_lock_nobody_out(alice):
    answers = at_once(20, lambda: log_in(alice))

    assert {answer.status_code for answer in answers} <= {200, 429}
    assert "account_locked" not in codes(answers)
    assert log_in(alice).status_code == 200


@pytest.mark.parametrize("spelled", [str.upper, lambda e: f" {e} ", lambda e: e.replace("u", "\uff55", 1)])
def test_proof_4_another_spelling_dodges_nothing(alice, spelled):
    lock(alice)

    assert_problem(log_in(alice, email=spelled(alice.email)), 429, "account_locked")


def test_proof_4_spellings_share_one_count(alice):
    for spelled in (str.upper, str.title, lambda e: f"{e} ", lambda e: e.replace("u", "\uff55", 1), str.lower):
        assert log_in(alice, WRONG, email=spelled(alice.email)).status_code == 401

    assert_problem(log_in(alice), 429, "account_locked")


def test_proof_4_a_forged_client_address_dodges_nothing(alice):
    lock(alice)

    assert_problem(log_in(alice, **{"X-Forwarded-For": "203.0.113.9"}), 429, "account_locked")


def test_proof_4_a_cache_flush_unlocks_nobody(alice, server):
    lock(alice)
    host, port = server.memcached.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as memcached:
        memcached.sendall(b"flush_all\r\n")
        assert memcached.recv(16) == b"OK\r\n"

    assert_problem(log_in(alice), 429, "account_locked")


def test_open_sessions_go_on_while_locked(alice):
    lock(alice)

    assert alice.get("/auth/me").status_code == 200
    assert alice.http.post("/auth/refresh", json={"refresh_token": alice.refresh_token}).status_code == 200


def test_an_attempt_while_locked_does_not_extend_the_lock(alice, sql):
    lock(alice)
    read = "SELECT locked_until FROM login_attempts WHERE email_hash = %s"
    before = sql.execute(read, [hash_of(alice.email)]).fetchone()

    log_in(alice, WRONG)

    assert sql.execute(read, [hash_of(alice.email)]).fetchone() == before


def test_a_lock_ends_and_the_count_starts_again(alice, sql):
    lock(alice)
    end_lock(alice, sql)

    assert log_in(alice, WRONG).status_code == 401
    assert log_in(alice).status_code == 200


def test_failures_older_than_15_minutes_do_not_count(alice, sql):
    fail_before(alice, sql, "15 minutes")

    assert log_in(alice, WRONG).status_code == 401
    assert log_in(alice).status_code == 200


def test_failures_of_almost_15_minutes_ago_count(alice, sql):
    fail_before(alice, sql, "14 minutes 50 seconds")

    assert log_in(alice, WRONG).status_code == 401
    assert_problem(log_in(alice), 429, "account_locked")


def test_attempts_being_checked_fill_the_budget_but_are_no_lock(alice, sql):
    pend(sql, alice, 5, "1 second")

    answer = log_in(alice)

    assert_problem(answer, 429, "rate_limited")
    assert answer.headers["Retry-After"] == "1"


def test_attempts_of_a_killed_process_count_as_failed(alice, sql):
    pend(sql, alice, 5, "30 seconds")
    answer = log_in(alice)

    assert_problem(answer, 429, "account_locked")
    assert 890 <= int(answer.headers["Retry-After"]) <= 900


def test_attempts_of_a_killed_process_count_as_failed_after_a_lock_too(alice, sql):
    lock(alice)
    end_lock(alice, sql)
    pend(sql, alice, 4, "30 seconds")

    assert log_in(alice, WRONG).status_code == 401
    assert_problem(log_in(alice), 429, "account_locked")


def end_lock(client, sql):
    sql.execute("UPDATE login_attempts SET locked_until = now() WHERE email_hash = %s", [hash_of(client.email)])


def fail_before(client, sql, age):
    """Four failures of that age."""
    for _ in range(4):
        log_in(client, WRONG)
    sql.execute(
        "UPDATE login_attempts SET failed_at = ARRAY(SELECT at - %s::interval FROM unnest(failed_at) AS at)"
        " WHERE email_hash = %s",
        [age, hash_of(client.email)],
    )
