"""The service as production runs it, on services of its own: what everything in perf/ measures."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol, Self

import psycopg

from orders_api import migrator
from orders_api.accounts.tokens import AccessTokens
from orders_api.dev import EmbeddedMemcached, EmbeddedPostgres
from orders_api.dev.children import spawn, stop
from orders_api.dev.local import new_jwt_key
from orders_api.dev.memcached import free_port
from orders_api.settings import Settings
from orders_api.values import new_id, now

ROOT = Path(__file__).parent.parent
START_S = 30
STOP_S = 27  # gunicorn's own graceful_timeout is 25
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR")
PRODUCTION = {
    "ENVIRONMENT": "production",
    "WEB_CONCURRENCY": "2",
    "BCRYPT_ROUNDS": "10",  # the least that production takes: a login costs some 50 ms of a core
    "TRUSTED_PROXY_HOPS": "1",  # each client has an address of its own, as behind a proxy
}
NO_LOGIN = "$2b$10$" + "." * 53  # in the form of bcrypt, and the hash of nothing

User = tuple[uuid.UUID, uuid.UUID]  # (user_id, session_id)


class HasEnv(Protocol):
    env: dict[str, str]


class Stack:
    """A durable PostgreSQL, migrated, and a memcached; `serve` puts servers on them. All of it ends with the block,
    also by an exception, SIGINT, SIGTERM or SIGHUP."""

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self.database_url = ""
        self.home = Path()
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._take_signals()
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for signum in ENDS:
            signal.signal(signum, signal.SIG_IGN)  # the end must not be interrupted: it leaves nothing behind
        self._exits.close()

    def serve(self, app: str | None = None, **settings: object) -> "Served":
        """Starts gunicorn through conf/gunicorn.conf.py and waits until all its workers are up.

        `app`: another WSGI application ("perf.hello:application") under the same configuration.
        `settings`: what differs from PRODUCTION and the defaults. The port is new each time; the JWT keys stay.
        """
        port = settings.pop("PORT", None) or free_port()
        given = {name: str(value) for name, value in settings.items()}
        served = Served({**self.env, "PORT": str(port), **given}, app, self.home)
        self._exits.callback(served.stop)
        served.wait_until_up()
        return served

    def start_memcached(self) -> tuple[EmbeddedMemcached, str]:
        """One more, and its `host:port`: for a server that is to share nothing with the others."""
        memcached = EmbeddedMemcached()
        self._exits.callback(memcached.stop)
        return memcached, memcached.start()

    def _take_signals(self) -> None:
        """SIGTERM and SIGHUP unwind the block as SIGINT does."""
        for signum in ENDS:
            self._exits.callback(signal.signal, signum, signal.signal(signum, _leave))

    def _start(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="orders-perf-", dir="/tmp"))
        self._exits.callback(shutil.rmtree, self.home, ignore_errors=True)
        self.home.chmod(0o711)  # as root, PostgreSQL is `nobody` and has to walk through
        self.postgres = EmbeddedPostgres(self.home / "data", self.home / "s", durable=True)
        self._exits.callback(self.postgres.stop)
        self.database_url = self.postgres.start()
        migrator.migrate(self.database_url)
        self.memcached, cache = self.start_memcached()
        own = {"DATABASE_URL": self.database_url, "MEMCACHED_SERVERS": cache, "JWT_KEYS": new_jwt_key()}
        self.env = {**{name: os.environ[name] for name in PASSED_ON if name in os.environ}, **PRODUCTION, **own}


class Served:
    """One gunicorn, its settings (`env`) and its log (`log_path`)."""

    def __init__(self, env: dict[str, str], app: str | None, home: Path) -> None:
        self.env = env
        self.port = int(env["PORT"])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = home / f"gunicorn-{self.port}.log"
        command = [sys.executable, "-m", "gunicorn", "-c", "conf/gunicorn.conf.py", *([app] if app else [])]
        with self.log_path.open("ab") as log:
            self.process = spawn(command, death_signal=signal.SIGTERM, cwd=ROOT, env=env, output=log)

    def wait_until_up(self) -> None:
        give_up = time.monotonic() + START_S
        while len(self.worker_pids()) < int(self.env["WEB_CONCURRENCY"]) or not self._answers():
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"gunicorn did not start:\n{self.log()}")
            time.sleep(0.05)

    def worker_pids(self) -> list[int]:
        """The children of the master, from the kernel."""
        command = ["ps", "-o", "pid=", "--ppid", str(self.process.pid)]
        seen = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (a number)
        return sorted(int(pid) for pid in seen.stdout.split())

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        stop(self.process, signal.SIGTERM, STOP_S)

    def _answers(self) -> bool:
        """Whether anything speaks HTTP there: another application need not have /healthz."""
        try:
            urllib.request.urlopen(f"{self.url}/healthz", timeout=2).close()  # noqa: S310  (our own address)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True


def seed_users(conninfo: str, count: int) -> list[User]:
    """Makes users that are logged in, and can't log in again. Returns (user_id, session_id) of each."""
    users = [(new_id(), new_id()) for _ in range(count)]
    at = now()
    emails = [f"perf-{user_id.hex}@example.com" for user_id, _ in users]
    with psycopg.connect(conninfo) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY users (id, email, email_key, password_hash, created_at) FROM STDIN") as rows:
            for (user_id, _), email in zip(users, emails, strict=True):
                rows.write_row((user_id, email, email, NO_LOGIN, at))
        with cursor.copy("COPY feeds (user_id, last_sequence) FROM STDIN") as rows:
            for user_id, _ in users:
                rows.write_row((user_id, 0))
        with cursor.copy("COPY sessions (user_id, id, created_at) FROM STDIN") as rows:
            for user_id, session_id in users:
                rows.write_row((user_id, session_id, at))
    return users


def tokens(settings: HasEnv | Mapping[str, str], users: Sequence[User]) -> list[str]:
    """Access tokens (15 minutes) as the service itself signs them. `settings`: a Stack, a Served, or an environment."""
    env = settings if isinstance(settings, Mapping) else settings.env
    issuer = AccessTokens(Settings.from_env(env).jwt_keys)
    return [issuer.issue(user_id, session_id) for user_id, session_id in users]


def _leave(signum: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)
