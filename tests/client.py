"""A person who uses the API, and what every problem answer has to look like."""

import uuid
from typing import Any, Self

import httpx

from tests import conforms

LAMP = {
    "currency": "EUR",
    "items": [{"sku": "lamp-1", "name": "Lamp", "quantity": 2, "unit_price_cents": 625}],
}
PASSWORD = "correct horse battery staple 9"


def plain_http(**options: Any) -> httpx.Client:
    """A client for http alone: to read the authorities that TLS would need costs 25 ms, a thousand times a run.

    It keeps every connection: what is too many is closed under the thread that has just got it (httpcore 1.0).
    """
    return httpx.Client(**{"timeout": 15, "verify": False, "limits": httpx.Limits(), **options})


class Client:
    """One user of a server. Paths are relative to it; each call sends the access token, if there is one."""

    def __init__(self, url: str, email: str | None = None, password: str = PASSWORD) -> None:
        self.http = plain_http(base_url=url, event_hooks={"response": [conforms.check]})
        self.email = email or f"user-{uuid.uuid4().hex}@example.com"
        self.password = password
        self.user_id: str | None = None
        self.access_token: str | None = None
        self.refresh_token: str | None = None

    def register(self) -> Self:
        answer = self.http.post("/auth/register", json=self._credentials())
        assert answer.status_code == 201, answer.text
        self.user_id = answer.json()["id"]
        return self

    def login(self) -> Self:
        answer = self.http.post("/auth/login", json=self._credentials())
        assert answer.status_code == 200, answer.text
        pair = answer.json()
        self.access_token, self.refresh_token = pair["access_token"], pair["refresh_token"]
        return self

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def patch(self, path: str, **options: Any) -> httpx.Response:
        return self.request("PATCH", path, **options)

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        token = {"Authorization": f"Bearer {self.access_token}"} if self.access_token else {}
        return self.http.request(method, path, headers={**token, **(headers or {})}, **options)

    def place(self, order: Any = LAMP, key: str | None = None, **options: Any) -> httpx.Response:
        """Places an order, under a fresh key if none is given."""
        return self.post("/orders", json=order, headers={"Idempotency-Key": key or str(uuid.uuid4())}, **options)

    def close(self) -> None:
        self.http.close()

    def _credentials(self) -> dict[str, str]:
        return {"email": self.email, "password": self.password}


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Whether it is that problem, complete (RFC 9457 and CONTRACT). Returns the document."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    document = response.json()
    assert (document["status"], document["code"]) == (status, code), document
    assert document["type"].endswith(f"/problems/{code}")
    assert document["title"]
    assert document["detail"]
    assert isinstance(document["retry"], dict)
    assert document["trace_id"] == response.headers["X-Trace-Id"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return document
