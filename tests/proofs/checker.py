"""Judges a run: what its clients were told, against what the database holds and what others saw.

Each rule is a generator of violations; a sound service gives none, whatever was done to it.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from orders_api.cache import LOCK_TTL_S, WAIT_S
from tests.proofs.books import Books, Event
from tests.proofs.history import FAIL, UNKNOWN, WRITES, Attempt, Fault

LOST, DOUBLED, LEAKED, WRONG = "lost", "doubled", "leaked", "wrong"
STEPS = {
    "order.created": (None, "pending"),
    "order.cancelled": ("pending", "cancelled"),
    "order.paid": ("pending", "paid"),
    "order.refunded": ("paid", "cancelled"),
}
EFFECTS = {"payment.succeeded": "order.paid", "payment.refunded": "order.refunded"}
S = 1_000_000_000  # nanoseconds


class Violation(NamedTuple):
    rule: str
    kind: str
    what: str


@dataclass(frozen=True)
class Run:
    """`taken`: places in the workers and their pools that nobody gave back."""

    attempts: Sequence[Attempt]
    faults: Sequence[Fault]
    books: Books
    taken: int = 0

    def told(self, *operations: str) -> list[Attempt]:
        """The attempts of these operations that were acknowledged."""
        return [attempt for attempt in self.attempts if attempt.ok and attempt.operation in operations]


Rule = Callable[[Run], Iterator[tuple[str, str]]]
RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    def register(check: Rule) -> Rule:
        RULES[name] = check
        return check

    return register


def check(run: Run) -> list[Violation]:
    return [Violation(name, kind, what) for name, judge in RULES.items() for kind, what in judge(run)]


@rule("1 what was acknowledged is there, once")
def _acknowledged(run: Run) -> Iterator[tuple[str, str]]:
    for attempt in run.told("place"):
        if attempt.id not in run.books.orders:
            yield LOST, f"order {attempt.id} of key {attempt.key}"
    for attempt in run.told("edit"):
        order = run.books.orders.get(attempt.id)
        if order is None or attempt.key not in order.edits:
            yield LOST, f"edit {attempt.key} of order {attempt.id}"
    for attempt in run.told("cancel"):
        order = run.books.orders.get(attempt.id)
        if order is None or order.status != "cancelled":
            yield LOST, f"cancellation of order {attempt.id}"


@rule("2 one order a key, and its replays are the same")
def _one_a_key(run: Run) -> Iterator[tuple[str, str]]:
    answers: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for attempt in run.told("place"):
        answers[attempt.user, attempt.key].add((attempt.id, attempt.answer))
    for (_, key), given in answers.items():
        if len({order for order, _ in given}) > 1:
            yield DOUBLED, f"key {key} got {len(given)} orders"
        elif len(given) > 1:
            yield WRONG, f"key {key} was replayed with other bytes"
    for (user, key), row in run.books.keys.items():
        for order, answer in answers.get((user, key), ()):
            if row.order != order or hashlib.sha256(row.body).hexdigest() != answer:
                yield WRONG, f"key {key} is stored with another answer"


@rule("3 what was unknown came to an end")
def _resolved(run: Run) -> Iterator[tuple[str, str]]:
    asked = {(attempt.user, attempt.operation, attempt.key) for attempt in run.attempts if attempt.operation in WRITES}
    known = {(attempt.user, attempt.operation, attempt.key) for attempt in run.told(*WRITES)}
    for _, operation, key in sorted(asked - known):
        yield WRONG, f"{operation} {key} was never acknowledged"
    for attempt in run.attempts:
        if attempt.operation in WRITES and attempt.outcome == FAIL and attempt.code not in _PASSING:
            yield WRONG, f"{attempt.operation} {attempt.key} was refused: {attempt.status} {attempt.code}"


@rule("4 nothing that nobody asked for, and sums that match")
def _asked_for(run: Run) -> Iterator[tuple[str, str]]:
    keys = {(attempt.user, attempt.key) for attempt in run.attempts if attempt.operation == "place"}
    named = Counter(row.order for row in run.books.keys.values())
    for user, key in run.books.keys.keys() - keys:
        yield DOUBLED, f"key {key} of {user} was never sent"
    for order in run.books.orders.values():
        if named[order.id] != 1:
            yield DOUBLED, f"order {order.id} has {named[order.id]} keys"
        if run.books.sums.get(order.id, order.total_cents) != order.total_cents:
            yield WRONG, f"order {order.id} does not add up"


@rule("5 only legal steps, each with its event")
def _legal_steps(run: Run) -> Iterator[tuple[str, str]]:
    for order in run.books.orders.values():
        events = run.books.events.get(order.id, [])
        if [event.version for event in events] != list(range(1, order.version + 1)):
            yield WRONG, f"order {order.id}: versions and events differ"
        if not events or events[-1].status != order.status:
            yield WRONG, f"order {order.id} is {order.status} without an event that says so"
        for before, after in zip([None, *events], events, strict=False):
            if not _legal(before, after):
                yield WRONG, f"order {order.id}: {after.type} after {before.type if before else 'nothing'}"
        if sum(event.type == "order.updated" for event in events) != len(order.edits):
            yield DOUBLED, f"order {order.id} was edited {len(order.edits)} times, and tells of another number"


def _legal(before: Event | None, after: Event) -> bool:
    status = before.status if before else None
    if after.type == "order.updated":
        return status is not None and after.status == status
    return STEPS[after.type] == (status, after.status)


@rule("6 a webhook has one row and at most one effect")
def _webhooks(run: Run) -> Iterator[tuple[str, str]]:
    for attempt in run.told("pay", "refund"):
        paid = any(event.type == "order.paid" for event in run.books.events.get(attempt.id, []))
        if attempt.key not in run.books.inbox or (attempt.operation == "pay" and not paid):
            yield LOST, f"webhook {attempt.key}"
    effects = Counter((row.order_id, EFFECTS[row.type]) for row in run.books.inbox.values() if row.outcome == "applied")
    events = Counter(
        (event.order, event.type)
        for history in run.books.events.values()
        for event in history
        if event.type in EFFECTS.values()
    )
    for order, kind in effects.keys() | events.keys():
        if events[order, kind] != effects[order, kind] or events[order, kind] > 1:
            yield DOUBLED, f"{kind} of {order}: {effects[order, kind]} webhooks applied, {events[order, kind]} events"


@rule("7 a walk sees each order once")
def _walks(run: Run) -> Iterator[tuple[str, str]]:
    placed = defaultdict(list)
    for attempt in run.told("place"):
        placed[attempt.user].append(attempt)
    for walk in run.attempts:
        if walk.operation == "walk" and walk.outcome == FAIL and walk.code not in _PASSING:
            yield WRONG, f"a walk of {walk.process} was refused: {walk.status} {walk.code}"
    for walk in run.told("walk"):
        seen = Counter(walk.seen)
        missed = {placed.id for placed in placed[walk.user] if placed.end < walk.start} - seen.keys()
        if missed:
            yield LOST, f"a walk of {walk.process} missed {len(missed)} orders, {min(missed)} for one"
        if seen and seen.most_common(1)[0][1] > 1:
            yield DOUBLED, f"a walk of {walk.process} saw {seen.most_common(1)[0]} times"


@rule("8 the feed has no gap and no repeat")
def _feeds(run: Run) -> Iterator[tuple[str, str]]:
    for user, last in run.books.last_sequences.items():
        if run.books.sequences.get(user, []) != list(range(1, last + 1)):
            yield WRONG, f"the events of {user} are not numbered 1 to {last}"
    followed = defaultdict(list)
    for page in run.told("follow"):
        followed[page.process] += page.seen
    for process, numbers in followed.items():
        if numbers != list(range(1, len(numbers) + 1)):
            yield WRONG, f"{process} followed {[pair for pair in pairwise(numbers) if pair[1] != pair[0] + 1][:3]}"


@rule("9 nobody sees what is another's")
def _private(run: Run) -> Iterator[tuple[str, str]]:
    owners = {order.id: order.user for order in run.books.orders.values()}
    for attempt in run.attempts:
        if attempt.operation == "trespass" and attempt.ok:
            yield LEAKED, f"{attempt.process} read order {attempt.id} of another"
        shown = attempt.seen if attempt.operation == "walk" else [attempt.id] if attempt.version is not None else []
        foreign = [order for order in shown if owners.get(order, attempt.user) != attempt.user]
        if foreign:
            yield LEAKED, f"{attempt.process} saw {len(foreign)} orders of another in a {attempt.operation}"


@rule("10 a read is no older than the reader's own writes")
def _own_writes(run: Run) -> Iterator[tuple[str, str]]:
    written = defaultdict(list)  # of each order: when it was acknowledged, and its version then
    for attempt in run.told(*WRITES):
        version = attempt.version or _version_of(run.books.events.get(attempt.id, []), attempt.operation)
        written[attempt.id].append((attempt.end, version))
    for read in run.attempts:
        known = [version for end, version in written[read.id] if end < read.start] if read.operation == "read" else []
        if known and read.outcome == FAIL and read.code not in _PASSING:
            yield LOST, f"{read.process} could not read its order {read.id}: {read.status} {read.code}"
        if known and read.ok and (read.version or 0) < max(known):
            yield WRONG, f"{read.process} read version {read.version} of {read.id} after writing {max(known)}"


def _version_of(events: Sequence[Event], operation: str) -> int:
    kind = {"pay": "order.paid", "refund": "order.refunded"}.get(operation)
    return next((event.version for event in events if event.type == kind), 0)


@rule("11 at rest no place is taken, no transaction open")
def _at_rest(run: Run) -> Iterator[tuple[str, str]]:
    if run.taken:
        yield WRONG, f"{run.taken} places are still taken"
    if run.books.in_transaction:
        yield WRONG, f"{run.books.in_transaction} sessions are idle in transaction"


@rule("12 what one loads, others wait for")
def _one_loads(run: Run) -> Iterator[tuple[str, str]]:
    """Who loads a value while another's lease on it lasts has waited for it in vain, or took a stranger's lock."""
    lease, wait = LOCK_TTL_S * S, WAIT_S * S
    loads = defaultdict(list)
    for read in run.attempts:
        if read.operation == "read" and read.ok and read.cache == "miss":
            loads[read.user, read.key].append(read)
    lost_locks = [fault for fault in run.faults if fault.kind.startswith("memcached")]
    for (_, path), reads in loads.items():
        for first, second in pairwise(reads):
            under_way = first.start + _SKEW < second.start < min(first.end, first.start + lease) - _SKEW
            waited = second.end - second.start >= wait
            disturbed = any(fault.start - lease < second.start < fault.end + lease for fault in lost_locks)
            if under_way and not waited and not disturbed:
                yield WRONG, f"{second.process} loaded {path} while {first.process} did"


@rule("13 no error of ours but that something is missing")
def _no_defect(run: Run) -> Iterator[tuple[str, str]]:
    for attempt in run.attempts:
        if attempt.outcome == UNKNOWN and attempt.status is not None and attempt.status != 503:
            yield WRONG, f"{attempt.operation} got {attempt.status} {attempt.code}"


@rule("14 an order and its items are of one version")
def _whole(run: Run) -> Iterator[tuple[str, str]]:
    for attempt in run.attempts:
        for order in attempt.torn:
            yield WRONG, f"{attempt.process} got order {order} by a {attempt.operation}, with items of another version"


_PASSING = ("idempotency_key_in_progress", "rate_limited")
_SKEW = S // 20  # between a client's clock and when its request is worked on
