"""The checker can fail: what others have shipped is seen for what it is, and a sound service passes the same."""

import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.proofs.books import read_books
from tests.proofs.checker import Run, Violation, check
from tests.proofs.customer import Customer, Errand, Hours, User
from tests.proofs.defects import LATE_S
from tests.proofs.history import Recorder, attempts_in
from tests.proofs.plan import Size
from tests.proofs.site import Site, signal_all
from tests.proofs.trial import trial
from tests.web.patient import PATIENCE

pytestmark = pytest.mark.planted
PATIENT = Errand(seed=1, port=0, secret=b"", pace_s=0, gone=0, rushes=0, doubled=0, drain_s=20)


@dataclass(frozen=True)
class Case:
    """`sql`: what has to be taken from the database first. `rule`: the number of the rule that must see it."""

    defect: str
    rule: int
    faults: Mapping[str, int] = field(default_factory=dict)
    sql: str = ""


CASES = [
    Case(
        "key in a transaction of its own",
        1,
        {"worker killed": 2},
        "ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_user_id_order_id_fkey",
    ),
    Case("key only in memcached", 2, {"memcached flushed": 2}),
    Case("no unique constraint", 2, {}, "ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey"),
]
LAZY_COMMIT = """
    ALTER SYSTEM SET synchronous_commit = off;
    ALTER SYSTEM SET wal_writer_delay = '10s';
    SELECT pg_reload_conf()
"""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.defect)
def test_a_planted_defect_is_seen(case: Case):
    assert case.rule in numbers(crowded(case.defect, case.faults, case.sql))


@pytest.mark.parametrize(("defect", "rule"), [("answer before COMMIT", 1), ("webhook answered before COMMIT", 6)])
def test_an_answer_before_its_commit_is_seen(defect: str, rule: int):
    assert rule in numbers(killed_at_an_answer(defect))


def test_who_is_killed_right_after_an_answer_loses_nothing():
    assert killed_at_an_answer(None) == []


def test_commits_that_a_crash_takes_back_are_seen():
    assert 1 in numbers(crowded(None, {"PostgreSQL crashed": 2}, LAZY_COMMIT))


def test_a_lock_released_by_a_stranger_is_seen():
    assert numbers(behind_a_slow_reader("lock released by a stranger")) == {12}


def test_a_cursor_without_tie_breaker_is_seen():
    assert 7 in numbers(within_a_moment("cursor without tie-breaker"))


def test_many_orders_of_one_moment_are_no_defect():
    assert within_a_moment("coarse clock") == []


def test_items_that_are_read_apart_are_seen():
    assert numbers(while_edited("items read apart")) == {14}


def test_what_is_read_while_it_is_edited_is_whole():
    assert while_edited(None) == []


def test_a_cache_key_without_the_user_is_seen():
    assert 9 in numbers(one_after_the_other("cache key without the user"))


def test_users_one_after_the_other_see_what_is_theirs():
    assert one_after_the_other(None) == []


def test_slow_readers_alone_are_no_defect():
    assert behind_a_slow_reader("slow loads") == []


def test_a_sound_service_passes_the_same():
    assert crowded("coarse clock", {"worker killed": 2, "memcached flushed": 2, "PostgreSQL crashed": 2}) == []


def crowded(defect: str | None, faults: Mapping[str, int], sql: str = "") -> list[Violation]:
    """A small run, with a few users, so that each has many orders and much at once."""
    size = Size(
        name="defect",
        faults=faults,
        least={},
        calm_s=(0.6, 0.8),
        clients=9,
        users=3,
        pace_s=0.01,
        rushes=0.3,
        warm_up_s=1.2,
        drain_s=5,
    )
    with site_of(defect) as site:
        if sql:
            with site.sql() as connection:
                for statement in sql.split(";"):
                    connection.execute(statement)
        return trial(site, size, seed=1).violations


def killed_at_an_answer(defect: str | None) -> list[Violation]:
    """An order is placed and paid, another one is placed; then all workers die."""
    with site_of(defect) as site:
        one, workers = customers(site, site.users(1))[0], set(site.workers())
        order = one.place()
        time.sleep(2 * LATE_S)
        one.settle(order)
        one.place()
        signal_all(workers, signal.SIGKILL)
        site.wait_for_workers(workers)
        return judged(site, [one])


def behind_a_slow_reader(defect: str) -> list[Violation]:
    """Three readers of one order: the first outlives its lease, and an edit, and ends while the second loads.

    The third comes right after: it should wait for the second.
    """
    with site_of(defect, WEB_CONCURRENCY="1", **PATIENCE) as site:
        editor, *readers = customers(site, site.users(1) * 4)
        order = editor.place()
        began = time.monotonic()
        threads = []
        for reader, at in zip(readers, (0, 2.5, 3.1), strict=True):
            time.sleep(max(0, began + at - time.monotonic()))
            threads.append(threading.Thread(target=reader.read, args=(order["id"],)))
            threads[-1].start()
            if reader is readers[0]:
                time.sleep(0.5)
                editor.edit(order["id"])
        for thread in threads:
            thread.join()
        return judged(site, [editor, *readers])


def within_a_moment(defect: str) -> list[Violation]:
    """A clock of whole seconds, a score of orders by it, and pages that end among them."""
    with site_of(defect) as site:
        one = customers(site, site.users(1))[0]
        for _ in range(20):
            one.place()
        one.walk(limit=3)
        return judged(site, [one])


def while_edited(defect: str | None) -> list[Violation]:
    """A walk after the other over an order with its items, which somebody edits all the time."""
    with site_of(defect) as site:
        editor, reader = customers(site, site.users(1) * 2)
        order = editor.place()
        walking = threading.Thread(target=lambda: [reader.walk(items=True) for _ in range(5)])
        walking.start()
        for _ in range(15):  # an order takes 20 notes
            editor.edit(order["id"])
            time.sleep(0.1)
        walking.join()
        return judged(site, [editor, reader])


def one_after_the_other(defect: str | None) -> list[Violation]:
    """Two users, each with an order, look at all that is theirs, while nobody writes."""
    with site_of(defect, **PATIENCE) as site:
        both = customers(site, site.users(2))
        for one in both:
            one.place()
        for one in both:
            one.audit()
        return judged(site, both)


def customers(site: Site, users: list[User]) -> list[Customer]:
    errand = replace(PATIENT, port=site.served.port, secret=site.secret)
    recorder = Recorder(history_of(site))
    return [Customer(f"c{number}", user, [], errand, Hours(5), recorder) for number, user in enumerate(users)]


def judged(site: Site, everybody: list[Customer]) -> list[Violation]:
    for one in everybody:
        one.line.hang_up()
    return check(Run(attempts_in([history_of(site)]), [], read_books(site.stack.database_url)))


def history_of(site: Site) -> Path:
    return site.stack.home / "history.jsonl"


def site_of(defect: str | None, **settings: str) -> Site:
    return Site("tests.proofs.defective:application", DEFECT=defect, **settings) if defect else Site(**settings)


def numbers(violations: list[Violation]) -> set[int]:
    return {int(violation.rule.split()[0]) for violation in violations}
