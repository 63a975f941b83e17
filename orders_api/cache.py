"""What memcached may remember of a scope (a user's orders, a session), and how a write makes it forget.

Every scope has a generation, a random number. A value is good only under the generation it was loaded under:

- A write sets the generation to a *fence* before its transaction begins, and CASes in a new one after COMMIT. Who
  reads the fence goes to the database and stores nothing. A writer that dies in between leaves the fence, which ends
  by itself; bumping after COMMIT alone would leave a stale value for good.
- A fence may be lost before its time: by a flush, or under a later writer's that was lifted. A writer that finds so,
  or that is not told whether it committed, sets it once more. One that dies can't, nor a refresh that does not know
  which session it ended: then an old value lives on to its hard end.
- When memcached can't be told of a write, its scope bypasses the cache for longer than any value lives, in every
  worker of this host.

So a value that is served was loaded after the scope's last write. Its soft TTL is for changes that nobody told us of
(SQL by hand); one request renews it, the others take the old value meanwhile. Down, slow, flushed or full, memcached
changes no answer.
"""

import functools
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from peewee import PeeweeException

from orders_api import metrics
from orders_api.admission import in_flight
from orders_api.bypasses import bypasses
from orders_api.db import problem_of
from orders_api.memcached import Batch, Memcached, Reply, memcached, storable
from orders_api.reporting import span

GENERATION_TTL_S = 24 * 3600
# Longer than any transaction lasts (24 s, db.py): nobody should take up a scope while a write to it may still commit.
FENCE_S = 30
# Longer than any value lives, and than a load that began before the write may take to store what it found.
BYPASS_MARGIN_S = 10
MAX_VALUE_BYTES = 1_000_000  # memcached drops what is over 1 MiB, key and header included
JITTER = 0.2  # of the soft TTL: what was loaded together should not be renewed together
# A stampede's losers wait this long for the winner's value, then load for themselves.
LOCK_TTL_S = 2  # memcached counts whole ticks: 1 may be over at once
WAIT_S = 0.8
FIRST_POLL_S, LAST_POLL_S = 0.005, 0.05

UNAVAILABLE = 503

_FENCE = b"fence"
_HEADER = b"%b %013d %013d "  # generation, soft and hard end (ms since the epoch); text, so that it holds no line break
_SOFT_END, _HARD_END, _HEADER_BYTES = slice(17, 30), slice(31, 44), 45


@dataclass(frozen=True, slots=True)
class Kind:
    """What is cached and for how long. After `soft_s` (and jitter) one reader renews a value; `hard_s` ends it."""

    name: str
    soft_s: float
    hard_s: int

    def scope(self, home: str, name: str | None = None) -> "Scope":
        full = f"{self.name}:{name or home}"
        return Scope(self, home, full, f"generation:{full}")


class Scope(NamedTuple):
    """What becomes stale together. `home`: the user whose server it is kept on."""

    kind: Kind
    home: str
    name: str
    generation_key: str


class Cache:
    """Lookups and fences on one memcached."""

    def __init__(self, servers: Memcached) -> None:
        self.memcached = servers

    def look_up(self, batch: Batch, scope: Scope, name: str) -> "Lookup":
        """Asks for a value in a batch that is yet to run."""
        return Lookup(self, batch, scope, name)

    def fence(self, scope: Scope) -> "Fence":
        """Call before the write's transaction begins."""
        return Fence(self, scope)

    def remember(self, scope: Scope, name: str, value: bytes) -> None:
        """Stores what was just written, where no fence forbids it."""
        generation = self.generation(scope)
        if generation and not bypasses.covers(scope.name):
            batch = self.memcached.batch()
            self.put(batch, scope, name, generation, value)
            batch.run()

    def generation(self, scope: Scope) -> bytes | None:
        """The scope's generation, a new one if there was none; None under a fence and without memcached."""
        batch = self.memcached.batch()
        batch.set(scope.home, scope.generation_key, _new_generation(), GENERATION_TTL_S, b"ME")
        reply = batch.get(scope.home, scope.generation_key)
        batch.run()
        return _unless_fence(reply.value) if reply.value else None

    def put(self, batch: Batch, scope: Scope, name: str, generation: bytes, value: bytes) -> None:
        if len(value) > MAX_VALUE_BYTES or not storable(value):
            return
        soft_s = scope.kind.soft_s * random.uniform(1 - JITTER, 1)  # noqa: S311  (jitter is no secret)
        ends = tuple(round((time.time() + lives_s) * 1000) for lives_s in (soft_s, scope.kind.hard_s))
        batch.set(scope.home, _value_key(scope, name), _HEADER % (generation, *ends) + value, scope.kind.hard_s)


