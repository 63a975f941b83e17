"""The database pool: bounded, never leaking, and honest about a database that is gone, full or read-only."""

import contextvars
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest

from orders_api import migrator
from orders_api.admission import Caller, caller, in_flight
from orders_api.db import LAST_STATEMENT_S, Database, Statements, problem_of, statements
from orders_api.dev import EmbeddedPostgres
from orders_api.dev.local import new_jwt_key
from orders_api.errors import Problem
from orders_api.pool import ANSWER_S, conninfo_with_defaults
from orders_api.settings import Settings
from orders_api.sockets import readable
from tests import pooler
from tests.client import Client, assert_problem, plain_http
from tests.conftest import a_postgres
from tests.web.patient import PATIENCE
from tests.web.raw import at_once, blocked_by, get, patch, read, sent, wait_until

# Longer than any wait here, so that a test decides when a lock ends; the service's own is 1 s.
PATIENT = "&options=-c%20lock_timeout%3D4500"
CHECKOUT_S = 1.0
TOLERANCE_S = 1.6 if pooler.ON else 0.6  # who has a connection to a pooler may wait there too
WIDTH = 8
Connect = Callable[..., psycopg.Connection]


def patient(serve: Callable[..., Any], databases: Any, pool_size: int) -> Any:
    """A server with one worker whose statements wait for locks until the test lets go."""
    url = databases.migrated() + PATIENT
    return serve(database_url=url, WEB_CONCURRENCY="1", DATABASE_POOL_SIZE=str(pool_size))


@pytest.fixture(scope="module")
def narrow(serve_all: Callable[..., Any], databases: Any) -> Any:
    return patient(serve_all, databases, 1)


@pytest.fixture(scope="module")
def wide(serve_all: Callable[..., Any], databases: Any) -> Any:
    return patient(serve_all, databases, WIDTH)


def cancel(client: Client, path: str) -> bytes:
    return patch(path, f"Authorization: Bearer {client.access_token}", body=b'{"status": "cancelled"}')


def lock_orders(holder: psycopg.Connection) -> None:
    holder.execute("SELECT 1 FROM orders FOR UPDATE")


def backends(sql: psycopg.Connection) -> set[int]:
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND (application_name = 'orders-api' OR usename = %s)"
    )
    return {pid for (pid,) in sql.execute(query, [pooler.LOGIN])}


def all_there(sql: psycopg.Connection) -> bool:
    """Both workers' connections; a pooler decides itself how many it makes of them."""
    return len(backends(sql)) == 2 * WIDTH or (pooler.ON and bool(backends(sql)))


def terminate(sql: psycopg.Connection) -> None:
    """Ends every session of the service, and returns when they are gone."""
    gone = backends(sql)
    for pid in gone:
        sql.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_until(lambda: not gone & backends(sql))


def first_success_s(ask: Callable[[], httpx.Response], patience_s: float = 10) -> float:
    """Seconds until `ask` is answered with a 2xx."""
    start = time.monotonic()
    while not ask().is_success:
        assert time.monotonic() - start < patience_s, "it did not come back"
        time.sleep(0.02)
    return time.monotonic() - start


# Full


class Blocked(NamedTuple):
    """Carol's cancellation holds the only connection, and waits for the lock that `holder` has on her order."""

    carol: Client
    path: str
    holder: psycopg.Connection
    waiting: Any


@pytest.fixture
def other(narrow: Any) -> Iterator[Client]:
    """Somebody besides Carol. Asked for after `blocked` it could not log in."""
    client = Client(narrow.url).register().login()
    yield client
    client.close()


@pytest.fixture
def blocked(narrow: Any, connect: Connect) -> Iterator[Blocked]:
    sql, holder = connect(narrow), connect(narrow, autocommit=False)
    carol = Client(narrow.url).register().login()
    path = carol.place().headers["Location"]
    lock_orders(holder)
    with sent(narrow.port, [cancel(carol, path)]) as (waiting,):
        wait_until(lambda: blocked_by(sql, holder))
        yield Blocked(carol, path, holder, waiting)
    carol.close()


def test_who_gets_no_connection_is_told_after_a_second(other: Client, blocked: Blocked):
    start = time.monotonic()
    answer = other.get("/orders")
    took_s = time.monotonic() - start
    healthy = blocked.carol.get("/healthz")
    blocked.holder.rollback()

    assert read(blocked.waiting).status == 200
    assert_problem(answer, 503, "overloaded")
    assert answer.headers["Retry-After"] == "1"
    assert CHECKOUT_S - 0.2 <= took_s <= CHECKOUT_S + TOLERANCE_S
    assert healthy.status_code == 200
    assert blocked.carol.get(blocked.path).json()["status"] == "cancelled"


