"""Each rule of the checker sees what breaks it, and nothing else does; on a run of a few lines."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.proofs.books import Books, Event
from tests.proofs.checker import RULES, Run, check
from tests.proofs.history import FAIL, OK, UNKNOWN, Attempt

ANSWER = hashlib.sha256(b"{}").hexdigest()


def attempt(operation: str, at: int, **known: Any) -> Attempt:
    """It lasts from second `at` to the next."""
    told = {"process": "c1", "user": "alice", "outcome": OK, "status": 200, "id": "order-1", **known}
    return Attempt(operation=operation, start=at * 10**9, end=(at + 1) * 10**9, **told)


def sound() -> Run:
    attempts = [
        attempt("place", 0, key="k-1", outcome=UNKNOWN, status=None, id=""),
        attempt("place", 1, key="k-1", version=1, answer=ANSWER),
        attempt("edit", 3, key="e-1", version=2),
        attempt("pay", 5, key="msg-1", status=204),
        attempt("read", 7, key="/orders/order-1", version=3, cache="miss"),
        attempt("walk", 9, id="", seen=["order-1"]),
        attempt("follow", 11, id="", seen=[1, 2, 3]),
        attempt("trespass", 13, user="bob", outcome=FAIL, status=404, code="order_not_found"),
    ]
    order = SimpleNamespace(id="order-1", user="alice", status="paid", total_cents=5, version=3, edits=["e-1"])
    events = [
        Event("alice", 1, "order-1", "order.created", 1, "pending"),
        Event("alice", 2, "order-1", "order.updated", 2, "pending"),
        Event("alice", 3, "order-1", "order.paid", 3, "paid"),
    ]
    notice = SimpleNamespace(webhook_id="msg-1", type="payment.succeeded", order_id="order-1", outcome="applied")
    books = Books(
        orders={"order-1": order},
        events={"order-1": events},
        sequences={"alice": [1, 2, 3]},
        last_sequences={"alice": 3},
        keys={("alice", "k-1"): SimpleNamespace(user="alice", key="k-1", order="order-1", body=b"{}")},
        inbox={"msg-1": notice},
        sums={"order-1": 5},
        in_transaction=0,
    )
    return Run(attempts, [], books)


def with_attempt(operation: str, at: int, **known: Any) -> Callable[[Run], Run]:
    return lambda run: replace(run, attempts=[*run.attempts, attempt(operation, at, **known)])


def with_books(**changes: Any) -> Callable[[Run], Run]:
    return lambda run: replace(run, books=replace(run.books, **changes))


def with_order(**changes: Any) -> Callable[[Run], Run]:
    def change(run: Run) -> Run:
        order = SimpleNamespace(**{**vars(run.books.orders["order-1"]), **changes})
        return with_books(orders={order.id: order})(run)

    return change


BROKEN = {
    "an acknowledged edit that is gone": (1, with_attempt("edit", 15, key="e-2", version=4)),
    "another order for the key": (2, with_attempt("place", 15, key="k-1", id="order-2", answer=ANSWER)),
    "other bytes for the key": (2, with_attempt("place", 15, key="k-1", version=1, answer="other")),
    "what stayed unknown": (3, with_attempt("cancel", 15, key="order-1", outcome=UNKNOWN, status=503)),
    "a refusal": (3, with_attempt("edit", 15, key="e-1", outcome=FAIL, status=409, code="order_not_editable")),
    "an order without a key": (4, with_books(keys={})),
    "items of another sum": (4, with_order(total_cents=6)),
    "a step without its event": (5, with_order(status="cancelled")),
    "an edit told twice": (5, with_order(edits=[])),
    "an acknowledged webhook that is gone": (6, with_books(inbox={})),
    "a walk that misses an order": (7, with_attempt("walk", 15, id="", seen=[])),
    "a walk that sees one twice": (7, with_attempt("walk", 15, id="", seen=["order-1", "order-1"])),
    "a walk that is refused": (7, with_attempt("walk", 15, id="", outcome=FAIL, status=400, code="cursor_invalid")),
    "a gap in the feed": (8, with_attempt("follow", 15, id="", seen=[5])),
    "a number without its event": (8, with_books(last_sequences={"alice": 4})),
    "a foreign order that is shown": (9, with_attempt("trespass", 15, user="bob", version=3)),
    "a foreign page": (9, with_attempt("walk", 15, user="bob", id="", seen=["order-1"])),
    "a read that lags": (10, with_attempt("read", 15, key="/orders/order-1", version=2)),
    "a read that finds nothing": (10, with_attempt("read", 15, outcome=FAIL, status=404, code="order_not_found")),
    "a place that is not given back": (11, lambda run: replace(run, taken=1)),
    "an open transaction": (11, with_books(in_transaction=1)),
    "items that do not add up": (14, with_attempt("read", 15, key="/orders/order-1", version=3, torn=["order-1"])),
    "an error of ours": (13, with_attempt("read", 15, outcome=UNKNOWN, status=500, code="internal_error")),
}


def test_a_sound_run_breaks_no_rule():
    assert check(sound()) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_rule_sees_what_breaks_it(name: str):
    number, change = BROKEN[name]
    assert number in {int(violation.rule.split()[0]) for violation in check(change(sound()))}


def test_two_loads_of_one_value_at_a_time_break_a_rule():
    run = sound()
    first = attempt("read", 20, key="/orders/order-1", version=3, cache="miss")
    second = replace(first, start=first.start + 10**9 // 2, end=first.start + 10**9 * 6 // 10)
    assert [violation.rule[:2] for violation in check(replace(run, attempts=[*run.attempts, first, second]))] == ["12"]


def test_every_rule_is_broken_here():
    assert {int(name.split()[0]) for name in RULES} == {number for number, _ in BROKEN.values()} | {12}
