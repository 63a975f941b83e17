"""Admission: who gets a database connection when there are too few, and whom a stuck user can't hurt."""

import contextvars
import json
import select
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from orders_api import metrics
from orders_api.admission import (
    DEADLINE_S,
    HOPE,
    PARKED_PER_USER,
    PATIENCE_S,
    WAITING_PER_PLACE,
    Admission,
    Caller,
    InFlight,
    Priority,
    caller,
    in_flight,
)
from orders_api.app import MIN_IN_FLIGHT
from orders_api.backlog import CALM_S, LATE_S, PACE_S, STANDING_S
from orders_api.errors import Problem
from tests.client import LAMP, Client, assert_problem
from tests.payments.conftest import whsec
from tests.payments.provider import SECRET, event, signed
from tests.web.patient import PATIENCE
from tests.web.raw import blocked_by, get, patch, post, read, sent, wait_until
from tests.web.test_cache import hold_feed, opened, orders_of, told

PATIENT = "&options=-c%20lock_timeout%3D4500"
Connect = Callable[..., psycopg.Connection]


class Person:
    """Somebody on a thread who asks for a place; `outcome` is True, False or, while it is open, None."""

    def __init__(self, admission: Admission, priority: Priority, user_id: uuid.UUID | None, served: list) -> None:
        self.admission, self.who, self.served = admission, Caller(priority, user_id), served
        self.outcome: bool | None = None
        self.thread = threading.Thread(target=self._ask)
        self.thread.start()

    def _ask(self) -> None:
        try:
            self.admission.enter(self.who)
        except Problem:
            self.outcome = False
        else:
            self.served.append(self)
            self.outcome = True

    def leave(self) -> None:
        self.admission.leave(self.who)


