"""`orders-api expire` deletes what is of no use any more."""

import hashlib
import subprocess
import sys

from tests.accounts.people import WRONG, log_in


def expire(server):
    done = subprocess.run(
        [sys.executable, "-m", "orders_api", "expire"], env=server.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def age(sql, token, age):
    sql.execute(
        "UPDATE refresh_tokens SET created_at = now() - interval '40 days', expires_at = now() - %s::interval"
        " WHERE token_hash = %s",
        [age, hashlib.sha256(token.encode()).digest()],
    )


def rows(sql, table, client):
    return sql.execute(f"SELECT count(*) FROM {table} WHERE user_id = %s", [client.user_id]).fetchone()[0]


def test_a_session_goes_with_its_last_token(alice, server, sql):
    age(sql, alice.refresh_token, "2 days")

    expire(server)

    assert (rows(sql, "refresh_tokens", alice), rows(sql, "sessions", alice)) == (0, 0)


def test_a_session_with_a_token_left_stays(alice, server, sql):
    renewed = alice.http.post("/auth/refresh", json={"refresh_token": alice.refresh_token}).json()
    age(sql, alice.refresh_token, "2 days")

    expire(server)

    assert (rows(sql, "refresh_tokens", alice), rows(sql, "sessions", alice)) == (1, 1)
    again = alice.http.post("/auth/refresh", json={"refresh_token": renewed["refresh_token"]})
    assert again.status_code == 200


def test_a_token_that_expired_an_hour_ago_stays(alice, server, sql):
    age(sql, alice.refresh_token, "1 hour")

    expire(server)

    assert rows(sql, "refresh_tokens", alice) == 1


def test_only_lockouts_long_over_are_forgotten(alice, bob, server, sql):
    for client in (alice, bob):
        log_in(client, WRONG)
    alices = hashlib.sha256(alice.email.encode()).digest()
    bobs = hashlib.sha256(bob.email.encode()).digest()
    sql.execute("UPDATE login_attempts SET updated_at = now() - interval '31 min' WHERE email_hash = %s", [alices])

    expire(server)

    left = sql.execute("SELECT email_hash FROM login_attempts WHERE email_hash = ANY(%s)", [[alices, bobs]])
    assert left.fetchall() == [(bobs,)]
