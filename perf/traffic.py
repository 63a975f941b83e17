"""The acceptance profile, open loop: each request has its time beforehand, and its latency counts from it.

`python -m perf.traffic PLAN SAMPLES` is the generator as a process of its own: it reads a plan and writes the samples,
both as JSON. It needs nothing of the service but its address and a crowd (perf/crowd.py).
"""

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import gc
import json
import os
import random
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import gevent
import gevent.lock
import gevent.pool
import gevent.socket
import orjson

REQUEST_TIMEOUT_S = 12  # the service gives up after 10: whatever takes longer hangs
IDLE_S = 3  # the service closes idle connections after 5; a client that uses one then meets the closing
MAX_CONNECTIONS = 1000  # by then it is the client that queues: `waited` says how often
PRIORITY = -10  # as nice(1) counts
PAGE = 20  # orders, the API's default
MIX = {  # 70 % reads, 20 % creates, 10 % changes and logins; a login every 15 minutes would be far below 1 %
    "list": 25,
    "list with items": 15,
    "order": 30,
    "create": 20,
    "change": 7,
    "cancel": 2,
    "login": 1,
}
CURRENCIES = ("EUR", "USD", "JPY")


class Wrong(Exception):  # noqa: N818  (of an answer, not of ours)
    """An answer that is not the right one."""


class Shed(Wrong):
    """503 `overloaded` with Retry-After: refused as the contract has it."""


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


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


class Sample(NamedTuple):
    """One request. Times are seconds: `at` and `lag` from the plan's beginning and the planned time, `took` from the
    planned time to the last byte. `outcome` is "ok", "shed", or what was wrong."""

    at: float
    operation: str
    lag: float
    took: float
    outcome: str
    size: int


class Connections:
    """Keep-alive connections, the last used first. None is retried: what fails is a failure."""

    def __init__(self, host: str, port: int, most: int = MAX_CONNECTIONS) -> None:
        self.host, self.port = host, port
        self.opened = self.waited = 0
        self._idle: list[tuple[float, Any]] = []
        self._places = gevent.lock.BoundedSemaphore(most)

    def exchange(self, request: bytes) -> Answer:
        """Raises OSError, gevent.Timeout or ValueError if no whole answer comes."""
        self.waited += self._places.locked()
        with self._places:
            connection = self._take()
            try:
                connection.sendall(request)
                answer = _read_answer(connection)
            except BaseException:
                connection.close()
                raise
            if answer.headers.get(b"connection", b"").lower() == b"close":
                connection.close()
            else:
                self._idle.append((time.monotonic(), connection))
            return answer

    def _take(self) -> Any:
        while self._idle:
            since, connection = self._idle.pop()
            if time.monotonic() - since < IDLE_S:
                return connection
            connection.close()
        self.opened += 1
        connection = gevent.socket.create_connection((self.host, self.port))
        connection.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        return connection


def _read_answer(connection: Any) -> Answer:
    raw = b""
    while (end := raw.find(b"\r\n\r\n")) < 0:
        raw += _some(connection)
    status_line, *lines = raw[:end].split(b"\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    status, body = int(status_line.split(b" ", 2)[1]), raw[end + 4 :]
    length = 0 if status in (204, 304) else int(headers[b"content-length"])
    while len(body) < length:
        body += _some(connection)
    if len(body) != length:
        raise ValueError("more bytes than Content-Length says")
    return Answer(status, headers, body)


def _some(connection: Any) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise ConnectionResetError("closed before the answer was complete")
    return received


class Operations:
    """What people do. Each method sends one request, checks its answer and returns it; Wrong says what is wrong."""

    def __init__(self, connections: Connections, rng: random.Random) -> None:
        self.connections = connections
        self.rng = rng

    def list(self, person: Person, include: str = "") -> Answer:
        told, known = person.newest, len(person.orders)
        answer = self._send(person, "GET", f"/orders{include}", expected=(200,))
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

    def list_with_items(self, person: Person) -> Answer:
        return self.list(person, "?include=items")

    def order(self, person: Person) -> Answer:
        """One of the person's last orders; every other time with its tag, if it was seen before."""
        order_id = self.rng.choice(person.orders)
        tag = person.tags.get(order_id) if self.rng.random() < 0.5 else None
        headers = f"If-None-Match: {tag}\r\n" if tag else ""
        path = f"/orders/{order_id}?include=items"
        answer = self._send(person, "GET", path, headers=headers, expected=(200, 304) if tag else (200,))
        if answer.status == 200:
            document = _json(answer)
            _check(document["id"] == order_id, "another order")
            _check(_adds_up(document), "items that do not add up")
            person.tags[order_id] = answer.headers[b"etag"].decode()
        return answer

    def create(self, person: Person) -> Answer:
        items = [
            {"sku": f"sku-{self.rng.randrange(1000)}", "name": "Lamp", "quantity": self.rng.randint(1, 5)}
            | {"unit_price_cents": self.rng.randint(1, 10_000)}
            for _ in range(self.rng.randint(1, 3))
        ]
        body = {"currency": self.rng.choice(CURRENCIES), "items": items, "metadata": {"basket": "perf"}}
        key = f"Idempotency-Key: {uuid.uuid4()}\r\n"
        answer = self._send(person, "POST", "/orders", body, headers=key, expected=(201,))
        document = _json(answer)
        _check(answer.headers[b"location"].decode() == f"/orders/{document['id']}", "a Location elsewhere")
        _check(document["items"] == items and _adds_up(document), "other items than were sent")
        person.orders.append(document["id"])
        person.pending.append(document["id"])
        person.newest = max(person.newest, document["created_at"])
        return answer

    def change(self, person: Person) -> Answer:
        order_id, note = self.rng.choice(person.orders), uuid.uuid4().hex
        answer = self._send(person, "PATCH", f"/orders/{order_id}", {"metadata": {"note": note}}, expected=(200,))
        document = _json(answer)
        _check(document["id"] == order_id and document["metadata"]["note"] == note, "a change that is not there")
        return answer

    def cancel(self, person: Person) -> Answer:
        """Of a pending order; a change of metadata if none is left."""
        if not person.pending:
            return self.change(person)
        order_id = person.pending.pop(self.rng.randrange(len(person.pending)))
        answer = self._send(person, "PATCH", f"/orders/{order_id}", {"status": "cancelled"}, expected=(200,))
        document = _json(answer)
        _check(document["id"] == order_id and document["status"] == "cancelled", "an order that is not cancelled")
        return answer

    def register(self, person: Person) -> Answer:
        body = {"email": person.email, "password": person.password}
        return self._send(person, "POST", "/auth/register", body, expected=(201,))

    def login(self, person: Person) -> Answer:
        body = {"email": person.email, "password": person.password}
        answer = self._send(person, "POST", "/auth/login", body, expected=(200,))
        document = _json(answer)
        _check(document["access_token"].count(".") == 2 and document["expires_in"] > 0, "no token")
        person.token = document["access_token"]
        return answer

    def _send(
        self,
        person: Person,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: str = "",
        expected: tuple[int, ...],
    ) -> Answer:
        content = b"" if body is None else orjson.dumps(body)
        kind = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n" if content else ""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: perf.example\r\nX-Forwarded-For: {person.address}\r\n"
            f"Authorization: Bearer {person.token}\r\n{headers}{kind}\r\n"
        )
        answer = self.connections.exchange(head.encode() + content)
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