class Room:
    """An admission with a clock that the test turns. Who comes is waiting, seated or refused when `come` returns."""

    def __init__(self, places: int) -> None:
        self.now = 0.0
        self.admission = Admission(places, clock=lambda: self.now, name=uuid.uuid4().hex)
        self.served: list[Person] = []

    def come(self, priority: Priority = Priority.WRITE, user_id: uuid.UUID | None = None) -> Person:
        before = self.admission.waiting
        person = Person(self.admission, priority, user_id, self.served)
        wait_until(lambda: person.outcome is not None or self.admission.waiting > before)
        return person

    def serve_all(self) -> list[Person]:
        """Those who are served from here on, one after the other; nobody is left."""
        begun = len(self.served)
        last = self.served[-1]
        while self.admission.in_use:
            count = len(self.served)
            waiting = self.admission.waiting
            last.leave()
            if waiting == 0 or self.admission.in_use == 0:
                break
            wait_until(lambda count=count: len(self.served) > count)
            last = self.served[-1]
        return self.served[begun:]

    def shed(self) -> dict[str, float]:
        """How many were counted as refused, by what they were worth."""
        samples = [sample for metric in metrics.shed.collect() for sample in metric.samples]
        own = [sample for sample in samples if sample.labels["place"] == self.admission.name]
        return {sample.labels["priority"]: sample.value for sample in own if sample.name.endswith("_total")}

    def is_clean(self) -> bool:
        return (self.admission.in_use, self.admission.waiting) == (0, 0)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is refused because the machine was slow to bring the others."""
    monkeypatch.setattr("orders_api.admission.DEADLINE_S", 10)


@pytest.mark.usefixtures("unhurried")
def test_a_freed_place_goes_to_the_most_important_then_to_the_first():
    room = Room(1)
    room.come()
    order = [Priority.LIST, Priority.READ, Priority.WRITE, Priority.WEBHOOK, Priority.HEALTH]
    people = [room.come(priority) for priority in order * 2]

    assert room.serve_all() == [people[index] for index in (4, 9, 3, 8, 2, 7, 1, 6, 0, 5)]
    assert room.is_clean()


@pytest.mark.parametrize(
    ("priority", "share"),
    [(Priority.LIST, 1 / 2), (Priority.READ, 3 / 4), (Priority.WRITE, 7 / 8), (Priority.WEBHOOK, 1)],
)
@pytest.mark.usefixtures("unhurried")
def test_each_class_may_use_its_share_of_the_queue(priority: Priority, share: float):
    room, most = Room(1), int(share * WAITING_PER_PLACE)
    room.come()
    people = [room.come(priority) for _ in range(most)]

    assert room.come(priority).outcome is False
    assert room.shed() == {priority.name.lower(): 1}
    assert [person.outcome for person in people] == [None] * most
    assert room.come(Priority.HEALTH).outcome is None
    room.serve_all()


PACE = 80  # places a second, of a `standing` queue
SLOWEST = 1 / PACE_S  # a single place was given


def standing(pace: float = PACE) -> tuple[Room, Person]:
    """A queue in which somebody was late for so long that it stands, empty again; and who has its place."""
    room = Room(1)
    last, following = room.come(), room.come(Priority.WEBHOOK)
    room.now = LATE_S + STANDING_S
    last = passed_on(last, following)
    for _ in range(round(pace * PACE_S) - 1):
        last = passed_on(last, room.come(Priority.WEBHOOK))
    room.now += PACE_S
    return room, passed_on(last, room.come(Priority.WEBHOOK))


def passed_on(last: Person, to: Person) -> Person:
    last.leave()
    wait_until(lambda: to.outcome)
    return to


@pytest.mark.parametrize("pace", [SLOWEST, PACE / 2, PACE])
@pytest.mark.parametrize("priority", [Priority.LIST, Priority.READ, Priority.WRITE, Priority.WEBHOOK])
@pytest.mark.usefixtures("unhurried")
def test_in_a_standing_queue_no_more_wait_than_its_pace_gives_hope(priority: Priority, pace: float):
    room, last = standing(pace)
    hopeful = int(HOPE * PATIENCE_S[priority] * pace) + 1
    waiting = [room.come(priority) for _ in range(hopeful)]
    assert not room.admission.turns_away(Priority.RETURN)
    late = room.come(priority)

    assert [one.outcome for one in waiting] == [None] * hopeful
    assert late.outcome is False
    assert room.admission.turns_away(priority)
    assert room.shed() == {priority.name.lower(): 2}
    last.leave()
    room.serve_all()
    assert room.is_clean()


def test_a_place_that_is_free_while_a_queue_stands_is_contended():
    room, last = standing()
    last.leave()
    assert not room.admission.full
    assert room.admission.contended

    room = Room(1)
    assert not room.admission.contended
    room.come()
    assert room.admission.contended


@pytest.mark.usefixtures("unhurried")
def test_who_is_worth_less_has_no_hope_behind_those_who_are_worth_more():
    room, last = standing()
    waiting = [room.come(Priority.WRITE) for _ in range(int(HOPE * PATIENCE_S[Priority.LIST] * PACE) + 1)]
    assert room.come(Priority.LIST).outcome is False
    waiting.append(room.come(Priority.WRITE))
    assert waiting[-1].outcome is None
    last.leave()
    room.serve_all()
    assert room.is_clean()


def test_a_place_for_who_comes_back_gives_nobody_hope():
    room, last = standing(SLOWEST)
    for _ in range(round(PACE * PACE_S)):
        last = passed_on(last, room.come(Priority.RETURN))
    last = kept_waiting(room, last)
    room.now += PACE_S
    last = passed_on(last, room.come(Priority.WEBHOOK))
    waiting = room.come(Priority.LIST)

    assert waiting.outcome is None
    assert room.admission.turns_away(Priority.LIST)
    passed_on(last, waiting).leave()
    assert room.is_clean()


@pytest.mark.parametrize("priority", [Priority.LIST, Priority.READ, Priority.WRITE])
def test_in_a_standing_queue_who_waited_too_long_is_shed(priority: Priority):
    room, last = standing()
    late, webhook = room.come(priority), room.come(Priority.WEBHOOK)
    room.now += PATIENCE_S[priority] + 0.01
    passed_on(last, webhook).leave()
    wait_until(lambda: late.outcome is False)

    assert room.is_clean()


def test_in_a_standing_queue_the_newest_comes_first_but_for_who_comes_back():
    room, last = standing()
    kinds = [Priority.READ, Priority.RETURN] * 2
    first_read, first_back, second_read, second_back = (room.come(kind) for kind in kinds)
    for following in (first_back, second_back, second_read, first_read):
        last = passed_on(last, following)
    last.leave()

    assert room.is_clean()


def test_a_queue_that_moves_on_does_not_stand_however_long_it_is_full():
    room = Room(1)
    last, following = room.come(), room.come()
    while room.now < 2 * STANDING_S:
        room.now += 0.9 * LATE_S
        last, following = passed_on(last, following), room.come()
    older, newer = following, room.come()
    passed_on(passed_on(last, older), newer).leave()

    assert room.is_clean()


def kept_waiting(room: Room, last: Person) -> Person:
    """Somebody waits for longer than a list would, and is late."""
    late = room.come(Priority.WEBHOOK)
    room.now += LATE_S + 0.01
    return passed_on(last, late)


def turned_away(room: Room, last: Person) -> Person:
    """Somebody would have been late, had it been let in."""
    waiting = [room.come(Priority.WEBHOOK)]
    while not room.admission.turns_away(Priority.LIST):
        waiting.append(room.come(Priority.WEBHOOK))
    for newest in reversed(waiting):
        last = passed_on(last, newest)
    return last


@pytest.mark.parametrize("happens", [kept_waiting, turned_away])
@pytest.mark.parametrize(("calm_s", "is_shed"), [(CALM_S / 2, True), (2 * CALM_S, False)])
def test_a_moment_without_anybody_late_is_not_the_end_of_a_standing_queue(
    calm_s: float, is_shed: bool, happens: Callable[[Room, Person], Person]
):
    room, last = standing()
    room.now += CALM_S / 2
    last = happens(room, last)
    room.now += calm_s
    last.leave()
    last = room.come(Priority.WRITE)
    waiting = room.come(Priority.LIST)
    room.now += PATIENCE_S[Priority.LIST] + 0.01
    last.leave()
    wait_until(lambda: waiting.outcome is not None)

    assert waiting.outcome is not is_shed
    if waiting.outcome:
        waiting.leave()
    assert room.is_clean()


def test_in_a_burst_nobody_is_shed():
    room = Room(1)
    room.come()
    crowd = [room.come(Priority.LIST) for _ in range(4)]
    room.now = LATE_S + 0.9 * STANDING_S
    assert room.serve_all() == crowd


def test_who_is_not_served_within_a_second_is_refused():
    room = Room(1)
    first = room.come(Priority.HEALTH)
    start = time.monotonic()
    late = room.come(Priority.HEALTH)
    late.thread.join()

    assert late.outcome is False
    assert DEADLINE_S <= time.monotonic() - start < 2 * DEADLINE_S
    first.leave()
    assert room.is_clean()


def test_a_user_holds_at_most_half_of_the_places_and_stands_in_nobodys_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orders_api.admission.DEADLINE_S", 2)  # its end is waited for
    room, alice = Room(4), uuid.uuid4()
    held = [room.come(user_id=alice) for _ in range(2)]
    parked = [room.come(user_id=alice) for _ in range(PARKED_PER_USER)]
    assert room.come(user_id=alice).outcome is False

    others = [room.come(Priority.LIST, uuid.uuid4()) for _ in range(2)]
    assert [one.outcome for one in [*held, *others]] == [True] * 4
    assert {one.outcome for one in parked} == {None}
    held[0].leave()
    wait_until(lambda: parked[0].outcome)
    assert [one.outcome for one in parked[1:]] == [None] * (PARKED_PER_USER - 1)
    for one in parked[1:]:
        one.thread.join()
    for one in [held[1], parked[0], *others]:
        one.leave()
    assert room.is_clean()
    assert (room.admission._claims, room.admission._parked) == ({}, {})


@pytest.mark.usefixtures("unhurried")
def test_a_user_s_payments_find_room_where_that_user_waits_and_come_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orders_api.admission.PARKED_PER_USER", 3)
    room, user = Room(2), uuid.uuid4()
    held = room.come(Priority.READ, user)
    parked = [room.come(Priority.READ, user) for _ in range(3)]
    assert room.come(Priority.READ, user).outcome is False
    payments = [room.come(Priority.WEBHOOK, user) for _ in range(3)]
    assert room.come(Priority.WEBHOOK, user).outcome is False
    for following in (*payments, *parked):
        held.leave()
        wait_until(lambda following=following: following.outcome)
        held = following
    held.leave()
    assert room.is_clean()


def test_a_place_given_at_the_very_end_of_the_wait_is_taken_or_kept_never_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orders_api.admission.DEADLINE_S", 0.002)
    user = uuid.uuid4()
    outcomes = set()
    for number in range(400):
        room = Room(1)
        first = room.come()
        late = Person(room.admission, Priority.WRITE, user, room.served)
        time.sleep(0.0011 + 0.0001 * (number % 20))  # around its end, wherever a busy machine puts that
        first.leave()
        late.thread.join()
        outcomes.add(late.outcome)
        assert room.admission.in_use == bool(late.outcome)
        if late.outcome:
            late.leave()
        assert room.is_clean()
        assert room.admission._claims == {}
    assert outcomes == {True, False}


def test_what_was_waited_for_one_place_counts_for_all_that_follow():
    full, started = [Admission(1), Admission(1)], []
    for admission in full:
        admission.enter(Caller())

    def one_after_the_other() -> None:
        for admission in full:
            started.append(time.monotonic())
            refused(admission, caller.get())

    contextvars.copy_context().run(one_after_the_other)
    assert time.monotonic() - started[1] < DEADLINE_S / 2


def test_what_was_waited_for_another_place_counts():
    room = Room(1)
    room.come()
    start = time.monotonic()
    with pytest.raises(Problem, match="overloaded"):
        room.admission.enter(Caller(Priority.WRITE, waited_s=DEADLINE_S))
    assert time.monotonic() - start < DEADLINE_S

    room, last = standing()
    waiter = threading.Thread(target=room.admission.enter, args=[Caller(Priority.WEBHOOK)])
    late = threading.Thread(
        target=refused, args=[room.admission, Caller(Priority.LIST, waited_s=PATIENCE_S[Priority.LIST] - 0.01)]
    )
    for thread in (late, waiter):
        before = room.admission.waiting
        thread.start()
        wait_until(lambda before=before: room.admission.waiting > before)
    room.now += 0.02  # in all longer than a list waits
    last.leave()
    late.join()
    waiter.join()
    assert room.shed() == {"list": 1}


def refused(admission: Admission | InFlight, who: Caller) -> None:
    with pytest.raises(Problem, match="overloaded"):
        admission.enter(who)


def test_who_steps_aside_leaves_the_place_and_comes_back_before_all_that_are_new():
    in_flight, log = InFlight(), []
    in_flight.open(1)
    stepped_out, come_back = threading.Event(), threading.Event()

    def request(name: str, priority: Priority, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            in_flight.enter(Caller(priority))
            log.append(name)
            work()
            in_flight.leave()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def reads_a_body() -> None:
        with in_flight.aside():
            stepped_out.set()
            come_back.wait()
        log.append("back")

    threads = [request("slow", Priority.LIST, reads_a_body)]
    stepped_out.wait()
    held = threading.Event()
    threads.append(request("other", Priority.LIST, held.wait))
    wait_until(lambda: log == ["slow", "other"])
    threads.append(request("webhook", Priority.WEBHOOK, lambda: None))
    wait_until(lambda: in_flight.admission.waiting == 1)
    come_back.set()
    wait_until(lambda: in_flight.admission.waiting == 2)
    held.set()
    for thread in threads:
        thread.join()

    assert log == ["slow", "other", "back", "webhook"]
    assert (in_flight.admission.in_use, in_flight.admission.waiting) == (0, 0)


def test_who_is_refused_another_place_needs_none_to_hear_it(door: InFlight):
    hashing = Admission(1)
    hashing.enter(Caller())
    door.enter(Caller())
    other = threading.Thread(target=door.enter, args=[Caller()])
    other.start()
    wait_until(lambda: door.admission.waiting == 1)
    start = time.monotonic()
    refused(hashing, Caller(waited_s=DEADLINE_S - 0.01))
    assert time.monotonic() - start < DEADLINE_S
    other.join()
    door.leave()
    assert (door.admission.in_use, door.admission.waiting) == (1, 0)  # the other's


@pytest.fixture
def door() -> Iterator[InFlight]:
    """The process's own, with one place."""
    in_flight.open(1)
    yield in_flight
    in_flight.open(0)


