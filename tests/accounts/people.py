"""What the tests of accounts share: logins in any spelling, and many at the same moment."""

import hashlib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg

from orders_api.accounts.emails import key_of
from tests.client import PASSWORD, Client

WRONG = "not the password"


def new_email() -> str:
    return f"user-{uuid.uuid4().hex}@example.com"


def log_in(client: Client, password: str = PASSWORD, email: str | None = None, **headers: str) -> httpx.Response:
    body = {"email": email or client.email, "password": password}
    return client.http.post("/auth/login", json=body, headers=headers)


def lock(client: Client, email: str | None = None) -> None:
    for _ in range(5):
        assert log_in(client, WRONG, email).status_code == 401


def hash_of(email: str) -> bytes:
    """What login_attempts knows of an email."""
    return hashlib.sha256(key_of(email).encode()).digest()


def pend(sql: psycopg.Connection, client: Client, count: int, age: str) -> None:
    """As many attempts whose password is being checked, begun that long ago."""
    sql.execute(
        "UPDATE login_attempts SET pending = (SELECT jsonb_object_agg(n::text, now() - %s::interval)"
        " FROM generate_series(1, %s) AS n) WHERE email_hash = %s",
        [age, count, hash_of(client.email)],
    )


def at_once(count: int, call: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """The answers of `count` calls that start at the same moment."""
    together = threading.Barrier(count)

    def one() -> httpx.Response:
        together.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(one) for _ in range(count)]]


def codes(answers: list[httpx.Response]) -> list[str | None]:
    return [answer.json().get("code") for answer in answers]
