"""The real things: a PostgreSQL and a memcached for each process of the run, and gunicorn as production runs it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import psycopg
import pytest

from orders_api import migrator
from orders_api.dev import EmbeddedMemcached, EmbeddedPostgres
from orders_api.dev.children import spawn, stop
from orders_api.dev.local import new_jwt_key
from orders_api.dev.memcached import free_port
from tests import pooler
from tests.client import Client
from tests.web.patient import PATIENCE

hypothesis.settings.register_profile("shared machine", deadline=None)
# `pytest --hypothesis-profile=long`: twenty times as many examples.
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("shared machine")
ROOT = Path(__file__).parent.parent
START_S = 30
BASE_ENV = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
TEST_SETTINGS = {
    "ENVIRONMENT": "development",
    "WEB_CONCURRENCY": "2",
    "BCRYPT_ROUNDS": "4",
    "RATE_LIMIT_IP": "1000000/minute",
    "RATE_LIMIT_USER": "1000000/minute",
    "RATE_LIMIT_AUTH": "1000000/minute",
    "SERVER_TIMING": "1",
}


class Server:
    """A gunicorn through conf/gunicorn.conf.py, on a database of its own."""

    def __init__(self, settings: dict[str, str], database_url: str, memcached: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_url = database_url
        self.memcached = settings.get("MEMCACHED_SERVERS", memcached)
        own = {"PORT": str(self.port), "DATABASE_URL": pooler.through(database_url), "MEMCACHED_SERVERS": memcached}
        self.env = {**BASE_ENV, **TEST_SETTINGS, **pooler.SETTINGS, "JWT_KEYS": new_jwt_key(), **own, **settings}
        self._final_log = ""
        self._output = tempfile.NamedTemporaryFile(prefix="orders-api-log-")  # noqa: SIM115  (closed by stop)
        command = [sys.executable, "-m", "gunicorn", "-c", "conf/gunicorn.conf.py"]
        self.process = spawn(command, death_signal=signal.SIGTERM, cwd=ROOT, env=self.env, output=self._output.file)

    def wait_until_up(self) -> None:
        """All workers answer, not only the first: a test may count them."""
        give_up = time.monotonic() + START_S
        while len(self.worker_pids()) < int(self.env["WEB_CONCURRENCY"]) or not self._answers():
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError(f"gunicorn did not start:\n{self.log()}")
            time.sleep(0.05)

    def worker_pids(self) -> list[int]:
        """The children of the master, from the kernel."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        if children.exists():  # asked for often, while servers start: a process each time would cost more than they do
            return sorted(map(int, children.read_text().split()))
        seen = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return sorted(int(pid) for pid in seen.stdout.split())

    def log(self) -> str:
        return self._final_log or Path(self._output.name).read_text(errors="replace")

    def stop(self) -> None:
        stop(self.process, signal.SIGTERM, 27)
        self._final_log = self.log()
        self._output.close()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


class Databases:
    """Makes migrated databases in no time: copies of a template."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        with self.admin() as admin:
            if admin.execute("SELECT 1 FROM pg_database WHERE datname = 'migrated'").fetchone():
                return
            admin.execute("CREATE DATABASE migrated")
        migrator.migrate(postgres.url("migrated"))

    def admin(self) -> psycopg.Connection:
        return psycopg.connect(self._postgres.url("postgres"), autocommit=True)

    def empty(self) -> str:
        return self._create("template1")

    def migrated(self) -> str:
        return self._create("migrated")

    def _create(self, template: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        with self.admin() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self._postgres.url(name)


@contextmanager
def a_postgres(make: Callable[[Path], EmbeddedPostgres] | None = None) -> Iterator[EmbeddedPostgres]:
    """One that is not started yet, in a folder of its own; both are gone after the block. `make`: of another kind."""
    home = Path(tempfile.mkdtemp(prefix="orders-test-", dir="/tmp"))
    home.chmod(0o711)  # as root, PostgreSQL is `nobody` and has to walk through
    server = make(home) if make else EmbeddedPostgres(home / "data", home / "s", durable=False)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """The run's own; or, for many runs after each other, one that outlives them: TEST_POSTGRES is its folder."""
    if home := os.environ.get("TEST_POSTGRES"):
        yield EmbeddedPostgres(Path(home) / "data", Path(home) / "s", durable=False)
        return
    with a_postgres() as server:
        server.start()
        try:
            yield server
        finally:
            pooler.stop_all()


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Databases:
    return Databases(postgres)


