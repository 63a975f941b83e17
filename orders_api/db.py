"""Peewee on a bounded psycopg pool: checkout, release, statement accounting, retries, and what a failure means."""

import functools
import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import orjson
import psycopg
import psycopg.types.json
from peewee import DatabaseError, InterfaceError, Model, PeeweeException
from playhouse.postgres_ext import Psycopg3Database

from orders_api.admission import Admission, Caller, caller
from orders_api.errors import Problem
from orders_api.pool import Pool
from orders_api.reporting import span
from orders_api.settings import Settings

# The budget chain: lock 1 s < statement 5 s < answer 6 s (pool.py); the last statement begins within 12 s (a body has
# 10 s, an idempotency key 2 s), and a COMMIT may follow it: a request is over within 24 s < graceful stop 25 s < the
# platform's 30 s.
LAST_STATEMENT_S = 12.0
CHECKOUT_TIMEOUT_S = 1.0
MIN_CONNECT_S = 0.1  # who got its place at the last moment still has this long to get the connection that belongs to it
SERIALIZATION_TRIES = 3
RETRIED = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
OVERLOADED = frozenset({"55P03", "57014", *RETRIED})  # lock and statement timeouts
READ_ONLY = "25006"  # a demoted primary: these connections will never write again


class Statements:
    """What one request has asked of the database: round trips and milliseconds."""

    __slots__ = ("began", "count", "ms")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.count = 0
        self.ms = 0.0


statements: ContextVar[Statements | None] = ContextVar("statements", default=None)


class Database(Psycopg3Database):
    """A Peewee database whose connections come from a bounded pool and go back to it.

    A greenlet has a connection from its first statement to `release()` or `close()`.
    Raises Problem `overloaded` when it is not admitted to one, `database_unavailable` when none can be made.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self._pool: Pool | None = None
        self.admission = Admission(0)

    def open(self, settings: Settings) -> None:
        """Starts the pool; connections are made in the background, so that a dead database delays no start."""
        self.init(settings.database_url)
        self.admission = Admission(settings.database_pool_size, name="database")
        self._pool = Pool(settings)

    def shut(self) -> None:
        self.close()
        if self._pool is not None:
            self._pool.close(timeout=2)
            self._pool = None

    # Not _connect(): Peewee holds its lock there, and everybody would wait behind whoever waits for the pool.
    def connect(self, reuse_if_open: bool = False) -> bool:
        if not self._state.closed:
            if reuse_if_open:
                return False
            raise InterfaceError("Connection already open.")
        self._state.reset()
        connection, self._state.whose_place = self._checkout()
        self._state.set_connection(connection)
        return True

    def close(self) -> bool:
        """Gives the connection back, whatever state it is in; the pool rolls back or replaces it."""
        if self._state.closed:
            return False
        connection, whose = self._state.conn, self._state.whose_place
        self._state.reset()
        self._give_back(connection, whose)
        return True

    def release(self) -> None:
        """Gives the connection back unless a transaction is open: before anything slow that needs no database."""
        if not self.in_transaction():
            self.close()

    def _checkout(self) -> tuple[psycopg.Connection, Caller]:
        """A connection, and whose place it takes. Nobody ever waits in the pool's own queue for a busy connection."""
        assert self._pool is not None, "db.open() comes first"
        whose = caller.get()
        deadline = time.monotonic() + CHECKOUT_TIMEOUT_S - whose.waited_s
        self.admission.enter(whose)
        try:
            return self._pool.take(max(deadline, time.monotonic() + MIN_CONNECT_S)), whose
        except BaseException:
            self.admission.leave(whose)
            raise

    def _give_back(self, connection: psycopg.Connection, whose: Caller) -> None:
        assert self._pool is not None
        try:
            self._pool.putconn(connection)
        finally:
            self.admission.leave(whose)

    def drop_idle(self) -> None:
        """Replaces every connection: after a failover the old ones reach a server that can't write."""
        if self._pool is not None:
            self._pool.drain()

    def pool_statistics(self) -> dict[str, int]:
        """psycopg_pool's own numbers, since the start; without a pool none."""
        return self._pool.get_stats() if self._pool is not None else {}

    # BEGIN, COMMIT and ROLLBACK bypass Peewee's query hooks.
    def begin(self, isolation_level: Any = None) -> None:
        self._counted("BEGIN", super().begin)

    def commit(self) -> None:
        self._counted("COMMIT", super().commit)

    def rollback(self) -> None:
        """Never raises on a lost connection: that would mask the error that lost it."""
        if self._state.closed or self._state.conn.closed:
            return
        try:
            self._counted("ROLLBACK", super().rollback)
        except (PeeweeException, psycopg.Error):
            self._state.conn.close()

    def _execute_cursor(self, sql: str, params: Any, **options: Any) -> Any:
        spent = statements.get()
        if spent is not None and time.monotonic() - spent.began > LAST_STATEMENT_S:
            raise Problem("overloaded", after_s=1)
        return self._counted(sql, super()._execute_cursor, sql, params, **options)

    def _counted(self, text: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        spent = statements.get()
        if spent is None:
            return call(*args, **options)
        if self._state.closed:
            self.connect()
        start = time.perf_counter()
        try:
            with span("db", text):
                return call(*args, **options)
        finally:
            spent.count += 1
            spent.ms += (time.perf_counter() - start) * 1000


psycopg.types.json.set_json_loads(orjson.loads)
psycopg.types.json.set_json_dumps(orjson.dumps)
db = Database()


class BaseModel(Model):
    class Meta:
        database = db


def transactional(service: Callable[..., Any]) -> Callable[..., Any]:
    """One call = one transaction; tried again as `retried` says."""

    @retried
    @functools.wraps(service)
    def call(*args: Any, **kwargs: Any) -> Any:
        with db.atomic():
            return service(*args, **kwargs)

    return call


def retried(service: Callable[..., Any]) -> Callable[..., Any]:
    """Tried again, with jitter, when PostgreSQL asks for that (40001, 40P01). The service is one transaction."""

    @functools.wraps(service)
    def call(*args: Any, **kwargs: Any) -> Any:
        for attempt in range(1, SERIALIZATION_TRIES + 1):
            try:
                return service(*args, **kwargs)
            except DatabaseError as e:
                if sqlstate(e) not in RETRIED or attempt == SERIALIZATION_TRIES or db.in_transaction():
                    raise
                time.sleep(random.uniform(0, 0.02 * attempt))  # noqa: S311  (jitter is no secret)
        return None

    return call


def sqlstate(error: BaseException) -> str | None:
    """The five characters by which PostgreSQL says what happened; None when it said nothing."""
    return getattr(getattr(error, "orig", error), "sqlstate", None)


def problem_of(error: BaseException) -> Problem | None:
    """What a client should be told of a database error; None when it is a defect of ours."""
    if isinstance(error, Problem):
        return error
    if not isinstance(error, PeeweeException | psycopg.Error):
        return None
    state = sqlstate(error)
    if state in OVERLOADED:
        return Problem("overloaded", after_s=1)
    if state == READ_ONLY:
        db.drop_idle()
        return Problem("database_unavailable", after_s=1)
    lost = state is None and isinstance(getattr(error, "orig", error), psycopg.OperationalError)
    # Connection lost; ended because we stood still in a transaction; no resources (disk, memory, connections); shutting
    # down or starting up.
    if lost or (state or "").startswith(("08", "25P03", "53", "57P")):
        return Problem("database_unavailable", after_s=1)
    return None
