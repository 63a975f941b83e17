"""One client: it places orders, changes, pays and reads them, and asks again until it knows what became of each."""

import contextlib
import itertools
import math
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import orjson

from tests.proofs import requests
from tests.proofs.history import FAIL, OK, WRITES, Attempt, Recorder
from tests.proofs.line import Answer, Line
from tests.proofs.requests import Request

FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 0.5
AGAIN = ("idempotency_key_in_progress", "rate_limited")  # definite, and to be tried again
RUSH = 8
RUSHED = "rush-"  # what the keys begin with that so many sent at once
PAGE = 20
CURRENCIES = ("EUR", "USD", "JPY")
Result = TypeVar("Result")


class GaveUp(Exception):  # noqa: N818
    """It is no use to ask again. What is not known, or was refused, the checker will find."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What all clients of a run have in common; shares are of 1.

    `gone`: of the writes, after how many the client leaves without the answer. `rushes`: of the orders, how many eight
    place at once. `doubled`: of the webhooks, how many come twice, and of those with a refund in any order.
    `drain_s`: for how long it still asks about what is not known, when the shop is closed.
    """

    seed: int
    port: int
    secret: bytes
    pace_s: float
    gone: float
    rushes: float
    doubled: float
    drain_s: float


class Hours:
    """When the shop closes nothing new is begun; what is not known is asked about a little longer."""

    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._closed_at = math.inf

    def close(self) -> None:
        self._closed_at = time.monotonic()

    @property
    def open(self) -> bool:
        return self._closed_at == math.inf

    @property
    def last_call(self) -> bool:
        return time.monotonic() > self._closed_at + self._drain_s


@dataclass(frozen=True, slots=True)
class User:
    id: str
    token: str