class Lookup:
    """What memcached says of one name in a scope, and the way to the value when it says nothing.

    `verdict`, after `value()`: hit; stale (old, and not to be renewed now); miss; fenced (a write is under way);
    bypass (memcached missed a write); down.
    """

    __slots__ = ("_cache", "_entry", "_generation", "_name", "_scope", "verdict")

    def __init__(self, cache: "Cache", batch: Batch, scope: Scope, name: str) -> None:
        self._cache, self._scope, self._name = cache, scope, name
        self._generation = batch.get(scope.home, scope.generation_key)
        self._entry = batch.get(scope.home, _value_key(scope, name))
        self.verdict: str | None = None

    def value(self, load: Callable[[], bytes]) -> bytes:
        """The value that is remembered, else what `load` gives. What it raises is remembered by nobody."""
        try:
            return self._value(load)
        finally:
            metrics.series(metrics.cache_lookups, self._scope.kind.name, str(self.verdict)).inc()

    def _value(self, load: Callable[[], bytes]) -> bytes:
        generation = self._usable_generation()
        if generation is None:
            return load()
        found, fresh = _read(self._entry, generation)
        lock = None
        if not fresh:
            lock = self._lock()
            found, fresh = _read(self._entry, generation)
        if found is not None and fresh:
            self._unlock(lock)
            self.verdict = "hit"
            return found
        if found is not None:
            return self._renewed(found, load, generation, lock)
        if lock is None:
            metrics.cache_lock_waits.inc()
            with span("wait", "a value that another loads"), in_flight.aside():
                found = self._wait(generation)
        self.verdict = "miss" if found is None else "hit"
        return self._load(load, generation, lock) if found is None else found

    def _renewed(self, found: bytes, load: Callable[[], bytes], generation: bytes, lock: int | None) -> bytes:
        """The old value while another renews it, and when the database can't be asked (RFC 5861, stale-if-error)."""
        self.verdict = "stale"
        if lock is None:
            return found
        try:
            value = self._load(load, generation, lock)
        except Exception as error:
            problem = problem_of(error)
            if problem is None or problem.type.status != UNAVAILABLE:
                raise
            return found
        self.verdict = "miss"
        return value

    def _usable_generation(self) -> bytes | None:
        generation = self._generation.value
        if bypasses.covers(self._scope.name):
            self.verdict, generation = "bypass", None
        elif not self._generation.up:
            self.verdict = "down"
        else:
            generation = self._cache.generation(self._scope) if generation is None else _unless_fence(generation)
            if generation is None:
                self.verdict = "fenced"
        return generation

    def _lock(self) -> int | None:
        """The token of the lock, if it is ours to load the value.

        Looks again behind it: who came to the lock after another had stored the value and left would load it once more.
        """
        batch = self._cache.memcached.batch()
        reply = batch.set(self._scope.home, self._lock_key, b"", LOCK_TTL_S, b"ME c")
        entry = batch.get(self._scope.home, _value_key(self._scope, self._name))
        batch.run()
        if entry.up:
            self._entry = entry
        return reply.number(b"c") if reply.stored else None

    def _unlock(self, lock: int | None) -> None:
        """Only who still has it."""
        if lock is not None:
            batch = self._cache.memcached.batch()
            batch.delete(self._scope.home, self._lock_key, lock)
            batch.run()

    def _wait(self, generation: bytes) -> bytes | None:
        """The value that the lock's holder stores; None when it did not, or takes too long, or memcached is down."""
        deadline, pause_s = time.monotonic() + WAIT_S, FIRST_POLL_S
        while time.monotonic() < deadline:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_POLL_S)
            batch = self._cache.memcached.batch()
            lock = batch.get(self._scope.home, self._lock_key)
            entry = batch.get(self._scope.home, _value_key(self._scope, self._name))
            batch.run()
            found, _ = _read(entry, generation)
            if found is not None or lock.value is None:
                return found
        return None

    def _load(self, load: Callable[[], bytes], generation: bytes, lock: int | None) -> bytes:
        batch = self._cache.memcached.batch()
        try:
            value = load()
            self._cache.put(batch, self._scope, self._name, generation, value)
            return value
        finally:
            if lock is not None:
                batch.delete(self._scope.home, self._lock_key, lock)
            batch.run()

    @property
    def _lock_key(self) -> str:
        return f"lock:{_value_key(self._scope, self._name)}"