def load_crowd(path: str) -> list[Person]:
    with open(path, "rb") as file:
        return [Person(**person) for person in orjson.loads(file.read())]


@dataclass
class Phase:
    rate: float  # requests a second
    seconds: float


def arrivals(phases: list[Phase], rng: random.Random, mix: dict[str, int]) -> Iterator[tuple[float, str]]:
    """When (seconds from the beginning) and what, at constant distances within a phase."""
    begin = 0.0
    for phase in phases:
        count = round(phase.rate * phase.seconds)
        for number, operation in enumerate(rng.choices([*mix], [*mix.values()], k=count)):
            yield begin + number / phase.rate, operation
        begin += phase.seconds


class Generator:
    """Sends a plan to a service and hands each sample to `report` when its answer is there."""

    def __init__(
        self, host: str, port: int, crowd: list[Person], seed: int = 1, mix: dict[str, int] | None = None
    ) -> None:
        self._mix = mix or MIX
        self.connections = Connections(host, port)
        self._rng = random.Random(seed)  # noqa: S311  (the same traffic each time)
        self._operations = Operations(self.connections, self._rng)
        self._all = deque(self._rng.sample(crowd, len(crowd)))
        self._with_password = deque(person for person in crowd if person.password)
        self.began = 0.0  # by time.monotonic()
        self.cpu_s: list[float] = []  # of a processor, in each phase

    def run(self, phases: list[Phase], report: Callable[[Sample], None]) -> None:
        """Returns when every answer is there, or has timed out."""
        plan = list(arrivals(phases, self._rng, self._mix))
        flying = gevent.pool.Group()
        go_first()
        gc.collect()
        gc.freeze()  # a collection of everything would stop the generator for tens of milliseconds
        self.began = time.monotonic() + 0.1
        flying.spawn(self._watch, phases)
        for at, operation in plan:
            gevent.sleep(max(0.0, self.began + at - time.monotonic()))
            flying.spawn(self._one, at, operation, report)
        flying.join()

    def _watch(self, phases: list[Phase]) -> None:
        end = self.began
        gevent.sleep(end - time.monotonic())
        for phase in phases:
            end, before = end + phase.seconds, time.process_time()
            gevent.sleep(max(0.0, end - time.monotonic()))
            self.cpu_s.append(time.process_time() - before)

    def _one(self, at: float, operation: str, report: Callable[[Sample], None]) -> None:
        lag = time.monotonic() - self.began - at
        size, outcome = 0, "ok"
        try:
            with gevent.Timeout(REQUEST_TIMEOUT_S):
                size = len(self._act(operation).body)
        except Shed:
            outcome = "shed"
        except Wrong as wrong:
            outcome = str(wrong)
        except gevent.Timeout:
            outcome = "timeout"
        except (OSError, ValueError, LookupError, TypeError) as error:  # no whole answer, or not of the known shape
            outcome = f"{type(error).__name__}: {error}"
        report(Sample(at, operation, lag, time.monotonic() - self.began - at, outcome, size))

    def _act(self, operation: str) -> Answer:
        """The next person's turn: in turns, everybody is as busy as everybody else."""
        people = self._with_password if operation == "login" else self._all
        people.rotate(-1)
        return getattr(self._operations, operation.replace(" ", "_"))(people[0])


def go_first() -> None:
    """Before the service on shared processors, where we may: in earnest the clients have machines of their own."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


def main() -> None:
    plan_file, samples_file = sys.argv[1:]
    with open(plan_file) as file:
        plan = json.load(file)
    generator = Generator(plan["host"], plan["port"], load_crowd(plan["crowd"]), plan["seed"], plan["mix"])
    samples: list[Sample] = []
    generator.run([Phase(*phase) for phase in plan["phases"]], samples.append)
    connections = generator.connections
    with open(samples_file, "w") as file:
        sent = {"samples": samples, "began": generator.began, "cpu_s": generator.cpu_s}
        json.dump({**sent, "connections": connections.opened, "waited": connections.waited}, file)


if __name__ == "__main__":
    main()
