"""Connections to PostgreSQL: how many, with which bounds, in which role, and which of them are still good."""

import contextlib
import time
from typing import Any

import psycopg
import psycopg_pool
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import base

from orders_api import pooler
from orders_api.admission import in_flight
from orders_api.errors import Problem
from orders_api.settings import Settings
from orders_api.sockets import readable

log = structlog.get_logger("orders_api.pool")

ANSWER_S = 6.0  # what has not answered by then is frozen, or out of reach: its own timeouts can't end the wait
CONNECTION_OPTIONS = (
    "-c statement_timeout=5000 -c lock_timeout=1000 -c idle_in_transaction_session_timeout=10000"
    " -c client_connection_check_interval=500 -c timezone=UTC"
)
# After this the pool gives a connection attempt up and the next request starts a new one; its default is 5 minutes.
RECONNECT_TIMEOUT_S = 1.5
# Between its attempts, doubled each time. Of its own second most was lost after a PostgreSQL that was back in 0.3 s.
base.AttemptWithBackoff.INITIAL_DELAY = 0.1  # psycopg_pool has no setting for it
APPLICATION_ROLE = "orders_app"  # made by migrations/0003


class Connection(psycopg.Connection):
    """Gives up a database that says nothing. A COMMIT is then unknown, as on any lost connection."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, ANSWER_S if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:  # its answer may still come
                self.pgconn.finish()
            raise


class Pool(psycopg_pool.ConnectionPool):
    """As many connections as the settings say, made in the background: a dead database delays no start."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            conninfo_with_defaults(settings.database_url),
            connection_class=Connection,
            kwargs={"autocommit": True, "prepare_threshold": settings.database_prepare_threshold},
            configure=_begin_session,
            min_size=settings.database_pool_size,
            max_size=settings.database_pool_size,
            reconnect_timeout=RECONNECT_TIMEOUT_S,
            open=True,
        )

    def take(self, deadline: float) -> psycopg.Connection:
        """One that the server has not hung up. Raises Problem `database_unavailable`."""
        while True:
            connection = self._get(deadline) if self._pool else self._get_when_made(deadline)  # _pool: who are idle
            if not _hung_up(connection):
                return connection
            connection.close()
            self.putconn(connection)

    def _get_when_made(self, deadline: float) -> psycopg.Connection:
        """Waits without a place in the worker: while the database is away, what is cached still finds one."""
        connection = None
        try:
            with in_flight.aside():
                connection = self._get(deadline)
        except BaseException:
            if connection is not None:
                self.putconn(connection)
            raise
        return connection

    def _get(self, deadline: float) -> psycopg.Connection:
        try:
            return self.getconn(timeout=max(0.001, deadline - time.monotonic()))
        except psycopg_pool.PoolTimeout:
            raise Problem("database_unavailable", after_s=1) from None


def conninfo_with_defaults(url: str) -> str:
    """The URL with our timeouts added to whatever it says itself."""
    given = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    given["options"] = f"{CONNECTION_OPTIONS} {given.get('options', '')}".strip()
    return make_conninfo(**{"connect_timeout": "2", "application_name": "orders-api", **given})  # type: ignore[arg-type]


def _begin_session(connection: psycopg.Connection) -> None:
    """Takes the application's role, which has no DDL and can't rewrite the past, where the migrations could make it.

    Behind a pooler the session is not ours: the role would be that of whoever comes next. There the login has it.
    """
    if pooler.between(connection):
        if pooler.unbounded(connection):
            log.warning("statements have no timeout: a pooler lost it, so the login needs it (conf/login.sql)")
        if pooler.owns_the_past(connection):
            log.warning("the login can rewrite events and audit: behind a pooler use one that can't (conf/login.sql)")
        return
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        connection.execute(
            "SELECT set_config('role', rolname, false) FROM pg_roles"
            " WHERE rolname = %s AND pg_has_role(oid, 'MEMBER') AND rolname <> current_user",
            [APPLICATION_ROLE],
        )


def _hung_up(connection: psycopg.Connection) -> bool:
    """Whether the server closed an idle connection: its socket is then readable."""
    return connection.closed or readable(connection.fileno())
