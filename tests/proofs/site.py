"""The service as production runs it, with each of its parts within reach of whoever wants to break it."""

import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from perf.stack import ROOT, Stack, seed_users, tokens
from tests.proofs.customer import User
from tests.web.raw import wait_until

WORKER_TIMEOUT_S = 4  # of its heartbeat: production has 30, which would be half of a run
PATIENCE_S = 15
BUSY = ("orders_requests_in_flight", "orders_database_pool_in_use")
SAFE = ("fsync", "full_page_writes", "synchronous_commit")


class Site:
    """PostgreSQL behind a proxy, memcached, and a gunicorn that is started again whenever it ends."""

    def __init__(self, app: str | None = None, **settings: str) -> None:
        self.stack = Stack()
        self.secret = secrets.token_bytes(32)
        self._app, self._settings = app, settings
        # They live as long as the stack: the kernel ends what a thread has started when that thread ends.
        self.hands = ThreadPoolExecutor()
        self._telling = threading.Lock()

    def __enter__(self) -> Self:
        self.stack.__enter__()
        try:
            self._start()
        except BaseException:
            self.stack.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.proxy.kill()
        self.proxy.wait()
        self.stack.__exit__(*error)
        self.hands.shutdown()

    def _start(self) -> None:
        self.address = self.stack.env["MEMCACHED_SERVERS"]
        self._must_be_safe()
        command = [sys.executable, "-m", "tests.proofs.proxy", str(self.stack.postgres.socket_dir / ".s.PGSQL.5432")]
        self.proxy = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        port = int(self._said())
        behind = {
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{port}/orders?sslmode=disable&gssencmode=disable",
            "WEBHOOK_SECRETS": f"whsec_{base64.b64encode(self.secret).decode()}",
            "GUNICORN_CMD_ARGS": f"--timeout={WORKER_TIMEOUT_S}",
            "METRICS_TOKEN": secrets.token_hex(16),
            "SERVER_TIMING": "1",
            "TRUSTED_PROXY_HOPS": "0",
            "RATE_LIMIT_IP": "1000000/minute",
            "RATE_LIMIT_USER": "1000000/minute",
        }
        self._settings = {**behind, **self._settings}
        self.served = self.stack.serve(self._app, **self._settings)

    def _must_be_safe(self) -> None:
        """What survives here would else not survive the loss of a machine's memory."""
        with self.sql() as connection:
            off = [name for name in SAFE if connection.execute(f"SHOW {name}").fetchone() != ("on",)]
        if off:
            raise RuntimeError(f"PostgreSQL runs with {', '.join(off)} off: nothing that is proven here would hold")

    def sql(self) -> psycopg.Connection[Any]:
        """A connection past the service and its proxy, which may write in any case, as soon as PostgreSQL takes it."""
        options, give_up = "-c default_transaction_read_only=off", time.monotonic() + PATIENCE_S
        while True:
            try:
                return psycopg.connect(self.stack.database_url, autocommit=True, options=options)
            except psycopg.OperationalError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)

    def users(self, count: int) -> list[User]:
        made = seed_users(self.stack.database_url, count)
        signed = zip(made, tokens(self.served, made), strict=True)
        return [User(str(user_id), token) for (user_id, _), token in signed]

    def places_taken(self) -> int:
        """Requests in flight and connections in use, in all workers; this question has none."""
        request = urllib.request.Request(f"{self.served.url}/metrics")
        request.add_header("Authorization", f"Bearer {self._settings['METRICS_TOKEN']}")
        with urllib.request.urlopen(request, timeout=5) as answer:
            shown = answer.read().decode()
        busy = [float(line.rsplit(" ", 1)[1]) for line in shown.splitlines() if line.startswith(BUSY)]
        return int(sum(busy))

    # The gunicorn.

    def workers(self) -> list[int]:
        return self.served.worker_pids()

    def restart(self) -> None:
        """As a supervisor does: when the old one has ended, on the same port."""
        self.served.process.send_signal(signal.SIGTERM)
        self.served.process.wait(PATIENCE_S * 2)
        self.served = self.stack.serve(self._app, **self._settings, PORT=str(self.served.port))

    def wait_for_workers(self, gone: set[int]) -> None:
        """Until there are as many as there should be, none of them among `gone`."""
        wanted = int(self.served.env["WEB_CONCURRENCY"])
        wait_until(lambda: len(pids := self.workers()) == wanted and not gone & set(pids), PATIENCE_S)

    # PostgreSQL.

    def command(self, word: str) -> None:
        """Tells the proxy; see there."""
        assert self.proxy.stdin
        with self._telling:  # else one lane could take the other's answer
            self.proxy.stdin.write(f"{word}\n".encode())
            self.proxy.stdin.flush()
            assert self._said() == word

    def _said(self) -> str:
        assert self.proxy.stdout
        return self.proxy.stdout.readline().decode().strip()

    def postgres_pids(self) -> list[int]:
        """The postmaster and all its children."""
        postmaster = self.stack.postgres.process.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        return [postmaster, *map(int, children.split())]

    @contextmanager
    def stopped(self, pids: list[int]) -> Iterator[None]:
        """They stand still for the block; what was born meanwhile does not."""
        signal_all(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            signal_all(pids, signal.SIGCONT)

    # memcached.

    def memcached_says(self, command: bytes) -> bytes:
        host, port = self.address.split(":")
        with socket.create_connection((host, int(port)), 2) as connection:
            connection.sendall(command + b"\r\n")
            return connection.recv(4096)


def signal_all(pids: list[int], signum: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
