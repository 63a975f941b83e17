"""What people do with the service: each operation is a script of one request, whose answer it checks."""

import random
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import orjson

from perf.wire import Answer

PAGE = 20  # orders, the API's default
CURRENCIES = ("EUR", "USD", "JPY")

Exchange = Generator[bytes, Answer, Answer]


class Wrong(Exception):  # noqa: N818  (of an answer, not of ours)
    """An answer that is not the right one."""


class Shed(Wrong):
    """503 `overloaded` with Retry-After: refused as the contract has it."""


@dataclass
class Person:
    """A user of the service, and what it was told: what later answers are checked against."""

    address: str
    token: str
    orders: list[str]
    pending: list[str]
    email: str | None = None
    password: str | None = None
    newest: str = ""  # created_at of the last order that was acknowledged
    tags: dict[str, str] = field(default_factory=dict)


class Operations:
    """What people do. Each method sends one request, checks its answer and returns it; Wrong says what is wrong."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def list(self, person: Person, include: str = "") -> Exchange:
        told, known = person.newest, len(person.orders)
        answer = yield from _send(person, "GET", f"/orders{include}", expected=(200,))
        page = _json(answer)
        data = page["data"]
        _check(len(data) == min(PAGE, known) or known <= len(data) <= PAGE, f"a page of {len(data)}")
        _check(len({order["id"] for order in data}) == len(data), "an order twice on a page")
        times = [order["created_at"] for order in data]
        _check(times == sorted(times, reverse=True), "a page out of order")
        _check(page["has_more"] == (page["next_cursor"] is not None), "has_more without next_cursor")
        _check(times[0] >= told, "an acknowledged order is missing")
        if include:
            _check(all(_adds_up(order) for order in data), "items that do not add up")
        return answer

    def list_with_items(self, person: Person) -> Exchange:
        return (yield from self.list(person, "?include=items"))

    def order(self, person: Person) -> Exchange:
        """One of the person's last orders; every other time with its tag, if it was seen before."""
        order_id = self.rng.choice(person.orders)
        tag = person.tags.get(order_id) if self.rng.random() < 0.5 else None
        headers = f"If-None-Match: {tag}\r\n" if tag else ""
        path = f"/orders/{order_id}?include=items"
        answer = yield from _send(person, "GET", path, headers=headers, expected=(200, 304) if tag else (200,))
        if answer.status == 200:
            document = _json(answer)
            _check(document["id"] == order_id, "another order")
            _check(_adds_up(document), "items that do not add up")
            person.tags[order_id] = answer.headers[b"etag"].decode()
        return answer

    def create(self, person: Person) -> Exchange:
        items = [
            {"sku": f"sku-{self.rng.randrange(1000)}", "name": "Lamp", "quantity": self.rng.randint(1, 5)}
            | {"unit_price_cents": self.rng.randint(1, 10_000)}
            for _ in range(self.rng.randint(1, 3))
        ]
        body = {"currency": self.rng.choice(CURRENCIES), "items": items, "metadata": {"basket": "perf"}}
        key = f"Idempotency-Key: {uuid.uuid4()}\r\n"
        answer = yield from _send(person, "POST", "/orders", body, headers=key, expected=(201,))
        document = _json(answer)
        _check(answer.headers[b"location"].decode() == f"/orders/{document['id']}", "a Location elsewhere")
        _check(document["items"] == items and _adds_up(document), "other items than were sent")
        person.orders.append(document["id"])
        person.pending.append(document["id"])
        person.newest = max(person.newest, document["created_at"])
        return answer

    def change(self, person: Person) -> Exchange:
        order_id, note = self.rng.choice(person.orders), uuid.uuid4().hex
        answer = yield from _send(person, "PATCH", f"/orders/{order_id}", {"metadata": {"note": note}}, expected=(200,))
        document = _json(answer)
        _check(document["id"] == order_id and document["metadata"]["note"] == note, "a change that is not there")
        return answer

    def cancel(self, person: Person) -> Exchange:
        """Of a pending order; a change of metadata if none is left."""
        if not person.pending:
            return (yield from self.change(person))
        order_id = person.pending.pop(self.rng.randrange(len(person.pending)))
        answer = yield from _send(person, "PATCH", f"/orders/{order_id}", {"status": "cancelled"}, expected=(200,))
        document = _json(answer)
        _check(document["id"] == order_id and document["status"] == "cancelled", "an order that is not cancelled")
        return answer

    def register(self, person: Person) -> Exchange:
        body = {"email": person.email, "password": person.password}
        return (yield from _send(person, "POST", "/auth/register", body, expected=(201,)))

    def login(self, person: Person) -> Exchange:
        body = {"email": person.email, "password": person.password}
        answer = yield from _send(person, "POST", "/auth/login", body, expected=(200,))
        document = _json(answer)
        _check(document["access_token"].count(".") == 2 and document["expires_in"] > 0, "no token")
        person.token = document["access_token"]
        return answer


def _send(
    person: Person, method: str, path: str, body: Any = None, *, headers: str = "", expected: tuple[int, ...]
) -> Exchange:
    content = b"" if body is None else orjson.dumps(body)
    kind = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n" if content else ""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: perf.example\r\nX-Forwarded-For: {person.address}\r\n"
        f"Authorization: Bearer {person.token}\r\n{headers}{kind}\r\n"
    )
    answer = yield head.encode() + content
    if answer.status not in expected:
        raise _refusal(answer)
    return answer


def _refusal(answer: Answer) -> Wrong:
    code = ""
    if answer.headers.get(b"content-type") == b"application/problem+json":
        code = _json(answer).get("code", "")
    if (answer.status, code) == (503, "overloaded") and answer.headers.get(b"retry-after", b"").isdigit():
        return Shed("503 overloaded")
    return Wrong(f"{answer.status} {code}".strip())


def _json(answer: Answer) -> Any:
    try:
        return orjson.loads(answer.body)
    except ValueError:
        raise Wrong(f"{answer.status} with a body that is no JSON") from None


def _check(right: bool, otherwise: str) -> None:
    if not right:
        raise Wrong(otherwise)


def _adds_up(order: dict[str, Any]) -> bool:
    total = sum(item["quantity"] * item["unit_price_cents"] for item in order["items"])
    return bool(order["items"]) and total == order["total_cents"]
