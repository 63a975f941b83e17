"""A database on a processor core of its own, and what it costs: "database CPU" in percent of that core."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from orders_api.dev import EmbeddedPostgres

CONNECTIONS = 28  # 3 of them are kept for superusers: the service has 25
FIXED = {
    "max_connections": CONNECTIONS,
    "superuser_reserved_connections": 3,
    "shared_preload_libraries": "pg_stat_statements",
    "jit": "off",
    "max_parallel_workers_per_gather": 0,
    "shared_buffers": "256MB",
}
TICKS_S = os.sysconf("SC_CLK_TCK")


def cores() -> tuple[int, int]:
    """One for the database, one for all others; the same where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


class PinnedPostgres(EmbeddedPostgres):
    """On `core`, with the settings that make its load comparable; passwords are checked, but for the superuser."""

    def __init__(self, home: Path, core: int, durable: bool) -> None:
        super().__init__(home / "data", home / "s", durable=durable)
        self.core = core
        self.hba = home / "hba.conf"
        self.hba.write_text("local all postgres trust\nlocal all all scram-sha-256\n")

    def start(self) -> str:
        with pinned_to(self.core):  # children inherit it
            return super().start()

    def _flags(self) -> list[str]:
        own = {**FIXED, "hba_file": self.hba}
        return [*super()._flags(), *(word for name, value in own.items() for word in ("-c", f"{name}={value}"))]


@contextmanager
def pinned_to(core: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Meter:
    """What a PostgreSQL uses of its core, second by second, while the block runs."""

    def __init__(self, postgres: PinnedPostgres, every_s: float = 1.0) -> None:
        assert postgres.process
        self.points: list[tuple[float, float, float]] = []  # seconds, the database's share, others' share
        self._pid, self._core, self._every_s = postgres.process.pid, postgres.core, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Meter":
        self._begin = self._last = self._read()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def share(self, begin_s: float, end_s: float) -> float:
        """Of the core, by the database, between two times of the block."""
        return _mean([ours for at, ours, _ in self.points if begin_s < at <= end_s + self._every_s / 2])

    def others(self, begin_s: float, end_s: float) -> float:
        """Of the same core, by anybody else: what the measurement was disturbed by."""
        return _mean([others for at, _, others in self.points if begin_s < at <= end_s + self._every_s / 2])

    def _watch(self) -> None:
        due = self._begin[0]
        while not self._over.is_set():
            due += self._every_s
            self._over.wait(max(0.0, due - time.monotonic()))
            now = self._read()
            wall, ours, all_ = (new - old for new, old in zip(now, self._last, strict=True))
            self._last = now
            if wall > 0.2:
                at = round(now[0] - self._begin[0], 2)
                self.points.append((at, round(ours / wall, 3), round(max(0.0, all_ - ours) / wall, 3)))

    def _read(self) -> tuple[float, float, float]:
        return time.monotonic(), cpu_s(self._pid), _busy_s(self._core)


def cpu_s(postmaster: int) -> float:
    """User and system time of a postmaster and its children, of those it has reaped too."""
    ticks = sum(_stat(postmaster)[11:15])
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields and fields[1] == postmaster:
            ticks += sum(fields[11:15])
    return ticks / TICKS_S


def memory_mb(pids: list[int]) -> float:
    """Their own memory, and their part of what they share (PSS)."""
    kb = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kb += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return round(kb / 1024, 1)


def leave_on_signals() -> None:
    """SIGTERM unwinds what is open, as Ctrl-C does."""

    def leave(signum: int, _frame: Any) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)  # the end must not be interrupted: it leaves nothing behind
        raise SystemExit(128 + signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, leave)


class Held:
    """What is started in `_start`, and ends with the block, also when the start fails halfway."""

    def __enter__(self) -> Self:
        self._exits = ExitStack()
        try:
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _start(self) -> None:
        """Each thing that it starts goes to `self._exits`."""
        raise NotImplementedError


def _stat(pid: int) -> list[int]:
    """proc(5): the fields behind the name, from the state on (which is no number: 0)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [0, *(int(field) for field in fields[1:16])]


def _busy_s(core: int) -> float:
    """proc(5): user nice system idle iowait irq softirq steal, of one core."""
    line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    counts = [int(word) for word in line.split()[1:9]]
    return (sum(counts) - counts[3] - counts[4]) / TICKS_S


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