def test_a_refusal_at_the_door_takes_a_tenth_of_a_second():
    full = InFlight()  # not open yet: it has neither places nor a queue
    for refuses in (lambda: full.turns_away(Priority.LIST), lambda: refused(full, Caller(Priority.LIST)) or True):
        start = time.monotonic()
        assert refuses()
        assert time.monotonic() - start >= 0.1


def test_who_has_no_place_steps_aside_all_the_same():
    in_flight = InFlight()
    with in_flight.aside():
        in_flight.leave()
    assert in_flight.admission.in_use == 0


KILLED = """
from gevent import monkey; monkey.patch_all()
import gevent, uuid
from orders_api.admission import Admission, Caller, Priority
admission, alice = Admission(2), Caller(Priority.WRITE, uuid.uuid4())
def claim(): gevent.spawn(admission.enter, alice).join()
claim()
parked = gevent.spawn(admission.enter, alice); gevent.sleep(0)
bob = Caller(Priority.WRITE, uuid.uuid4())
gevent.spawn(admission.enter, bob).join()
carol = Caller(Priority.WRITE, uuid.uuid4())
queued = gevent.spawn(admission.enter, carol); gevent.sleep(0)
given = gevent.spawn(admission.enter, Caller(Priority.WEBHOOK)); gevent.sleep(0)
assert (admission.in_use, admission.waiting) == (2, 3), (admission.in_use, admission.waiting)
parked.kill(); queued.kill()
assert admission.waiting == 1
given.kill(block=False)
admission.leave(bob)  # gives the place to who is being killed
given.join()
admission.leave(alice)
assert (admission.in_use, admission.waiting, admission._claims, admission._parked) == (0, 0, {}, {})
print("clean")
"""