class Fence:
    """Stands while a write to the scope is under way."""

    def __init__(self, cache: "Cache", scope: Scope) -> None:
        self._cache, self._scope = cache, scope
        self._cas = self._set()

    def lift(self) -> None:
        """Call after COMMIT, or when it is certain that there was none. A later writer's fence stays."""
        if self._cas is None:
            return
        batch = self._cache.memcached.batch()
        key, home = self._scope.generation_key, self._scope.home
        lifted = batch.set(home, key, _new_generation(), GENERATION_TTL_S, b"C%d" % self._cas)
        there = batch.get(home, key)
        batch.run()
        if not lifted.up:
            self._bypass()
        elif not lifted.stored and there.value != _FENCE:
            # Flushed or evicted meanwhile: a reader may have begun a generation with what it read before COMMIT.
            self.renew()

    def renew(self) -> None:
        """Call when a COMMIT may have happened, or may yet: the fence stands anew, whatever became of it."""
        self._cas = self._set()

    def _set(self) -> int | None:
        """The fence's CAS value; None, and a bypass, when memcached did not take it."""
        batch = self._cache.memcached.batch()
        reply = batch.set(self._scope.home, self._scope.generation_key, _FENCE, FENCE_S, b"c")
        batch.run()
        if not reply.stored:
            self._bypass()
            return None
        return reply.number(b"c")

    def _bypass(self) -> None:
        metrics.cache_bypasses.inc()
        bypasses.add(self._scope.name, self._scope.kind.hard_s + BYPASS_MARGIN_S)


def fenced(kind: Kind) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """For services that write to what is cached of the user whose id is their first argument."""

    def decorate(service: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(service)
        def call(user_id: Any, *args: Any, **kwargs: Any) -> Any:
            fence = cache.fence(kind.scope(str(user_id)))
            try:
                result = service(user_id, *args, **kwargs)
            except PeeweeException:  # perhaps it was committed, perhaps it still will be
                fence.renew()
                raise
            except Exception:
                fence.lift()
                raise
            fence.lift()
            return result

        return call

    return decorate


cache = Cache(memcached)


def _value_key(scope: Scope, name: str) -> str:
    return f"value:{len(scope.name)}:{scope.name}:{name}"


def _new_generation() -> bytes:
    return secrets.token_hex(8).encode()


def _unless_fence(generation: bytes) -> bytes | None:
    return None if generation == _FENCE else generation


def _read(entry: Reply, generation: bytes) -> tuple[bytes | None, bool]:
    """The value, if it is of this generation and still alive, and whether it is fresh."""
    raw = entry.value
    if raw is None or not raw.startswith(generation):
        return None, False
    now_ms = time.time() * 1000
    # memcached stopped and continued may carry out late what it was told long ago: its clock is not enough.
    if now_ms >= int(raw[_HARD_END]):
        return None, False
    return raw[_HEADER_BYTES:], now_ms < int(raw[_SOFT_END])
