"""What `make run` promises: `orders-api dev` in a folder of its own, as a person starts it."""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orders_api.dev import binaries
from tests.conftest import BASE_ENV, ROOT, free_port

UP_S = 60
DOWN_S = 40
EX_CONFIG = 78


class Run:
    """One `make run`: what it printed, and what it started."""

    def __init__(self, local: Path, settings: dict[str, str]) -> None:
        self.local = local
        self.port = int(settings.get("PORT") or 0) if settings.get("PORT", "0").isdigit() else 0
        self.text = ""
        env = {**BASE_ENV, "ORDERS_API_LOCAL": str(local), "BCRYPT_ROUNDS": "4", "WEB_CONCURRENCY": "1", **settings}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orders_api", "dev"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def wait_until_up(self) -> "Run":
        self._read_until(lambda: "'Idempotency-Key" in self.text or "Idempotency-Key: $(" in self.text)
        assert "is up" in self.text, self.text
        return self

    def wait_until_over(self) -> int:
        self._read_until(lambda: False)
        return self.process.wait(DOWN_S)

    def end(self, signum: signal.Signals) -> int:
        self.process.send_signal(signum)
        return self.wait_until_over()

    def commands(self) -> list[str]:
        """The lines to paste, each as it would be."""
        starts = r"((TOKEN|ORDER)=\$\()?curl |\.venv/bin/orders-api "
        return [line for line in self.text.splitlines() if re.match(starts, line)]

    def processes(self) -> set[int]:
        """Everything it started, from the kernel: children, and theirs."""
        seen = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        pairs = [tuple(map(int, line.split())) for line in seen.stdout.splitlines()]
        found, before = {self.process.pid}, 0
        while len(found) > before:
            before = len(found)
            found |= {pid for pid, parent in pairs if parent in found}
        return found - {self.process.pid}

    def close(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGTERM)
        self.process.stdout.close()

    def _read_until(self, enough: Callable[[], bool]) -> None:
        give_up = time.monotonic() + UP_S
        stream = self.process.stdout
        while not enough():
            assert time.monotonic() < give_up, self.text
            if select.select([stream], [], [], 0.2)[0]:
                chunk = os.read(stream.fileno(), 65536)
                if not chunk:
                    return
                self.text += chunk.decode(errors="replace")


Start = Callable[..., Run]


@pytest.fixture
def local() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="orders-run-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_run(local: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def start(**settings: str) -> Run:
        runs.append(Run(local, {"PORT": str(free_port()), **settings}))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


def paste(lines: list[str], local: Path) -> subprocess.CompletedProcess[str]:
    """What the lines print in another terminal of the same clone."""
    environ = {**os.environ, "ORDERS_API_LOCAL": str(local)}
    pasted = subprocess.run(
        ["bash", "-e"], input="\n".join(lines), env=environ, capture_output=True, text=True, check=False
    )
    assert pasted.returncode == 0, pasted.stderr
    return pasted


def test_the_printed_lines_work_when_pasted(make_run: Start, local: Path):
    run = make_run().wait_until_up()

    pasted = paste(run.commands(), local)

    assert len(run.commands()) == 5
    assert '"lamp-1"' in pasted.stdout, pasted.stdout
    assert pasted.stdout.count('"status":"paid"') == 1, pasted.stdout
    assert pasted.stdout.count('"demo":"true"') == 5, pasted.stdout


