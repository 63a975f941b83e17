"""The Procfile as a platform runs it: release, then web and worker, until SIGTERM comes to all of their processes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from orders_api import migrator
from orders_api.dev import EmbeddedPostgres
from orders_api.dev.local import new_jwt_key
from tests import pooler
from tests.client import LAMP, Client
from tests.conftest import BASE_ENV, ROOT, a_postgres, free_port
from tests.web.raw import post, read, wait_until

UP_S = 30
BIN = Path(sys.executable).parent


class Platform:
    """What a platform sets, and nothing else; honcho in its place."""

    def __init__(self, database_url: str, memcached: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.direct_url = database_url.replace("postgresql://", "postgres://")
        self.env = {
            **BASE_ENV,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PORT": str(self.port),
            "WEB_CONCURRENCY": "2",
            "MEMCACHED_SERVERS": memcached,
            "JWT_KEYS": new_jwt_key(),
            **pooler.SETTINGS,
        }

    def release(self) -> subprocess.CompletedProcess[str]:
        env = {**self.env, "DATABASE_URL": self.direct_url}
        return subprocess.run(self._honcho("release"), cwd=ROOT, env=env, capture_output=True, text=True, timeout=UP_S)

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        env = {**self.env, "DATABASE_URL": pooler.through(self.direct_url)}
        with log.open("wb") as output:
            return subprocess.Popen(
                self._honcho("web", "worker"), cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT
            )

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").json()["status"] == "ok"
        except httpx.TransportError:
            return False

    def accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    @staticmethod
    def _honcho(*processes: str) -> list[str | Path]:
        return [BIN / "honcho", "-e", os.devnull, "--no-colour", "start", *processes]


def processes(root: int) -> dict[int, str]:
    """Everything below a process, from the kernel: each with its command."""
    seen = subprocess.run(["ps", "-eww", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=2) for line in seen.stdout.splitlines()]
    found, before = {root}, 0
    while len(found) > before:
        before = len(found)
        found |= {int(pid) for pid, parent, _ in rows if int(parent) in found}
    return {int(pid): command for pid, _, command in rows if int(pid) in found}


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")


@pytest.fixture
def platform(memcached: str) -> Iterator[Platform]:
    """On a PostgreSQL that forgets nothing: production is ready on no other."""
    with a_postgres(lambda home: EmbeddedPostgres(home / "data", home / "s", durable=True)) as postgres:
        yield Platform(postgres.start(), memcached)


@pytest.fixture
def running(platform: Platform, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Web and worker of a database that is released."""
    platform.release()
    honcho = platform.start(tmp_path / "log")
    try:
        wait_until(platform.answers, UP_S)
        yield honcho
    finally:
        tree = processes(honcho.pid)
        if honcho.poll() is None:
            honcho.send_signal(signal.SIGTERM)
            honcho.wait(UP_S)
        print((tmp_path / "log").read_text())
        assert not [command for pid, command in tree.items() if alive(pid)]


def test_release_migrates_and_ends(platform: Platform):
    ended = platform.release()

    assert ended.returncode == 0, ended.stdout
    assert f"Applied {', '.join(migrator.all_ids())}" in ended.stdout
    with psycopg.connect(platform.direct_url) as sql:
        assert sql.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def test_web_and_worker_come_up_and_sigterm_finishes_what_is_in_flight(platform: Platform, running, tmp_path):
    carol = Client(platform.url).register().login()
    tree = processes(running.pid)
    commands = " ".join(tree.values())
    request = post(
        "/orders",
        f"Authorization: Bearer {carol.access_token}",
        "Idempotency-Key: in-flight",
        "Expect: 100-continue",
        body=httpx.Request("POST", "http://x", json=LAMP).content,
    )

    assert carol.place().status_code == 201
    carol.close()
    assert commands.count("gunicorn -c conf/gunicorn.conf.py") >= 3, commands  # a master and two workers
    assert "orders-api deliver" in commands
    with socket.create_connection(("127.0.0.1", platform.port), timeout=UP_S) as connection:
        connection.sendall(request[:-20])
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")  # a worker has begun to read it
        running.send_signal(signal.SIGTERM)
        wait_until(lambda: not platform.accepts(), UP_S)
        connection.sendall(request[-20:])
        answer = read(connection)
    running.wait(UP_S)

    assert answer.status == 201
    assert answer.headers["connection"] == "close"
    assert "SIGKILL" not in (tmp_path / "log").read_text()
    assert [command for pid, command in tree.items() if alive(pid)] == []