@pytest.fixture(scope="session")
def memcached() -> Iterator[str]:
    """`host:port` of the run's memcached."""
    for _, address in running_memcached():
        yield address


def running_memcached() -> Iterator[tuple[EmbeddedMemcached, str]]:
    """A memcached and its `host:port`, stopped at the end."""
    memcached = EmbeddedMemcached()
    try:
        yield memcached, memcached.start()
    finally:
        memcached.stop()


@pytest.fixture(scope="session")
def server(databases: Databases, memcached: str) -> Iterator[Server]:
    """The server that most tests share: they tell their users apart, not their databases.

    Its memcached is never stopped, only late.
    """
    shared = Server(PATIENCE, databases.migrated(), memcached)
    try:
        shared.wait_until_up()
        yield shared
    finally:
        shared.stop()


@pytest.fixture
def serve(databases: Databases, memcached: str) -> Iterator[Callable[..., Server]]:
    """Starts servers with settings of their own: `serve(RATE_LIMIT_IP="3/minute")`; they end with the test.

    `database_url=`: an existing database, such as another server's; else a fresh one.
    """
    yield from serving(databases, memcached)


def serving(databases: Databases, memcached: str) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*, database_url: str | None = None, **settings: str) -> Server:
        one = Server(settings, database_url or databases.migrated(), settings.get("MEMCACHED_SERVERS", memcached))
        started.append(one)
        one.wait_until_up()
        return one

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def alice(server: Server) -> Iterator[Client]:
    yield from _logged_in(server)


@pytest.fixture
def bob(server: Server) -> Iterator[Client]:
    yield from _logged_in(server)


def _logged_in(server: Server) -> Iterator[Client]:
    client = Client(server.url)
    client.register().login()
    yield client
    client.close()


@pytest.fixture
def client_of() -> Iterator[Callable[[Server], Client]]:
    """A user of another server than the shared one."""
    clients: list[Client] = []

    def log_in(server: Server) -> Client:
        clients.append(Client(server.url).register().login())
        return clients[-1]

    yield log_in
    for client in clients:
        client.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., psycopg.Connection]]:
    """Opens connections that end with the test: `connect(server)` commits each statement."""
    opened: list[psycopg.Connection] = []

    def connection(server: Server, *, autocommit: bool = True) -> psycopg.Connection:
        opened.append(psycopg.connect(server.database_url, autocommit=autocommit))
        return opened[-1]

    yield connection
    for one in opened:
        one.close()


@pytest.fixture
def sql(server: Server) -> Iterator[psycopg.Connection]:
    """A connection to the shared server's database: each statement commits."""
    with psycopg.connect(server.database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def deliver() -> Iterator[Callable[[Server], subprocess.Popen[bytes]]]:
    """Starts `orders-api deliver` for a server; it ends with the test, however many were killed before."""
    started: list[subprocess.Popen[bytes]] = []

    def start(server: Server) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "orders_api", "deliver"]
        started.append(subprocess.Popen(command, cwd=ROOT, env=server.env, stdout=subprocess.DEVNULL))
        return started[-1]

    yield start
    for worker in started:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    for worker in started:
        # By SIGTERM where the test was over before the worker had begun.
        assert worker.wait(25) in (0, -signal.SIGKILL, -signal.SIGTERM)
