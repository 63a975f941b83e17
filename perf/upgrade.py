"""`make upgrade`: an expanding migration, its way back, and a rolling restart, while the acceptance profile is sent.

The migrations are the service's own and those of perf/expansion behind them. From the environment: RATE (100), SECONDS
of load (120), ORDERS in the table (200000).
"""

import contextlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from orders_api import migrator
from perf import figures, seed
from perf.generator import Crowd, Sending
from perf.load import RATE, verdict
from perf.router import Router
from perf.stack import ROOT, STOP_S, Served, Stack

SECONDS, ORDERS = 120, 200_000
FIRST_S = 5  # of load, before anything happens
PAUSE_S = 3  # after each step: what it broke is its own
READER_S = 4
MAX_STALL_S = 1.0
EXPANSION = ROOT / "perf" / "expansion"
REPLACED_S = 40  # the workers' graceful timeout, and the start of new ones


class Step(NamedTuple):
    name: str
    began: float  # by time.monotonic()
    ended: float


class Upgrade:
    """What happens to the service, one step after the other."""

    def __init__(self, stack: Stack, served: Served, router: Router, folder: Path) -> None:
        self.steps: list[Step] = []
        self._stack, self._served, self._router, self._folder = stack, served, router, folder

    def run(self) -> None:
        with self._step("nothing"):
            time.sleep(FIRST_S)
        forward = sorted(path for path in EXPANSION.glob("*.sql") if not path.stem.endswith(".rollback"))
        for path in forward:
            for file in EXPANSION.glob(f"{path.stem}*"):
                shutil.copy(file, self._folder)
            with self._reader() if path is forward[0] else contextlib.nullcontext():
                self._take(f"migrate {path.stem}", lambda: migrator.migrate(self._stack.database_url, self._folder))
        for path in reversed(forward):
            self._take(f"roll back {path.stem}", lambda: migrator.rollback(self._stack.database_url, 1, self._folder))
        self._take("HUP", self._reload)
        self._take("TERM beside a second instance", self._replace)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[None]:
        """A report, say: it has read the table, and its transaction stays open for READER_S."""
        with psycopg.connect(self._stack.database_url) as connection:
            connection.execute("SELECT 1 FROM orders LIMIT 1")
            done = threading.Timer(READER_S, connection.commit)
            done.start()
            yield
            done.join()

    def _take(self, name: str, act: Callable[[], object]) -> None:
        with self._step(name):
            act()
            acted = time.monotonic()
            time.sleep(PAUSE_S)
        print(f"{name}: {acted - self.steps[-1].began:.1f} s", flush=True)

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.steps.append(Step(name, began, time.monotonic()))

    def _reload(self) -> None:
        """Returns when every worker is a new one."""
        old = set(self._served.worker_pids())
        self._served.process.send_signal(signal.SIGHUP)
        give_up = time.monotonic() + REPLACED_S
        while (pids := set(self._served.worker_pids())) & old or len(pids) < len(old):
            if time.monotonic() > give_up:
                raise RuntimeError(f"after {REPLACED_S} s the old workers still serve")
            time.sleep(0.1)

    def _replace(self) -> None:
        """As a platform does it: a second instance joins, the first gets no new connections, then SIGTERM."""
        old, new = self._served, self._stack.serve()
        self._router.targets = [old, new]
        time.sleep(PAUSE_S)
        self._router.targets = [new]
        time.sleep(0.5)  # what the router forwards at this moment
        old.process.send_signal(signal.SIGTERM)
        if old.process.wait(STOP_S):
            raise RuntimeError(f"the first instance ended with {old.process.returncode}")


def main() -> int:
    rate, seconds = figures.given("RATE") or RATE, figures.given("SECONDS") or SECONDS
    orders = int(os.environ.get("ORDERS") or ORDERS)
    busy = figures.busy_with_others()
    with Stack() as stack, _folder() as folder, contextlib.closing(Router()) as router:
        seed.seed(stack.database_url, orders=orders)
        served = stack.serve()
        router.targets = [served]
        upgrade = Upgrade(stack, served, router, folder)
        with Crowd(stack, served, router.port).sending([(rate, seconds)]) as sending:
            upgrade.run()
            wrong = _too_short(sending)
            sent = sending.wait()
        rows = [
            _row(step, [[sent.began + sample[0], *sample[1:]] for sample in sent.samples]) for step in upgrade.steps
        ]
        wrong += [f"{count} times: {text}" for text, count in figures.outcomes(sent.samples).items()]
        wrong += [complaint for row in rows for complaint in _complaints(row)]
        print(figures.table(rows))
        found = {"rate": rate, "seconds": seconds, "orders": orders, "requests": len(sent.samples), "steps": rows}
        kept = figures.keep("upgrade", served.env, busy, {"passed": not wrong, "complaints": wrong, **found})
        print(f"Kept in {kept.relative_to(ROOT)}")
        return verdict(wrong)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A copy of the service's migrations, to which more are added."""
    with tempfile.TemporaryDirectory(prefix="orders-migrations-") as home:
        folder = Path(home) / "migrations"
        shutil.copytree(migrator.MIGRATIONS, folder)
        yield folder


def _too_short(sending: Sending) -> list[str]:
    return ["the load was over before the last step: more SECONDS are needed"] if sending.over else []


def _row(step: Step, samples: Sequence[Sequence[Any]]) -> figures.Row:
    """`samples`: those of the whole plan, their times by time.monotonic()."""
    during = [sample for sample in samples if step.began <= sample[0] < step.ended]
    done = sorted(sample[0] + sample[3] for sample in samples)
    inside = [step.began, *(at for at in done if step.began <= at < step.ended), step.ended]
    stall = max(later - earlier for earlier, later in itertools.pairwise(inside))
    return {
        "step": step.name,
        "seconds": round(step.ended - step.began, 1),
        "requests": len(during),
        "failures": sum(sample[4] != "ok" for sample in during),
        "longest_without_answer_ms": round(stall * 1000),
        "longest_latency_ms": round(max((sample[3] for sample in during), default=0) * 1000),
    }


def _complaints(row: figures.Row) -> list[str]:
    stalls = {"nobody got an answer for": "longest_without_answer_ms", "a request took": "longest_latency_ms"}
    return [
        f"{row['step']}: {what} {row[figure]} ms; at most {MAX_STALL_S * 1000:.0f} are allowed"
        for what, figure in stalls.items()
        if row[figure] > MAX_STALL_S * 1000
    ]


if __name__ == "__main__":
    sys.exit(main())
