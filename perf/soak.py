"""`make soak`: half of what the service sustains, for ten minutes. What it holds must stay the same.

From the environment: SECONDS (600), RATE (half of the last kept capacity, else of one that is searched first).

Which memory: a process's own, that is `Anonymous` and `Swap` of smaps_rollup. RSS and PSS hold pages of PostgreSQL's
shared buffers too, which each backend maps when it first touches them, until it has seen all: no leak, but growth.
Its own memory a backend fills with plans and catalogs in its first 400 requests (m: 2.9 MB, then 4.3 for good), so
that below 100 requests a second a minute is too short to warm all 16.
memcached is measured against its limit: to fill up to that is what it is for. gunicorn's max_requests is off, or it
would replace a worker, and with it whatever that had lost.
"""

import contextlib
import json
import statistics
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Self

import psycopg

from perf import figures
from perf.generator import Crowd
from perf.leftovers import complaints_of, held, settled
from perf.load import sustainable, verdict
from perf.processes import children, descriptors, memory_kb, title
from perf.record import RESULTS
from perf.stack import ROOT, Served, Stack

SECONDS = 600
SHARE = 0.5  # of the sustainable rate
WINDOWS = 10  # of the time: the second is compared with the last, so with SECONDS=600 minutes are
MOST_GROWTH = 0.05
EVERY_S = 1.0
WARM_UP_S = 5
POINT_S = 10  # of the search, where no capacity is kept
TOKEN = "soak-" * 4
POOL = ("orders_database_pool_connections", "orders_database_pool_waiting")
MEMCACHED_KB = 64 * 1024 * 1.25  # its default limit, and what it needs to keep the books of that much

Row = dict[str, Any]


def main() -> int:
    from perf.soak_chart import draw  # matplotlib is of another extra than the tests

    seconds = figures.given("SECONDS") or SECONDS
    busy = figures.busy_with_others()
    with Stack() as stack:
        served = stack.serve(METRICS_TOKEN=TOKEN, GUNICORN_CMD_ARGS="--max-requests 0")
        crowd = Crowd(stack, served)
        rate = figures.given("RATE") or round(SHARE * (_kept_capacity() or sustainable(crowd, POINT_S)[0]))
        print(f"{rate:g} requests a second for {seconds:g} s", flush=True)
        crowd.send([(rate, WARM_UP_S)])
        before = held(served)
        with crowd.sending([(rate, seconds)]) as sending, Watch(stack, served) as watch:
            sent = sending.wait()
        left = settled(served, before)
        watched = [row for row in watch.rows if sent.began <= row["at"] < sent.began + seconds]
        processes = growth(watched, sent.began, seconds)
        wrong = [
            *_of_the_load(sent.samples),
            *_of_the_processes(processes),
            *_of_the_pool(watched, sent.began, seconds),
        ]
        wrong += complaints_of(before, left)
        print(figures.table(processes))
        found = {"rate": rate, "seconds": seconds, "load": figures.row("all", sent.samples, seconds)}
        found |= {"processes": processes, "pool": _distinct(watched), "held_before": before, "held_afterwards": left}
        found |= {"passed": not wrong, "complaints": wrong}
        kept = figures.keep("soak", served.env, busy, found)
        draw(sent, watched, kept.with_suffix(".svg"), f"{rate:g} requests a second, {kept.stem}")
        print(f"Kept in {kept.relative_to(ROOT)}, with a chart beside it")
        return verdict(wrong)


def _kept_capacity() -> float:
    """Of the last `make capacity`; 0 if none is kept."""
    kept = [json.loads(path.read_text()) for path in RESULTS.glob("capacity-*.json")]
    return max(kept, key=lambda found: found["date"])["capacity"] if kept else 0.0