def test_a_killed_greenlet_leaves_nothing_behind_wherever_it_waited():
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "clean\n", done.stderr


# Over HTTP


def patient(serve_all: Callable[..., Any], databases: Any, places: int) -> Any:
    own = {"WEB_CONCURRENCY": "1", "DATABASE_POOL_SIZE": str(places), "WEBHOOK_SECRETS": whsec(SECRET), **PATIENCE}
    return serve_all(database_url=databases.migrated() + PATIENT, **own)


@pytest.fixture(scope="module")
def single(serve_all: Callable[..., Any], databases: Any) -> Any:
    return patient(serve_all, databases, 1)


@pytest.fixture(scope="module")
def eight(serve_all: Callable[..., Any], databases: Any) -> Any:
    return patient(serve_all, databases, 8)


def bearer(client: Client) -> str:
    return f"Authorization: Bearer {client.access_token}"


def cancel(client: Client, path: str) -> bytes:
    return patch(path, bearer(client), body=b'{"status": "cancelled"}')


def create(client: Client, _path: str) -> bytes:
    return post("/orders", bearer(client), f"Idempotency-Key: {uuid.uuid4()}", body=json.dumps(LAMP).encode())


def pay(client: Client, path: str) -> bytes:
    return webhook(json.dumps(event("payment.succeeded", client.get(path).json())).encode())