def test_a_second_start_takes_seconds_and_keeps_data_and_secrets(make_run: Start, local: Path):
    first = make_run().wait_until_up()
    paste(first.commands(), local)
    first.end(signal.SIGINT)
    secrets = (local / "secrets.env").read_text()

    began = time.monotonic()
    second = make_run().wait_until_up()
    took = time.monotonic() - began
    listed = paste(second.commands()[:2], local)

    assert took < 15  # 2 s alone on a machine; the bound leaves room for the other tests beside it
    assert listed.stdout.count('"total_cents"') == 6
    assert (local / "secrets.env").read_text() == secrets
    assert (local / "secrets.env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_process_behind(make_run: Start, signum: signal.Signals):
    run = make_run().wait_until_up()
    started = run.processes()

    code = run.end(signum)

    assert code == 0
    assert len(started) >= 4  # PostgreSQL and its own, memcached, gunicorn and its worker
    assert _alive(started) == set()


def test_after_a_kill_nothing_is_left_and_the_next_start_works(make_run: Start):
    run = make_run().wait_until_up()
    started = run.processes()
    run.end(signal.SIGKILL)

    again = make_run(PORT=str(run.port)).wait_until_up()

    assert "killed" in again.text
    if sys.platform.startswith("linux"):
        assert _alive(started) == set()


def test_a_child_that_dies_ends_the_run(make_run: Start):
    run = make_run().wait_until_up()
    started = run.processes()
    seen = subprocess.run(["ps", "-e", "-o", "pid=,comm="], capture_output=True, text=True, check=True).stdout
    memcached = [int(line.split()[0]) for line in seen.splitlines() if "memcached" in line]
    [ours] = set(memcached) & started
    os.kill(ours, signal.SIGKILL)

    assert run.wait_until_over() == 1
    assert "memcached ended by itself" in run.text
    assert _alive(started) == set()


def test_a_second_run_in_the_same_clone_says_that_one_is_on(make_run: Start):
    make_run().wait_until_up()

    second = make_run()

    assert second.wait_until_over() == 1
    assert "already running" in second.text
    assert "Traceback" not in second.text


def test_a_taken_port_is_named_with_the_cure(make_run: Start):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        run = make_run(PORT=str(port))

        assert run.wait_until_over() == 1
    assert re.search(rf"PORT {port} is taken .* PORT=\d+", run.text), run.text
    assert not (run.local / "postgres").exists()


def test_data_of_another_major_version_is_named_with_the_cure(make_run: Start, local: Path):
    (local / "postgres").mkdir()
    (local / "postgres" / "PG_VERSION").write_text("9\n")
    run = make_run()

    assert run.wait_until_over() == 1
    assert "made by PostgreSQL 9" in run.text
    assert "PG_BINDIR" in run.text
    assert "Traceback" not in run.text


def test_without_postgresql_programs_the_cure_is_named(make_run: Start, local: Path):
    run = make_run(PG_BINDIR=str(local))

    assert run.wait_until_over() == 1
    assert "PG_BINDIR" in run.text
    assert "Traceback" not in run.text


def test_those_who_start_at_once_share_one_copy_of_programs_that_nobody_else_may_reach(tmp_path: Path):
    bindir = tmp_path / "pginstall" / "bin"
    bindir.mkdir(parents=True)
    (bindir / "postgres").write_text("#!/bin/sh\necho postgres 15.1\n")
    (bindir / "postgres").chmod(0o700)
    for number in range(200):
        (bindir / f"extension-{number}").write_text("x" * 10_000)
    try:
        with ThreadPoolExecutor(4) as threads:
            copies = list(threads.map(lambda _: binaries.reachable_copy(bindir), range(4)))

        assert len(set(copies)) == 1
        assert len(list(copies[0].iterdir())) == 201
    finally:
        shutil.rmtree(binaries.shared_folder(bindir))


def test_without_memcached_one_worker_runs_with_a_warning(make_run: Start, local: Path):
    programs = local / "bin"
    programs.mkdir()
    for name in ("ps", "python3"):
        (programs / name).symlink_to(shutil.which(name) or name)
    run = make_run(PATH=str(programs), WEB_CONCURRENCY="4", **_where_postgres_is()).wait_until_up()

    assert "Warning: there is no memcached" in run.text
    assert run.text.count("Booting worker") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENVIRONMENT", "proof-value"),
        ("PORT", "proof-value"),
        ("WEB_CONCURRENCY", "proof-value"),
        ("DATABASE_URL", "mysql://proof-value"),
        ("MEMCACHED_SERVERS", "proof-value"),
        ("JWT_KEYS", "proof-value"),
        ("RATE_LIMIT_IP", "proof-value"),
        ("CORS_ORIGINS", "proof-value"),
    ],
)
def test_proof_22_a_malformed_setting_stops_the_start_with_one_sentence(make_run: Start, name: str, value: str):
    run = make_run(**{name: value})

    assert run.wait_until_over() == EX_CONFIG
    assert run.text.startswith(f"orders-api: {name} ")
    assert run.text.count("\n") == 1
    assert "proof-value" not in run.text


STRONG = {
    "ENVIRONMENT": "production",
    "DATABASE_URL": "postgresql:///nowhere?host=/nonexistent",
    "MEMCACHED_SERVERS": "127.0.0.1:1",
    "JWT_KEYS": "k:" + "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
    "BCRYPT_ROUNDS": "12",
}


@pytest.mark.parametrize(
    ("name", "weak"),
    [
        ("DATABASE_URL", ""),
        ("MEMCACHED_SERVERS", ""),
        ("JWT_KEYS", ""),
        ("JWT_KEYS", "k:c2hvcnQ"),
        ("JWT_KEYS", "k:" + "A" * 43),
        ("BCRYPT_ROUNDS", "9"),
        ("WEBHOOK_SECRETS", "whsec_c2hvcnQ="),
    ],
)
def test_proof_22_production_refuses_weak_settings(make_run: Start, name: str, weak: str):
    run = make_run(**{**STRONG, name: weak})

    assert run.wait_until_over() == EX_CONFIG
    assert run.text.startswith(f"orders-api: {name} ")
    assert not list(run.local.glob("secrets*"))
    assert not (run.local / "postgres").exists()


def test_proof_22_gunicorn_itself_refuses_them_too():
    env = {**BASE_ENV, **STRONG, "BCRYPT_ROUNDS": "9"}
    started = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "conf/gunicorn.conf.py"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert started.returncode == EX_CONFIG
    assert started.stderr.startswith("orders-api: BCRYPT_ROUNDS ")
    assert "Traceback" not in started.stderr


def _alive(pids: set[int]) -> set[int]:
    """Which of them still run, after a moment for the kernel's messengers."""
    give_up = time.monotonic() + 10
    while (left := {pid for pid in pids if _is_alive(pid)}) and time.monotonic() < give_up:
        time.sleep(0.05)
    return left


def _is_alive(pid: int) -> bool:
    """Not a zombie: whoever inherits an orphan may be slow to reap it."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


def _where_postgres_is() -> dict[str, str]:
    return {"PG_BINDIR": str(binaries.find_postgres(os.environ))}