class Watch:
    """Looks at all processes, PostgreSQL's sessions and the pools' gauges, once a second while its block lasts."""

    def __init__(self, stack: Stack, served: Served) -> None:
        self.rows: list[Row] = []
        self._stack, self._served = stack, served
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        due = time.monotonic()
        with psycopg.connect(self._stack.database_url, autocommit=True) as connection:
            while not self._over.wait(max(0.0, due - time.monotonic())):
                self.rows.append({"at": time.monotonic(), **self._look(connection)})
                due = max(due + EVERY_S, time.monotonic())

    def _look(self, connection: psycopg.Connection) -> Row:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'orders-api'"
        (sessions,) = connection.execute(query).fetchone() or (0,)
        return {"processes": dict(self._processes()), "sessions": sessions, **self._gauges()}

    def _processes(self) -> Iterator[tuple[int, Row]]:
        master = self._served.process.pid
        names = {master: "master", **dict.fromkeys(children(master), "worker")}
        names[self._stack.memcached.process.pid] = "memcached"
        postgres = self._stack.postgres.process.pid
        names |= dict.fromkeys((postgres, *children(postgres)), "postgres")
        for pid, name in names.items():
            with contextlib.suppress(OSError):  # it has ended: autovacuum's come and go
                what = _role(title(pid)) if name == "postgres" else name
                yield pid, {"name": what, "files": descriptors(pid), **memory_kb(pid)}

    def _gauges(self) -> dict[str, float]:
        request = urllib.request.Request(  # noqa: S310  (our own address)
            f"{self._served.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            lines = [line.rpartition(" ") for line in answer.read().decode().splitlines() if line.startswith(POOL)]
        return {name.partition("{")[0]: float(value) for name, _, value in lines}


def _role(shown: str) -> str:
    """`postgres: orders_app orders [local] idle` and the like: what does not change of it."""
    words = shown.removeprefix("postgres: ").split()
    if not shown.startswith("postgres: "):
        return "postmaster"
    return "backend" if "[local]" in words or "idle" in words else " ".join(words[:2])


def growth(watched: list[Row], began: float, seconds: float) -> list[Row]:
    """Of each process that lived all the time: the medians of the second window and of the last."""
    window = seconds / WINDOWS
    early = _of(watched, began + window, began + 2 * window)
    late = _of(watched, began + seconds - window, began + seconds)
    return [_grown(pid, early[pid], late[pid]) for pid in early if pid in late]


def _of(watched: list[Row], begin: float, end: float) -> dict[int, list[Row]]:
    by_pid: dict[int, list[Row]] = defaultdict(list)
    for row in watched:
        if begin <= row["at"] < end:
            for pid, process in row["processes"].items():
                by_pid[pid].append(process)
    return by_pid


def _grown(pid: int, early: list[Row], late: list[Row]) -> Row:
    first, last = (statistics.median(process["own"] for process in rows) for rows in (early, late))
    shared = {f"{name}_kb": round(statistics.median(process[name] for process in late)) for name in ("pss", "rss")}
    return {
        "process": late[-1]["name"],
        "pid": pid,
        "own_kb_early": round(first),
        "own_kb_late": round(last),
        "growth": round(last / first - 1, 4) if first else 0.0,
        **shared,
        "files_early": max(process["files"] for process in early),
        "files_late": max(process["files"] for process in late),
    }


def _of_the_load(samples: list[Any]) -> list[str]:
    return [f"{count} times: {text}" for text, count in figures.outcomes(samples).items()]


def _of_the_processes(processes: list[Row]) -> list[str]:
    said = []
    for row in processes:
        who = f"{row['process']} {row['pid']}"
        if row["process"] == "memcached":
            if row["own_kb_late"] > MEMCACHED_KB:
                said.append(f"{who} holds {row['own_kb_late']} KB, more than its limit")
        elif row["growth"] >= MOST_GROWTH:
            said.append(f"{who} grew by {row['growth']:.1%} of {row['own_kb_early']} KB")
    names = [row["process"] for row in processes]
    if names.count("worker") < 2 or "master" not in names:
        said.append("a worker was replaced: what it held is unknown")
    return said


def _of_the_pool(watched: list[Row], began: float, seconds: float) -> list[str]:
    """Sessions and connections after the first window: one value each."""
    later = [row for row in watched if row["at"] >= began + seconds / WINDOWS]
    changing = {name: values for name, values in _distinct(later).items() if len(values) > 1 and name != POOL[1]}
    return [f"{name} was not constant: {', '.join(map(str, values))}" for name, values in changing.items()]


def _distinct(watched: list[Row]) -> dict[str, list[float]]:
    return {name: sorted({row[name] for row in watched}) for name in ("sessions", *POOL) if watched}


if __name__ == "__main__":
    sys.exit(main())
