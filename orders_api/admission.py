"""Who gets a place when there are fewer than are wanted: by importance, within a second, and no user all of them.

There are places of several kinds: in flight in a worker, its connections, its threads for hashing.
"""

import enum
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple
from uuid import UUID

from gevent import monkey

from orders_api import metrics
from orders_api.backlog import Backlog
from orders_api.errors import Problem
from orders_api.reporting import span

DEADLINE_S = 0.8  # of the second that the contract gives: the refusal takes its time too
WAITING_PER_PLACE = 64
CROWD_PER_PLACE = 4
PARKED_PER_USER = 64  # and as many payments again
# Who comes to a queue that stands has to be able to hope for a place in this share of its patience, at the pace of the
# queue. Else it does not wait for one: that costs the others least.
HOPE = 0.25
# No refusal at the door is quicker. Who takes the connection that was used last, as many a proxy does, would else ask
# the worker that refuses again and again, while another has nothing to do. Each keeps its connection meanwhile: at
# 0.2 ms of a core a refusal these are 500 at most, of 1,000 that a worker takes (conf/gunicorn.conf.py).
HELD_BACK_S = 0.1


class Priority(enum.IntEnum):
    """What a request is worth when not all can be served, the least first."""

    LIST = 0
    READ = 1
    WRITE = 2
    WEBHOOK = 3
    HEALTH = 4
    RETURN = 5  # it was admitted before, and stepped aside


# In a queue that stands: longer than this it is not worth waiting, the client will have asked again.
PATIENCE_S = {
    Priority.LIST: 0.1,
    Priority.READ: 0.1,
    Priority.WRITE: 0.15,
    Priority.WEBHOOK: DEADLINE_S,
    Priority.HEALTH: DEADLINE_S,
    Priority.RETURN: DEADLINE_S,
}
# The share of the queue that may be taken when one arrives; who is not named here always waits.
SHARES = {Priority.LIST: 1 / 2, Priority.READ: 3 / 4, Priority.WRITE: 7 / 8, Priority.WEBHOOK: 1}


class Caller(NamedTuple):
    """For whom the current thread or greenlet asks. Without a user no cap applies: commands, logins, health checks."""

    priority: Priority = Priority.WRITE
    user_id: UUID | None = None
    waited_s: float = 0.0  # for other places: patience and deadline are for the request as a whole


# The system's own, whether or not gevent has put another in its place: nobody waits while holding it.
_Lock = monkey.get_original("threading", "Lock")

caller: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039  (a tuple)

Line = dict["_Waiter", None]  # first come first served, and left from the middle at no cost


class _Waiter:
    """`admitted`: None until decided. `since`: when it began to wait, elsewhere included. `line`: where it stands."""

    __slots__ = ("admitted", "caller", "decided", "line", "since")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.line: Line = {}
        self.since = 0.0
        self.admitted: bool | None = None
        self.decided = threading.Event()

    def stand_in(self, line: Line) -> None:
        self.line = line
        line[self] = None

    def decide(self, admitted: bool) -> None:
        self.line.pop(self, None)
        self.admitted = admitted
        self.decided.set()