def webhook(body: bytes) -> bytes:
    headers = [f"{name}: {value}" for name, value in signed(body).items()]
    return post("/webhooks/payments", *headers, body=body)


def answered(connections: list[socket.socket]) -> list[socket.socket]:
    return select.select(connections, [], [], 0)[0]


@pytest.mark.parametrize(("table", "wish"), [("orders", cancel), ("feeds", create), ("orders", pay)])
def test_a_stuck_lock_starves_only_its_own_user(
    eight: Any, client_of: Callable[[Any], Client], connect: Connect, table: str, wish: Callable[..., bytes]
):
    sql, holder = connect(eight), connect(eight, autocommit=False)
    stuck, other = client_of(eight), client_of(eight)
    path, others = stuck.place().headers["Location"], other.place().headers["Location"]
    holder.execute(f"SELECT 1 FROM {table} WHERE user_id = %s FOR UPDATE", [stuck.user_id])
    with sent(eight.port, [wish(stuck, path) for _ in range(30)]) as waiting:
        wait_until(lambda: blocked_by(sql, holder) == 4)
        start = time.monotonic()
        for _ in range(5):
            answers = [other.get(others), other.get("/orders"), other.place(), other.get("/healthz")]
            answers.append(other.get("/readyz"))
            assert [answer.status_code for answer in answers] == [200, 200, 201, 200, 200]
        took_s = time.monotonic() - start
        # On the connection of one whose places are all taken: the check is the platform's all the same.
        assert [stuck.get(path).status_code for path in ("/orders?limit=0", "/readyz")] == [422, 200]
        assert blocked_by(sql, holder) == 4
        wait_until(lambda: len(answered(waiting)) == 26)
        early = answered(waiting)
        refused = [read(one) for one in early]
        holder.rollback()
        held = [read(one) for one in waiting if one not in early]

    assert took_s < 3, "starved, each of the 25 would wait for a second"
    assert {(answer.status, answer.code) for answer in refused} == {(503, "overloaded")}
    assert {answer.status for answer in held} <= {200, 201, 204}


