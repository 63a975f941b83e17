"""More logins than can be hashed in time are refused, and cost nobody an attempt."""

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg

from tests.accounts.people import at_once, codes, new_email
from tests.client import Client


def test_a_login_that_could_not_be_checked_counts_for_nothing(serve):
    slow = serve(BCRYPT_ROUNDS="11", WEB_CONCURRENCY="1")
    client = Client(slow.url)

    def guess():
        return client.http.post("/auth/login", json={"email": new_email(), "password": "wrong"})

    answers = at_once(50, guess)

    refused = [answer for answer in answers if answer.status_code == 503]
    assert set(codes(answers)) == {"overloaded", "credentials_invalid"}
    assert all(answer.headers["Retry-After"] == "1" for answer in refused)
    with psycopg.connect(slow.database_url) as sql:
        counts = sql.execute(
            "SELECT count(*) FILTER (WHERE pending <> '{}'), count(*) FILTER (WHERE cardinality(failed_at) = 1)"
            " FROM login_attempts"
        ).fetchone()
    assert counts == (0, 50 - len(refused))
    client.close()


def test_a_password_being_checked_holds_no_connection_and_no_worker(serve):
    slow = serve(BCRYPT_ROUNDS="13", WEB_CONCURRENCY="1", DATABASE_POOL_SIZE="1")
    client = Client(slow.url)

    def guess():
        return client.http.post("/auth/login", json={"email": new_email(), "password": "wrong"}, timeout=60)

    with ThreadPoolExecutor(2) as threads:
        logins = [threads.submit(guess) for _ in range(2)]
        answered_meanwhile = 0
        while not all(login.done() for login in logins):
            answered_meanwhile += client.http.get("/readyz").status_code == 200
            time.sleep(0.01)  # leaves the hashes a processor
        assert {login.result().status_code for login in logins} <= {401, 503}  # what takes over 12 s is refused
    assert answered_meanwhile > 10
    client.close()