class Admission:
    """Gives out `places`. A user claims at most half of them, held or queued for; the rest waits apart."""

    def __init__(
        self,
        places: int,
        patience_s: Mapping[Priority, float] = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        *,
        name: str = "",
    ) -> None:
        self.places = places
        self.name = name  # of the kind of places, in the metrics
        self.patience_s = patience_s
        self.in_use = 0
        self._clock = clock
        self._lock = _Lock()
        self._cap = max(1, places // 2)
        self._bounds = {priority: share * places * WAITING_PER_PLACE for priority, share in SHARES.items()}
        # A place is free only while all lines are empty.
        self._lines: dict[Priority, Line] = {priority: {} for priority in sorted(Priority, reverse=True)}
        self._claims: Counter[UUID] = Counter()
        self._parked: dict[UUID, Line] = {}
        self._backlog = Backlog()

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return self.in_use >= self.places

    @property
    def contended(self) -> bool:
        """Whether a place has to be waited for, or will have to be before long: one that is free is soon taken."""
        return self.full or self._backlog.stands

    @property
    def waiting(self) -> int:
        with self._lock:
            return self._queued() + sum(map(len, self._parked.values()))

    def enter(self, who: Caller) -> None:
        """Takes a place, to be given back by `leave`. Raises Problem `overloaded`."""
        with self._lock:
            waiter = self._join(who)
        if waiter is None:
            return
        try:
            with span("wait", self.name), in_flight.aside():
                self._wait(waiter)
        except BaseException:
            with self._lock:
                self._give_up(waiter)
            raise

    def leave(self, who: Caller) -> None:
        """Gives back the place that `enter` took for `who`."""
        with self._lock:
            self._leave(who)

    def turns_away(self, priority: Priority) -> bool:
        """Whether `enter` would refuse at once who comes without a user; if so, it is counted as refused."""
        with self._lock:
            if closed := self._is_closed(priority):
                self._count_refused(priority)
        return closed

    def _join(self, who: Caller) -> _Waiter | None:
        """None: there was a place. Raises Problem `overloaded` where too many wait already."""
        capped = who.user_id is not None and self._claims[who.user_id] >= self._cap
        if not capped and not self.full:
            self._claim(who)
            self._give(who.priority)
            return None
        parked = self._parked.get(who.user_id, ()) if capped and who.user_id else ()
        most = 2 * PARKED_PER_USER if who.priority is Priority.WEBHOOK else PARKED_PER_USER
        if len(parked) >= most or (not capped and self._is_closed(who.priority)):
            self._count_refused(who.priority)
            raise Problem("overloaded", after_s=1)
        waiter = _Waiter(who)
        if capped and who.user_id:
            waiter.stand_in(self._parked.setdefault(who.user_id, {}))
        else:
            self._queue(waiter)
        return waiter

    def _wait(self, waiter: _Waiter) -> None:
        """Returns when it has its place. Raises Problem `overloaded`."""
        began = self._clock()
        waiter.decided.wait(max(0.0, DEADLINE_S - waiter.caller.waited_s))
        with self._lock:
            # Between the end of the wait and here it may have been given its place.
            if waiter.admitted is None:
                self._refuse(waiter)
                self._hand_out()
        waited_s = self._clock() - began
        metrics.series(metrics.waits, self.name).observe(waited_s)
        caller.set(caller.get()._replace(waited_s=caller.get().waited_s + waited_s))
        if not waiter.admitted:
            raise Problem("overloaded", after_s=1)

    def _give(self, priority: Priority) -> None:
        self.in_use += 1
        if priority in SHARES:
            self._backlog.gave_place()

    def _is_closed(self, priority: Priority) -> bool:
        """Whether there is no room in the queue, or no hope."""
        if priority not in SHARES:
            return False
        if self._backlog.stands:
            ahead = sum(len(line) for other, line in self._lines.items() if other >= priority)
            if ahead > HOPE * self.patience_s[priority] * self._backlog.pace:
                self._backlog.was_late(self._clock())
                return True
        return self._queued() >= self._bounds[priority]

    def _queue(self, waiter: _Waiter) -> None:
        self._claim(waiter.caller)
        waiter.since = self._clock() - waiter.caller.waited_s
        waiter.stand_in(self._lines[waiter.caller.priority])

    def _queued(self) -> int:
        return sum(map(len, self._lines.values()))

    def _leave(self, who: Caller) -> None:
        self.in_use -= 1
        self._unclaim(who)
        self._hand_out()

    def _hand_out(self) -> None:
        """Gives what is free to those who are worth most.

        In a queue that stands, who is late is refused, and the newest comes first: the others' clients have less time
        left, and all would be late in turn (adaptive LIFO, in the article that backlog.py names).
        """
        now = self._clock()
        self._backlog.look(now, min((next(iter(line)).since for line in self._lines.values() if line), default=now))
        if self._backlog.stands:
            self._refuse_late(now)
        while not self.full and (first := self._first()):
            first.decide(True)
            self._give(first.caller.priority)

    def _refuse_late(self, now: float) -> None:
        """Those who are worth least waited longest, and hear it first: when a queue begins to stand there are many."""
        for priority, line in reversed(self._lines.items()):
            while line and now - (first := next(iter(line))).since > self.patience_s[priority]:
                self._refuse(first)

    def _first(self) -> _Waiter | None:
        for priority, line in self._lines.items():
            if line:
                return next(reversed(line) if self._backlog.stands and priority in SHARES else iter(line))
        return None

    def _refuse(self, waiter: _Waiter) -> None:
        self._count_refused(waiter.caller.priority)
        self._withdraw(waiter)

    def _count_refused(self, priority: Priority) -> None:
        metrics.series(metrics.shed, self.name, priority.name.lower()).inc()

    def _withdraw(self, waiter: _Waiter) -> None:
        parked = waiter.line is not self._lines[waiter.caller.priority]
        waiter.decide(False)
        if not parked:
            self._unclaim(waiter.caller)
        elif not waiter.line and waiter.caller.user_id:
            self._parked.pop(waiter.caller.user_id, None)

    def _give_up(self, waiter: _Waiter) -> None:
        """Its greenlet was killed, perhaps with a place already on the way."""
        if waiter.admitted:
            self._leave(waiter.caller)
        elif waiter.admitted is None:
            self._withdraw(waiter)
            self._hand_out()

    def _claim(self, who: Caller) -> None:
        if who.user_id is not None:
            self._claims[who.user_id] += 1

    def _unclaim(self, who: Caller) -> None:
        """The claim passes to the user's own that is parked longest, a payment first.

        By importance alone, polls for a key would starve reads.
        """
        if who.user_id is None:
            return
        self._claims[who.user_id] -= 1
        if not self._claims[who.user_id]:
            del self._claims[who.user_id]
        line = self._parked.get(who.user_id)
        if line:
            payments = (waiter for waiter in line if waiter.caller.priority is Priority.WEBHOOK)
            following = next(payments, None) or next(iter(line))
            del line[following]
            if not line:
                del self._parked[who.user_id]
            self._queue(following)


class InFlight:
    """The requests that a worker works on at a time; the others wait at its door.

    Whoever waits for something that is no work of this worker steps aside meanwhile: for a body, a connection, a
    password's hash, an idempotency key, a value that another loads.
    """

    def __init__(self) -> None:
        self.admission = Admission(0)
        self._holder: ContextVar[Caller | None] = ContextVar("holder", default=None)

    def open(self, places: int) -> None:
        self.admission = Admission(places, name="door")

    @property
    def crowded(self) -> bool:
        """Whether far more wait at the door than have come in."""
        return self.admission.waiting > CROWD_PER_PLACE * self.admission.places

    def turns_away(self, priority: Priority) -> bool:
        """Whether `enter` would refuse at once; says so no sooner than `enter` would."""
        if closed := self.admission.turns_away(priority):
            time.sleep(HELD_BACK_S)
        return closed

    def enter(self, who: Caller) -> None:
        """Takes a place for the current request. Raises Problem `overloaded`."""
        began = time.monotonic()
        try:
            self.admission.enter(who)
        except Problem:
            time.sleep(max(0.0, began + HELD_BACK_S - time.monotonic()))
            raise
        self._holder.set(who)

    def leave(self) -> None:
        """Gives the current request's place back, if it has one."""
        who = self._holder.get()
        if who is not None:
            self._holder.set(None)
            self.admission.leave(who)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Without its place, if the current request has one; afterwards it comes before all that are new.

        Who was refused another place meanwhile needs none to say so.
        """
        if self._holder.get() is None:
            yield
            return
        self.leave()
        try:
            yield
        except Problem:
            raise
        except BaseException:
            self._return()
            raise
        else:
            self._return()

    def _return(self) -> None:
        self.admission.enter(_RETURNING)
        self._holder.set(_RETURNING)


_RETURNING = Caller(Priority.RETURN)
in_flight = InFlight()