def test_who_asks_whether_it_is_ready_takes_one_connection_however_many_they_are(
    eight: Any, client_of: Callable[[Any], Client], connect: Connect
):
    sql, holder, other = connect(eight), connect(eight, autocommit=False), client_of(eight)
    other.place()
    holder.execute("LOCK TABLE _yoyo_migration")
    with sent(eight.port, [get("/readyz")] * 30) as waiting:
        wait_until(lambda: blocked_by(sql, holder) == 1)
        answers = [ask() for _ in range(5) for ask in (other.place, lambda: other.get("/orders"))]
        assert blocked_by(sql, holder) == 1
        holder.rollback()
        ready = [read(one) for one in waiting]

    assert [answer.status_code for answer in answers] == [201, 200] * 5
    assert [answer.status for answer in ready] == [200] * 30


def test_a_webhook_that_finds_no_place_is_no_failed_signature(
    eight: Any, client_of: Callable[[Any], Client], connect: Connect
):
    sql, holder = connect(eight), connect(eight, autocommit=False)
    carol, dave = client_of(eight), client_of(eight)
    paths = [(one, one.place().headers["Location"]) for one in (carol, dave)]
    changes = [cancel(one, path) for one, path in paths for _ in range(4)]
    holder.execute("SELECT 1 FROM orders FOR UPDATE")
    head, body = pay(carol, paths[0][1]).split(b"\r\n\r\n")
    with sent(eight.port, [head + b"\r\n\r\n"]) as (provider,), sent(eight.port, changes) as changing:
        wait_until(lambda: blocked_by(sql, holder) == 8)
        provider.sendall(body)
        answer = read(provider)
        holder.rollback()
        assert {read(one).status for one in changing} == {200}

    assert (answer.status, answer.code) == (503, "overloaded")
    assert "ratelimit" not in answer.headers, "it was counted"


def test_who_waits_for_a_key_is_not_refused_for_all_its_short_waits_together(
    eight: Any, client_of: Callable[[Any], Client], connect: Connect
):
    sql, holder, carol = connect(eight), connect(eight, autocommit=False), client_of(eight)
    hold_feed(holder, carol)
    twice = create(carol, "")
    with sent(eight.port, [twice]) as (first,):
        wait_until(lambda: blocked_by(sql, holder) == 1)
        with sent(eight.port, [twice] * 60) as others:
            time.sleep(1.5 * DEADLINE_S)  # nothing tells how long they have waited for connections
            holder.rollback()
            answers = [read(one) for one in (first, *others)]
    assert {answer.status for answer in answers} == {201}