def test_the_queue_for_a_connection_is_bounded(narrow: Any, blocked: Blocked):
    start = time.monotonic()
    crowd = at_once(narrow.port, [get("/orders", f"Authorization: Bearer {blocked.carol.access_token}")] * 60)
    took_s = time.monotonic() - start
    blocked.holder.rollback()
    read(blocked.waiting)

    assert {(answer.status, answer.code) for answer in crowd} == {(503, "overloaded")}
    assert took_s <= CHECKOUT_S + 1


def test_a_lock_that_is_held_too_long_is_overload(server: Any, alice: Client, connect: Connect):
    """Without the patience of the other tests: the service's own bound of a second."""
    holder = connect(server, autocommit=False)
    path = alice.place().headers["Location"]
    holder.execute("SELECT 1 FROM orders WHERE user_id = %s FOR UPDATE", [alice.user_id])
    start = time.monotonic()
    answer = alice.patch(path, json={"status": "cancelled"})
    assert_problem(answer, 503, "overloaded")
    assert time.monotonic() - start < 2
    holder.rollback()
    assert alice.patch(path, json={"status": "cancelled"}).status_code == 200


def test_clients_gone_in_the_middle_leave_no_connection_behind(wide: Any, connect: Connect):
    server, size = wide, WIDTH
    sql, holder = connect(server), connect(server, autocommit=False)
    # A user has at most half of the places.
    carol, dave = (Client(server.url).register().login() for _ in range(2))
    wishes = [cancel(who, who.place().headers["Location"]) for who in [carol, dave] * (size // 2 + 1)]
    # What was cancelled already would not wait for its order the second time.
    first, wishes = wishes[:2], wishes[2:]

    lock_orders(holder)
    with sent(server.port, first * 25):
        wait_until(lambda: blocked_by(sql, holder) == size)
    holder.rollback()

    quiet = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orders-api' AND state <> 'idle'"
    wait_until(lambda: sql.execute(quiet + " AND datname = current_database()").fetchone() == (0,))
    # Every slot of the pool can be taken again, all of them at once.
    lock_orders(holder)
    with sent(server.port, wishes) as blocked:
        wait_until(lambda: blocked_by(sql, holder) == size)
        holder.rollback()
        assert [read(one).status for one in blocked] == [200] * size
    carol.close()
    dave.close()


# Gone


def test_terminated_backends_fail_no_request(server: Any, alice: Client, sql: psycopg.Connection):
    for attempt in range(3):
        wait_until(lambda: all_there(sql))
        terminate(sql)
        token = f"Authorization: Bearer {alice.access_token}"
        pages = [f"/orders?created_before=2100-01-01T00:00:00.{attempt}{page:02}Z" for page in range(30)]  # none cached
        crowd = at_once(server.port, [get(page, token) for page in pages])
        # They are all one user's: who waits too long for new connections is told so. A lost one would be another code.
        assert {answer.status for answer in crowd} - {503} == {200}
        assert {answer.code for answer in crowd if answer.status == 503} <= {"overloaded"}
        assert alice.place().status_code == 201


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that the test may stop."""
    with a_postgres() as postgres:
        migrator.migrate(postgres.start())
        pooler.make_login(postgres.url())
        yield postgres


def test_a_stopped_database_is_said_quickly_and_a_started_one_found(
    serve: Callable[..., Any], own_postgres: EmbeddedPostgres
):
    server = serve(database_url=own_postgres.url())
    carol = Client(server.url).register().login()
    kept = carol.place(key="before").json()["id"]

    own_postgres.stop()
    for _ in range(3):
        start = time.monotonic()
        answer = carol.place(key="during")
        assert_problem(answer, 503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert time.monotonic() - start < CHECKOUT_S + TOLERANCE_S
    assert carol.get("/healthz").status_code == 200
    assert_problem(carol.get("/readyz"), 503, "database_unavailable")
    crowd = at_once(server.port, [get("/readyz")] * 40)
    assert {(answer.status, answer.code) for answer in crowd} <= {(503, "database_unavailable"), (503, "overloaded")}

    own_postgres.start()
    assert first_success_s(lambda: carol.place(key="during")) <= 3
    assert carol.place(key="before").json()["id"] == kept
    assert first_success_s(lambda: carol.get("/readyz")) <= 3
    crowd = at_once(server.port, [get("/orders", f"Authorization: Bearer {carol.access_token}")] * 30)
    assert [answer.status for answer in crowd] == [200] * 30
    assert len(carol.get("/orders").json()["data"]) == 2
    carol.close()


def test_who_waits_for_a_stopped_database_keeps_no_cached_answer_from_anybody_and_hears_it_in_time(
    serve: Callable[..., Any], own_postgres: EmbeddedPostgres
):
    server = serve(database_url=own_postgres.url(), WEB_CONCURRENCY="1", DATABASE_POOL_SIZE=str(WIDTH), **PATIENCE)
    carol, dave = (Client(server.url).register().login() for _ in range(2))
    path = carol.place().headers["Location"]
    assert carol.get(path).status_code == 200
    asked = [get("/auth/me", f"Authorization: Bearer {one.access_token}") for one in (carol, dave)] * (WIDTH // 2)

    own_postgres.stop()
    with sent(server.port, asked) as first:
        time.sleep(CHECKOUT_S / 2)  # no event tells that they have waited for half of their time
        start = time.monotonic()
        with sent(server.port, asked) as second:
            answer = carol.get(path)
            cached_after_s = time.monotonic() - start
            refused = [read(one) for one in second]
            refused_after_s = time.monotonic() - start
        refused += [read(one) for one in first]

    assert {answer.status for answer in refused} == {503}
    assert (answer.status_code, cached_after_s < CHECKOUT_S / 2) == (200, True)  # when the first ones' time is up
    assert refused_after_s < 1.5 * CHECKOUT_S  # when that of the second ones would be, had they to wait for places
    for one in (carol, dave):
        one.close()


def test_a_connection_that_comes_when_there_is_no_place_to_come_back_to_is_kept(server: Any):
    settings = Settings.from_env({**server.env, "DATABASE_POOL_SIZE": "1"})
    database = Database()
    database.open(settings)
    held = database._pool.getconn()
    in_flight.open(1)
    outcome: list[str] = []

    def request() -> None:
        in_flight.enter(Caller())
        try:
            database.connect()
        except Problem as problem:
            outcome.append(problem.code)

    waiting = threading.Thread(target=request)
    waiting.start()
    wait_until(lambda: database.pool_statistics()["requests_waiting"] == 1)
    in_flight.admission.enter(Caller())  # the place that was left meanwhile
    database._pool.putconn(held)
    waiting.join()
    in_flight.open(0)

    assert outcome == ["overloaded"]
    assert database.pool_statistics()["pool_available"] == 1
    assert database.admission.in_use == 0
    database.shut()


def test_what_was_waited_for_a_place_counts_while_a_connection_is_made(server: Any):
    nowhere = "postgresql://127.0.0.1:1/orders"
    database = Database()
    database.open(Settings.from_env({**server.env, "DATABASE_URL": nowhere}))

    def waited_long() -> float:
        caller.set(Caller(waited_s=0.9 * CHECKOUT_S))
        start = time.monotonic()
        with pytest.raises(Problem, match="database_unavailable"):
            database.connect()
        return time.monotonic() - start

    assert contextvars.copy_context().run(waited_long) < CHECKOUT_S / 2
    database.shut()


def test_who_was_stopped_in_a_transaction_for_too_long_is_told_to_come_again(server: Any):
    with psycopg.connect(server.database_url, options="-c idle_in_transaction_session_timeout=100") as session:
        session.execute("SELECT 1")
        wait_until(lambda: readable(session.fileno()))
        with pytest.raises(psycopg.Error) as ended:
            session.execute("SELECT 1")
    assert problem_of(ended.value).code == "database_unavailable"


def test_a_frozen_database_keeps_nobody_for_longer_than_a_router_waits(
    serve: Callable[..., Any], own_postgres: EmbeddedPostgres
):
    """No timeout of its own can end what it began, and no connection breaks."""
    server = serve(database_url=own_postgres.url(), WEB_CONCURRENCY="1")
    carol = Client(server.url).register().login()
    carol.place(key="before")
    frozen = [own_postgres.process.pid, *children(own_postgres.process.pid)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        answer = carol.place(key="during")
        took_s = time.monotonic() - start
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)

    assert_problem(answer, 503, "database_unavailable")
    assert ANSWER_S - 0.5 < took_s < ANSWER_S + 5
    assert first_success_s(lambda: carol.place(key="during")) <= 5
    assert len(carol.get("/orders").json()["data"]) == 2
    carol.close()


def children(pid: int) -> list[int]:
    seen = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(child) for child in seen.stdout.split()]


def test_no_statement_begins_when_its_request_is_as_good_as_over(server: Any):
    database, spent = Database(), Statements()
    environ = {"ENVIRONMENT": "development", "DATABASE_URL": server.database_url, "JWT_KEYS": new_jwt_key()}
    database.open(Settings.from_env(environ))
    token = statements.set(spent)
    try:
        assert database.execute_sql("SELECT 1").fetchone() == (1,)
        spent.began -= LAST_STATEMENT_S
        with pytest.raises(Problem, match="overloaded"):
            database.execute_sql("SELECT 1")
    finally:
        statements.reset(token)
        database.shut()


def test_a_service_that_starts_before_its_database_finds_it(serve: Callable[..., Any], own_postgres: EmbeddedPostgres):
    own_postgres.stop()
    server = serve(database_url=own_postgres.url(), WEB_CONCURRENCY="1")
    http = plain_http(base_url=server.url)
    assert_problem(http.get("/readyz"), 503, "database_unavailable")
    own_postgres.start()
    assert first_success_s(lambda: http.get("/readyz")) <= 3
    http.close()


# Read-only


class ReadOnly:
    """A server whose database somebody switches to read-only, and back."""

    def __init__(self, server: Any) -> None:
        self.url = server.database_url
        self.sql = psycopg.connect(self.url, autocommit=True)
        self.carol = Client(server.url).register().login()
        self.name = self.sql.info.dbname

    def demote(self) -> None:
        self.sql.execute(f"ALTER DATABASE {self.name} SET default_transaction_read_only = on")
        terminate(self.sql)

    def promote(self) -> None:
        """The sessions that were opened meanwhile stay read-only."""
        self.sql.execute(f"ALTER DATABASE {self.name} RESET default_transaction_read_only")
        pooler.reconnect(self.url)

    def close(self) -> None:
        self.sql.close()
        self.carol.close()


@pytest.fixture(scope="module")
def switchable(serve_all: Callable[..., Any]) -> Iterator[ReadOnly]:
    one = ReadOnly(serve_all())
    yield one
    one.close()


@pytest.fixture
def demoted(switchable: ReadOnly) -> Iterator[ReadOnly]:
    switchable.demote()
    yield switchable
    switchable.promote()
    terminate(switchable.sql)


def test_a_read_only_database_is_unavailable_to_writes(demoted: ReadOnly):
    answer = demoted.carol.place()
    assert_problem(answer, 503, "database_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert_problem(demoted.carol.get("/readyz"), 503, "database_unavailable")
    assert demoted.carol.get("/orders").status_code == 200


def test_writes_find_the_database_writable_again(demoted: ReadOnly):
    assert_problem(demoted.carol.place(), 503, "database_unavailable")
    demoted.promote()
    assert first_success_s(demoted.carol.place) <= 3


def test_readiness_alone_finds_the_database_writable_again(demoted: ReadOnly):
    """No traffic comes to a host that is not ready, so that nothing else could."""
    for _ in range(20):
        assert_problem(demoted.carol.get("/readyz"), 503, "database_unavailable")
    demoted.promote()
    assert first_success_s(lambda: demoted.carol.get("/readyz")) <= 3


# Waiting


def test_statements_of_one_worker_wait_side_by_side(wide: Any, connect: Connect):
    """psycopg waits cooperatively: imported before gevent's patch, the first wait would stop the whole worker."""
    server = wide
    sql, holder = connect(server), connect(server, autocommit=False)
    carol, dave = (Client(server.url).register().login() for _ in range(2))
    wishes = [cancel(who, who.place().headers["Location"]) for who in [carol, dave] * (WIDTH // 2)]
    lock_orders(holder)

    with sent(server.port, wishes) as blocked:
        wait_until(lambda: blocked_by(sql, holder) == WIDTH)
        start = time.monotonic()
        assert carol.get("/healthz").status_code == 200
        assert time.monotonic() - start < 2
        holder.rollback()
        assert [read(one).status for one in blocked] == [200] * WIDTH
    carol.close()
    dave.close()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux who holds which socket")
def test_workers_share_no_socket_but_the_one_they_listen_on(server: Any):
    def sockets(pid: int) -> set[str]:
        links = (str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink())
        return {link for link in links if link.startswith("socket:")}

    first, second = server.worker_pids()
    listening = sockets(first) & sockets(second)
    assert len(listening) == 1
    assert listening <= sockets(server.process.pid)
    assert len(sockets(server.process.pid) & sockets(first)) == 1


@pytest.mark.skipif(pooler.ON, reason="a pooler decides itself how many sessions there are")
def test_each_worker_has_a_pool_of_its_own(sql: psycopg.Connection):
    wait_until(lambda: len(backends(sql)) == 2 * WIDTH)


def test_every_session_has_its_timeouts(server: Any, sql: psycopg.Connection):
    """The budget chain, in a connection made as the service makes them."""
    with psycopg.connect(conninfo_with_defaults(server.database_url), autocommit=True) as own:
        names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "timezone")
        shown = [own.execute(f"SHOW {name}").fetchone()[0] for name in names]
    assert shown == ["1s", "5s", "10s", "UTC"]