class Customer:
    """`others`: users whose orders it tries to see."""

    def __init__(
        self, name: str, user: User, others: list[User], errand: Errand, hours: Hours, recorder: Recorder
    ) -> None:
        self.name, self.user, self.others = name, user, others
        self.errand, self.hours, self.recorder = errand, hours, recorder
        self.chance = random.Random(f"{errand.seed}:{name}")
        self.line = Line(errand.port)
        self.numbers = itertools.count(1)
        self.cursor: str | None = None
        self.placed: list[tuple[str, Request]] = []  # under which key

    def run(self) -> None:
        """Until the shop closes; then it finishes what it has begun."""
        with contextlib.suppress(GaveUp):
            while self.hours.open:
                self._live()
        self.line.hang_up()

    def audit(self) -> None:
        """At rest: all pages, of orders alone and with their items, the whole feed."""
        self.walk(limit=100)
        self.walk(limit=100, items=True)
        while self.follow(limit=100):
            pass
        self.line.hang_up()

    def _live(self) -> None:
        """The life of one order, with looks at others in between."""
        order = self.rush() if self.chance.random() < self.errand.rushes else self.place()
        for _ in range(self.chance.randrange(3)):
            self._look(order["id"])
            order = self.edit(order["id"])
        self._look(order["id"])
        end = self.chance.random()
        if end < 0.25:
            self.cancel(order["id"])
        elif end < 0.75:
            self.settle(order)
        self._look(order["id"])

    def _look(self, order_id: str) -> None:
        time.sleep(self.chance.uniform(0, 2 * self.errand.pace_s))
        self.read(order_id)
        what = self.chance.random()
        if what < 0.08:
            self.walk(items=self.chance.random() < 0.5)
        elif what < 0.3:
            self.follow()
        elif what < 0.4:
            self.replay()
        elif what < 0.5:
            self.trespass()
        if self.chance.random() < 0.2:
            self.line.hang_up()  # the next connection may be another worker's

    # Writes: asked again until they are known.

    def place(self) -> dict[str, Any]:
        key, request = self._draft()
        answer = self._until_known("place", request, key)
        self.placed.append((key, request))
        return answer.document

    def rush(self) -> dict[str, Any]:
        """One key from many clients at once."""
        key, request = self._draft(RUSHED)
        gate = threading.Barrier(RUSH)

        def one(line: Line) -> Answer:
            gate.wait()
            return self._until_known("place", request, key, line=line)

        answers = self._together(one, RUSH)
        self.placed.append((key, request))
        return answers[0].document

    def replay(self) -> None:
        """An old key again: the first answer again."""
        if self.placed:
            key, request = self.chance.choice(self.placed)
            self._until_known("place", request, key)

    def edit(self, order_id: str) -> dict[str, Any]:
        """A note by which the edit is known, and every other time other items, and so another total."""
        name = f"{self.name}-{next(self.numbers)}"
        changes = {"metadata": {name: "x"}} | ({"items": self._items()} if self.chance.random() < 0.5 else {})
        return self._until_known("edit", self._changed(order_id, **changes), name, order_id).document

    def cancel(self, order_id: str) -> None:
        self._until_known("cancel", self._changed(order_id, status="cancelled"), order_id, order_id)

    def settle(self, order: dict[str, Any]) -> None:
        """Pays it, as its provider would: perhaps twice, perhaps with a refund, perhaps in the wrong order."""
        notices = ["pay", *(["refund"] if self.chance.random() < 0.4 else [])]
        if self.chance.random() < self.errand.doubled:
            self.chance.shuffle(notices)
        for operation in notices:
            webhook_id = f"msg_{self.name}_{next(self.numbers)}"
            request = requests.notify(self.errand.secret, webhook_id, operation, order)
            copies = 2 if self.chance.random() < self.errand.doubled else 1
            self._together(partial(self._until_known, operation, request, webhook_id, order["id"]), copies)

    # Reads: whatever comes is recorded, and they are not asked again.

    def read(self, order_id: str) -> None:
        self._once("read", f"/orders/{order_id}?include=items", order_id)

    def trespass(self) -> None:
        """Another user's order, as far as somebody here knows one: it must be as if it was not there."""
        other = self.chance.choice(self.others)
        if order_id := LATEST.get(other.id):
            self._once("trespass", f"/orders/{order_id}", order_id)

    def walk(self, limit: int = PAGE, *, items: bool = False) -> None:
        """All pages, as one attempt; it is known only if each of them came."""
        first, seen, torn, cursor = time.monotonic_ns(), [], [], ""
        include = "&include=items" if items else ""
        while cursor is not None:
            answer = self.line.ask(self._read(f"/orders?limit={limit}{include}{cursor}"))
            page = answer.document if answer.outcome == OK else {}
            orders = page.get("data", [])
            seen += [order["id"] for order in orders]
            torn += [order["id"] for order in orders if _is_torn(order)]
            cursor = f"&cursor={page['next_cursor']}" if page.get("has_more") else None
        self._record("walk", replace(answer, start=first), seen=seen, torn=torn)

    def follow(self, limit: int = PAGE) -> bool:
        """One page of the change feed, from where the last one ended; whether there is more."""
        answer = self.line.ask(self._read(f"/events?limit={limit}" + (f"&cursor={self.cursor}" if self.cursor else "")))
        page = answer.document if answer.outcome == OK else {}
        self.cursor = page.get("next_cursor", self.cursor)
        self._record("follow", answer, seen=[event["sequence"] for event in page.get("data", [])])
        return page.get("has_more", False)

    def _once(self, operation: str, path: str, order_id: str) -> None:
        self._record(operation, self.line.ask(self._read(path)), key=path, order_id=order_id)

    def _until_known(
        self, operation: str, request: Request, key: str, order_id: str = "", line: Line | None = None
    ) -> Answer:
        """Asks again, and again, for nothing is doubled by it. Raises GaveUp."""
        line, pause_s = line or self.line, FIRST_PAUSE_S
        while True:
            leaves = self.chance.random() < self.errand.gone and self.hours.open
            answer = line.leave(request) if leaves else line.ask(request)
            attempt = self._record(operation, answer, body=request.sha256, key=key, order_id=order_id)
            if attempt.ok:
                return answer
            if self.hours.last_call or (attempt.outcome == FAIL and attempt.code not in AGAIN):
                raise GaveUp
            time.sleep(pause_s * self.chance.uniform(0.5, 1))
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    def _together(self, act: Callable[..., Result], count: int) -> list[Result]:
        """Does it in threads, each with a line of its own. Raises GaveUp if one of them did."""
        done = []

        def one() -> None:
            line = Line(self.errand.port)
            with contextlib.suppress(GaveUp):
                done.append(act(line=line))
            line.hang_up()

        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(done) < count:
            raise GaveUp
        return done

    def _record(
        self,
        operation: str,
        answer: Answer,
        order_id: str = "",
        seen: Sequence[Any] = (),
        torn: Sequence[str] = (),
        **known: str,
    ) -> Attempt:
        told = answer.document
        order = told if answer.outcome == OK and "version" in told else {}
        attempt = Attempt(
            process=self.name,
            operation=operation,
            user=self.user.id,
            start=answer.start,
            end=answer.end,
            outcome=answer.outcome,
            status=answer.status,
            code=told.get("code", ""),
            answer=answer.sha256 if operation in WRITES else "",
            id=order.get("id", order_id),
            version=order.get("version"),
            cache=answer.cache,
            seen=list(seen),
            torn=[order["id"]] if _is_torn(order) else list(torn),
            **known,
        )
        self.recorder.write(attempt)
        if operation == "place" and attempt.ok:
            LATEST[self.user.id] = attempt.id
        return attempt

    def _draft(self, kind: str = "") -> tuple[str, Request]:
        """A key and an order."""
        key = f"{kind}{self.name}-{next(self.numbers)}-{uuid.UUID(int=self.chance.getrandbits(128)).hex[:8]}"
        body = orjson.dumps({"currency": self.chance.choice(CURRENCIES), "items": self._items()})
        return key, requests.place(self.user.token, key, body)

    def _items(self) -> list[dict[str, Any]]:
        amounts = [(self.chance.randint(1, 9), self.chance.randint(1, 999)) for _ in range(self.chance.randint(1, 4))]
        return [{"sku": "lamp", "quantity": quantity, "unit_price_cents": price} for quantity, price in amounts]

    def _read(self, path: str) -> Request:
        return requests.read(self.user.token, path)

    def _changed(self, order_id: str, **changes: Any) -> Request:
        return requests.change(self.user.token, order_id, changes)


def _is_torn(order: Mapping[str, Any]) -> bool:
    """Whether it comes with the items of another version."""
    items = order.get("items")
    return bool(items) and sum(item["quantity"] * item["unit_price_cents"] for item in items) != order["total_cents"]


LATEST: dict[str, str] = {}  # the last order of each user that somebody in this process placed