def test_held_places_are_refused_in_time_while_health_checks_answer(
    single: Any, client_of: Callable[[Any], Client], connect: Connect
):
    sql, holder = connect(single), connect(single, autocommit=False)
    carol, dave = client_of(single), client_of(single)
    path = carol.place().headers["Location"]
    holder.execute("SELECT 1 FROM orders WHERE user_id = %s FOR UPDATE", [carol.user_id])
    with sent(single.port, [cancel(carol, path)]) as (held,):
        wait_until(lambda: blocked_by(sql, holder) == 1)
        for ask in (lambda: dave.get("/orders"), dave.place):
            start = time.monotonic()
            answer = ask()
            assert time.monotonic() - start < 1.5  # 0.8 s; to wait at two places would take 1.6
            assert_problem(answer, 503, "overloaded")
            assert answer.headers["Retry-After"] == "1"
        assert dave.get("/healthz").status_code == 200
        assert_problem(dave.get("/readyz"), 503, "overloaded")
        holder.rollback()
        assert read(held).status == 200
    assert dave.get("/readyz").status_code == 200


def test_who_waits_for_a_body_or_a_hash_holds_no_place(
    serve_all: Callable[..., Any], client_of: Callable[[Any], Client]
):
    server = serve_all(WEB_CONCURRENCY="1", DATABASE_POOL_SIZE="1", BCRYPT_ROUNDS="13")
    carol = client_of(server)
    credentials = json.dumps({"email": f"{uuid.uuid4()}@example.com", "password": "far from right"}).encode()
    slow = [create(carol, "").split(b"\r\n\r\n")[0] + b"\r\n\r\n"] * MIN_IN_FLIGHT
    hashed = [post("/auth/login", body=credentials)] * MIN_IN_FLIGHT
    with sent(server.port, slow + hashed) as waiting:
        answers = [carol.get("/orders"), carol.place(), carol.get("/healthz")]
        unanswered = len(waiting) - len(answered(waiting))

    assert [answer.status_code for answer in answers] == [200, 201, 200]
    assert unanswered >= MIN_IN_FLIGHT, "nobody waited: the test shows nothing"


def test_a_freed_place_goes_to_writes_then_reads_then_lists(
    single: Any, client_of: Callable[[Any], Client], connect: Connect, memcached: str
):
    sql, holder = connect(single), connect(single, autocommit=False)
    carol, dave, erin, frank = (client_of(single) for _ in range(4))
    path, franks = carol.place().headers["Location"], frank.place().headers["Location"]
    holder.execute("SELECT 1 FROM orders WHERE user_id = %s FOR UPDATE", [carol.user_id])
    with sent(single.port, [cancel(carol, path)]) as (held,):
        wait_until(lambda: blocked_by(sql, holder) == 1)
        seen = len(single.log())
        with ExitStack() as stack:
            waiting = []
            for wish in (get("/orders", bearer(dave)), get("/idempotency-keys/k", bearer(erin)), cancel(frank, franks)):
                waiting += stack.enter_context(sent(single.port, [wish]))
            # Nobody can ask the queue. But all ask memcached first, on one connection: when the last one's fence is
            # there, all have; and these pass through the same worker.
            with opened(memcached) as cache:
                scope = orders_of(frank)
                wait_until(lambda: told(cache, scope, scope.generation_key) == b"fence")
            assert [dave.get("/healthz").status_code for _ in range(5)] == [200] * 5
            holder.rollback()
            answers = [read(one) for one in [held, *waiting]]
    lines = [json.loads(line) for line in single.log()[seen:].splitlines() if line.startswith("{")]
    routes = [(line["method"], line["route"]) for line in lines if line.get("route") not in (None, "/healthz")]

    assert answers[0].status == answers[3].status == 200
    assert routes[1:] == [("PATCH", "/orders/{order_id}"), ("GET", "/idempotency-keys/{key:path}"), ("GET", "/orders")]
