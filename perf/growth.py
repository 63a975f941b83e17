"""`make growth`: whether more orders make the service slower, and more requests make it larger.

From the environment: SIZES=10000,1000000,5000000 (orders), SAMPLES (300) of each figure and size, REQUESTS (1000000)
for the memory; ONLY=latency or ONLY=memory (then nothing is written).
"""

import http.client
import os
import random
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from orders_api import migrator
from orders_api.settings import Settings
from orders_api.values import format_time, parse_time
from orders_api.web.pagination import Cursors
from perf import seed
from perf.bench import LEAST_IF_UNCACHED, NO_LIMIT, Failed, Files, account, say, wrk
from perf.record import ROOT, circumstances, warn_if_busy, write_result
from perf.stack import Served, Stack, tokens

SIZES = "10000,1000000,5000000"
HOLDER = 1  # the user who holds every fifth order, see seed.A_FIFTH_TO_THE_FIRST
PAGE, DEEP_PAGE = 20, 1_000
MOST_SLOWER, MOST_LARGER = 1.3, 1.1
BYTES_AN_ORDER = 1_600  # with its items, its event, all indexes and the WAL of making them
WARM_UPS = 50
FAR_AHEAD = datetime(2099, 1, 1, tzinfo=UTC)
KEYS = 200_000  # distinct, of the requests for the memory
FIRST_REQUESTS = 10_000
CHUNK_S = 30  # of wrk, then fresh tokens
NEW_ORDER = orjson.dumps(
    {
        "currency": "EUR",
        "items": [
            {"sku": "lamp-1", "name": "Lamp", "quantity": 2, "unit_price_cents": 625},
            {"sku": "cable-3", "name": "Cable", "quantity": 1, "unit_price_cents": 790},
        ],
    }
)
FIGURES = ("page 1", "page 1,000", "read one", "create")


def main() -> None:
    only = os.environ.get("ONLY", "")
    sizes = [int(size) for size in os.environ.get("SIZES", SIZES).split(",")]
    if shutil.which("wrk") is None and only != "latency":
        sys.exit("make growth needs wrk on the PATH (Debian: apt-get install wrk).")
    needed = sum(sizes) * BYTES_AN_ORDER
    if only != "memory" and shutil.disk_usage("/tmp").free < needed:  # noqa: S108  (where Stack puts it)
        sys.exit(f"make growth needs {needed / 1e9:.0f} GB free in /tmp: make room, or set SIZES to smaller ones.")
    warn_if_busy()
    document = circumstances()
    try:
        if only != "memory":
            document["latency"] = latency(sizes, int(os.environ.get("SAMPLES", "300")))
            print("\n" + latency_table(document["latency"]))
        if only != "latency":
            document["memory"] = memory(int(os.environ.get("REQUESTS", "1000000")))
            print("\n" + memory_table(document["memory"]))
    except Failed as failure:
        sys.exit(f"make growth: {failure}")
    if not only:
        say(f"written: {write_result('growth', {**document, 'command': 'make growth'}).relative_to(ROOT)}")
    if not all(found["met"] for found in [*document.get("latency", []), document.get("memory", {"met": True})]):
        sys.exit("make growth: it grows more than is promised.")


