"""What the tests of accounts share: logins in any spelling, and many at the same moment."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

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