class Size:
    """A database of a number of orders, the service on it, and one connection to that.

    Its memcached is its own: users, orders and requests have the same names in every size.
    """

    def __init__(self, stack: Stack, orders: int) -> None:
        self.orders = orders
        self.held = orders // 5
        self.deep_page = min(DEEP_PAGE, self.held // PAGE)
        self.database_url = make_conninfo(stack.database_url, dbname=f"size_{orders}")
        self._fill(stack)
        self.deep = self._position((self.deep_page - 1) * PAGE)
        self.served = stack.serve(
            DATABASE_URL=as_url(self.database_url),
            MEMCACHED_SERVERS=stack.start_memcached()[1],
            RATE_LIMIT_IP=NO_LIMIT,
            RATE_LIMIT_USER=NO_LIMIT,
            WEB_CONCURRENCY=1,
        )
        self.cursors = Cursors(Settings.from_env(self.served.env).cursor_keys)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=10)
        self.headers: dict[str, str] = {}
        self.count = 0
        self.begin = 0  # of the figure, in the log

    def get_ready(self) -> None:
        """For a figure. A token lives for 15 minutes: seeding the next size may take longer."""
        (token,) = tokens(self.served, [(seed.user_id(HOLDER), seed.session_id(HOLDER))])
        self.headers = {"Authorization": f"Bearer {token}"}
        self.begin = self.served.log_path.stat().st_size

    def check(self, figure: str) -> None:
        """Raises Failed when it was the cache that answered, or the log does not tell."""
        answers, statements = account(self.served.log_path, self.begin)
        if not answers or statements < LEAST_IF_UNCACHED * answers.total():
            cost = f"{statements} statements for {answers.total()} requests"
            raise Failed(f"{figure} of {self.orders:,} orders cost {cost}: it was not the database that answered")

    def measure(self, figure: str) -> float:
        """The milliseconds of one request that no cache can answer."""
        self.count += 1
        send = {"page 1": self._page, "page 1,000": self._deep_page, "read one": self._one, "create": self._create}
        request = send[figure]()
        start = time.perf_counter()
        self.connection.request(*request)
        answer = self.connection.getresponse()
        body = answer.read()
        spent_ms = (time.perf_counter() - start) * 1000
        if answer.status not in (200, 201):
            raise Failed(f"{figure} of {self.orders:,} orders answered {answer.status}: {body.decode()[:300]}")
        if "page" in figure and len(orjson.loads(body)["data"]) != PAGE:
            raise Failed(f"{figure} of {self.orders:,} orders is no full page")
        return spent_ms

    def _page(self) -> tuple[str, str, None, dict[str, str]]:
        return "GET", f"/orders?limit={PAGE}&created_before={self._bound()}", None, self.headers

    def _deep_page(self) -> tuple[str, str, None, dict[str, str]]:
        bound = self._bound()
        walk = self.cursors.walk(f"orders:{seed.user_id(HOLDER)}", None, {"created_before": parse_time(bound)})
        cursor = self.cursors.write(walk.scope, walk.hashes, self.deep)
        return "GET", f"/orders?limit={PAGE}&created_before={bound}&cursor={cursor}", None, self.headers

    def _one(self) -> tuple[str, str, None, dict[str, str]]:
        # A permutation of the numbers: no order comes twice while there are others. 7,919 is prime.
        number = 5 * (1 + self.count * 7_919 % self.held)
        return "GET", f"/orders/{seed.order_id(number)}", None, self.headers

    def _create(self) -> tuple[str, str, bytes, dict[str, str]]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"growth-{self.count}"}
        return "POST", "/orders", NEW_ORDER, {**self.headers, **headers}

    def _bound(self) -> str:
        """Another one each time: the same rows, a different request."""
        return format_time(FAR_AHEAD + timedelta(microseconds=self.count))

    def _position(self, skipped: int) -> tuple[Any, ...]:
        """Of the last order that a walk has seen after so many."""
        with psycopg.connect(self.database_url) as connection:
            found = connection.execute(
                "SELECT created_at, id FROM orders WHERE user_id = %s ORDER BY created_at DESC, id DESC"
                " OFFSET %s LIMIT 1",
                (seed.user_id(HOLDER), max(0, skipped - 1)),
            ).fetchone()
        assert found, "the holder has orders"
        return found

    def _fill(self, stack: Stack) -> None:
        say(f"seeding {self.orders:,} orders, {self.held:,} of them one user's …")
        begin = time.monotonic()
        with psycopg.connect(stack.database_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE size_{self.orders}")
        migrator.migrate(as_url(self.database_url))
        seed.seed(self.database_url, orders=self.orders, owner=seed.A_FIFTH_TO_THE_FIRST)
        say(f"… in {time.monotonic() - begin:.0f} s")


def latency(sizes: list[int], samples: int) -> list[dict[str, Any]]:
    """Sequential requests, the sizes in turns, so that what slows the machine for a moment slows all of them."""
    with Stack() as stack:
        filled = [Size(stack, orders) for orders in sizes]
        return [compare(figure, filled, samples) for figure in FIGURES]


def compare(figure: str, sizes: list[Size], samples: int) -> dict[str, Any]:
    for size in sizes:
        size.get_ready()
    times: dict[int, list[float]] = {size.orders: [] for size in sizes}
    for turn in range(WARM_UPS + samples):
        for size in random.sample(sizes, len(sizes)):
            spent_ms = size.measure(figure)
            if turn >= WARM_UPS:
                times[size.orders].append(spent_ms)
    for size in sizes:
        size.check(figure)
    p50_ms = {str(orders): round(statistics.median(values), 3) for orders, values in times.items()}
    ratio = round(max(p50_ms.values()) / min(p50_ms.values()), 3)
    deepest = {"page": {str(size.orders): size.deep_page for size in sizes}} if figure == "page 1,000" else {}
    return {"figure": figure, "p50_ms": p50_ms, "ratio": ratio, "met": ratio <= MOST_SLOWER, **deepest}


def latency_table(rows: list[dict[str, Any]]) -> str:
    sizes = [int(size) for size in rows[0]["p50_ms"]]
    lines = [f"{'p50 ms':<12}" + "".join(f"{size:>12,}" for size in sizes) + f"{'ratio':>8}  ≤ {MOST_SLOWER}"]
    for row in rows:
        values = "".join(f"{value:>12.2f}" for value in row["p50_ms"].values())
        lines.append(f"{row['figure']:<12}{values}{row['ratio']:>8.2f}  {'yes' if row['met'] else 'NO'}")
        if "page" in row and len(set(row["page"].values())) > 1:
            lines.append("  (the last full page where there are fewer: " + said(row["page"]) + ")")
    return "\n".join(lines)


def said(pages: dict[str, int]) -> str:
    return ", ".join(f"{page:,} of {int(size):,} orders" for size, page in pages.items())


def memory(requests: int) -> dict[str, Any]:
    """What one worker holds after 10,000 requests and after `requests`, over 200,000 distinct keys."""
    with Stack() as stack:
        say(f"seeding {KEYS:,} orders …")
        seed.seed(stack.database_url, orders=KEYS)
        files = Files(stack)
        # A single worker: gunicorn does not replace it (max_requests), whatever it holds.
        served = stack.serve(RATE_LIMIT_IP=NO_LIMIT, RATE_LIMIT_USER=NO_LIMIT, WEB_CONCURRENCY=1)
        pids = served.worker_pids()
        seen = list(watched(served, files, requests))
        if served.worker_pids() != pids:
            raise Failed("the worker was replaced: what it held is gone")
    first, last = seen[0], seen[-1]
    ratio = round(last["pss_kb"] / first["pss_kb"], 3)
    return {"samples": seen, "keys": KEYS, "ratio": ratio, "met": ratio < MOST_LARGER}


def watched(served: Served, files: Files, requests: int) -> Iterator[dict[str, int]]:
    """The memory after the first 10,000 requests, then after every tenth of the rest."""
    done = 0
    for goal in [FIRST_REQUESTS, *(requests * tenth // 10 for tenth in range(1, 11))]:
        if done >= goal:
            continue
        while done < goal:
            seconds = 2 if goal == FIRST_REQUESTS else CHUNK_S
            done += send(served, files, done, seconds)
        sample = {"requests": done, **memory_of(served.worker_pids())}
        say(f"{done:,} requests: {sample['pss_kb'] / 1024:.1f} MB")
        yield sample


def send(served: Served, files: Files, first: int, seconds: int) -> int:
    """Reads orders from the first-th on; returns how many answers there were."""
    files.write_tokens()
    begin = served.log_path.stat().st_size
    arguments = ["get.lua", str(files.tokens), str(files.stack.home / "one"), str(first)]
    wrk(served, "", arguments, seconds)
    answers, _ = account(served.log_path, begin)
    os.truncate(served.log_path, 0)  # opened to append: a million lines would be 400 MB
    return answers.total()


def memory_of(pids: list[int]) -> dict[str, int]:
    """PSS counts shared pages once; of kernels without it, RSS."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup") for pid in pids]
    text = "".join(rollup.read_text() for rollup in rollups if rollup.exists())
    return {"pss_kb": summed("Pss:", text), "rss_kb": summed("Rss:", text)}


def summed(name: str, text: str) -> int:
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def memory_table(found: dict[str, Any]) -> str:
    lines = [f"{'requests':>12}{'PSS MB':>10}{'RSS MB':>10}"]
    for sample in found["samples"]:
        lines.append(f"{sample['requests']:>12,}{sample['pss_kb'] / 1024:>10.1f}{sample['rss_kb'] / 1024:>10.1f}")
    verdict = "yes" if found["met"] else "NO"
    return "\n".join([*lines, f"last ÷ first {found['ratio']:.3f}  < {MOST_LARGER}  {verdict}"])


def as_url(conninfo: str) -> str:
    """What DATABASE_URL takes: the same parameters as a URL."""
    parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    return f"postgresql:///{parts.pop('dbname')}?{urlencode(parts)}"


if __name__ == "__main__":
    main()
