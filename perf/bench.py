"""`make bench`: how the service compares with bare Falcon and with pgbench, measured in turns in the same run.

From the environment: ROUNDS (3), SECONDS a figure (8), ONLY=hello,cached_one (then nothing is written).
"""

import os
import random
import re
import secrets
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from perf import seed
from perf.record import ROOT, circumstances, warn_if_busy, write_result
from perf.stack import Served, Stack, tokens

ORDERS, USERS = 200_000, 1_000
CACHED_USERS = 100  # few enough that all they read is warm
CONNECTIONS = 32
POOLS = 16  # of both workers: as many connections as the service itself has
WARM_UP_S = 1
NO_LIMIT = "100000000/minute"  # one address sends it all; it is still counted
NEW_PER_ROUND = 60_000  # keys that a round does not share with the last one, whose answers may still be remembered
# What the service may have asked of its database: a cached answer is renewed, a session looked up, now and then.
MOST_IF_CACHED, LEAST_IF_UNCACHED = 0.01, 0.99


@dataclass(frozen=True)
class Target:
    """What is promised of a figure: its requests a second over those of `hello`, and of its SQL in pgbench."""

    hello: float
    pgbench: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True)
class Figure:
    """One thing to measure. `statements`: the bounds of what it may cost the database, a request."""

    name: str
    title: str
    script: str
    paths: str = ""
    statements: tuple[float, float] = (LEAST_IF_UNCACHED, 99)
    sql: str | None = None
    target: Target | None = None

    @property
    def cached(self) -> bool:
        return self.statements[1] == MOST_IF_CACHED


_CACHED = (0.0, MOST_IF_CACHED)
HELLO = Figure("hello", "bare Falcon", "hello.lua")
SERVICE = (
    Figure("cached_one", "GET one, cached", "get.lua", "cached_one", _CACHED, None, Target(0.40, p99_ms=50)),
    Figure("cached_list", "GET 20, cached", "get.lua", "cached_list", _CACHED, None, Target(0.40)),
    Figure("uncached_one", "GET one, uncached", "get.lua", "one", sql="read_one", target=Target(0.16)),
    Figure("uncached_list", "GET 20, uncached", "get.lua", "list", sql="list_20", target=Target(0.11)),
    Figure("items_list", "GET 20 with items, uncached", "get.lua", "items", target=Target(0.06)),
    Figure("post", "POST, 2 items", "post.lua", sql="create", target=Target(0.08, pgbench=0.20)),
)
SQL = ("read_one", "list_20", "create")


@dataclass
class Results:
    """`rounds[name]`: what each round gave."""

    rounds: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, name: str, measured: dict[str, Any]) -> None:
        self.rounds.setdefault(name, []).append(measured)

    def median(self, name: str, what: str = "rps") -> float | None:
        values = [measured[what] for measured in self.rounds.get(name, []) if what in measured]
        return statistics.median(values) if values else None

    def ratio(self, name: str, base: str) -> float | None:
        """The median of the rounds' own: what slows the machine for a minute slows both of a round."""
        pairs = zip(self.rounds.get(name, []), self.rounds.get(base, []), strict=False)
        ratios = [ours["rps"] / theirs["rps"] for ours, theirs in pairs]
        return statistics.median(ratios) if ratios else None


class Failed(Exception):  # noqa: N818
    """The run does not measure what it says it does."""


def main() -> None:
    require("wrk", "pgbench")
    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    known = [HELLO.name, *(figure.name for figure in SERVICE), *(f"pgbench_{name}" for name in SQL)]
    if unknown := set(only) - set(known):
        sys.exit(f"ONLY names {', '.join(sorted(unknown))}; there are {', '.join(known)}.")
    wanted = only or known
    rounds, seconds = int(os.environ.get("ROUNDS", "3")), int(os.environ.get("SECONDS", "8"))
    warn_if_busy()
    before = circumstances()
    try:
        results = measure(wanted, rounds, seconds)
    except Failed as failure:
        sys.exit(f"make bench: {failure}")
    rows = [row_of(figure, results) for figure in (HELLO, *SERVICE) if figure.name in wanted]
    print("\n" + table(rows, results))
    if not only:
        how = {"command": "make bench", "rounds": rounds, "seconds": seconds, "orders": ORDERS, "users": USERS}
        write(results, rows, {**before, **how})


def require(*tools: str) -> None:
    """Ends the program with what is to be installed."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        sys.exit(f"This needs {' and '.join(missing)} on the PATH (Debian: apt-get install wrk postgresql-contrib).")


def measure(wanted: list[str], rounds: int, seconds: int) -> Results:
    """Each round measures everything once, on servers of its own."""
    results = Results()
    with Stack() as stack:
        say(f"seeding {ORDERS:,} orders of {USERS:,} users …")
        seed.seed(stack.database_url, orders=ORDERS, users=USERS)
        files = Files(stack)
        for number in range(rounds):
            for name, measured in one_round(stack, files, wanted, number, seconds):
                results.add(name, measured)
                say(f"round {number + 1}: {name} {measured['rps']:,.0f} rps")
    return results


def one_round(
    stack: Stack, files: "Files", wanted: list[str], number: int, seconds: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Servers of its own: that of the last round may be about to be replaced (gunicorn's max_requests)."""
    files.write_tokens()
    hello = stack.serve("perf.hello:application")
    service = stack.serve(RATE_LIMIT_IP=NO_LIMIT, RATE_LIMIT_USER=NO_LIMIT)
    try:
        if HELLO.name in wanted:
            wrk(hello, "/hello", [HELLO.script], WARM_UP_S)
            yield HELLO.name, wrk(hello, "/hello", [HELLO.script], seconds)
        for figure in SERVICE:
            if figure.name in wanted:
                yield figure.name, measure_figure(service, files, figure, number, seconds)
            if figure.sql and f"pgbench_{figure.sql}" in wanted:
                yield f"pgbench_{figure.sql}", pgbench(stack.database_url, figure.sql, seconds)
    finally:
        service.stop()
        hello.stop()


def measure_figure(service: Served, files: "Files", figure: Figure, number: int, seconds: int) -> dict[str, Any]:
    """Warms up, measures, and checks by the service's own log that it was what it should be."""
    warmed = number * NEW_PER_ROUND
    first = warmed if figure.cached else warmed + NEW_PER_ROUND // 2
    begin = service.log_path.stat().st_size
    try:
        wrk(service, "", files.arguments(figure, warmed), WARM_UP_S)
        begin = service.log_path.stat().st_size
        measured = wrk(service, "", files.arguments(figure, first), seconds)
    except Failed as failure:
        answers, _ = account(service.log_path, begin)
        raise Failed(f"{figure.name}: {failure}; the service answered {dict(answers)}") from None
    measured["statements"] = cost(figure, *account(service.log_path, begin))
    return measured


def cost(figure: Figure, answers: Counter[str], statements: int) -> float:
    """Statements a request. Raises Failed when the figure would not be of what its name says."""
    if not answers:  # of none, each is 2xx, and a cached one asked nothing
        raise Failed(f"{figure.name}: the service's log tells of no request")
    if any(not answer.startswith("2") for answer in answers):
        raise Failed(f"{figure.name} got answers other than 2xx: {dict(answers)}")
    spent = round(statements / answers.total(), 4)
    low, high = figure.statements
    if not low <= spent <= high:
        raise Failed(f"{figure.name} cost {spent} statements a request instead of {low:g} to {high:g}")
    return spent


def account(log: Path, begin: int) -> tuple[Counter[str], int]:
    """The answers by their status (and code), and all statements, of the log from a position on."""
    answers: Counter[str] = Counter()
    statements = 0
    with log.open("rb") as lines:
        if begin:
            lines.seek(begin - 1)
            lines.readline()  # a line was perhaps being written
        for line in lines:
            if line.endswith(b"\n") and b'"event":"request"' in line:  # the last one is perhaps being written, too
                entry = orjson.loads(line)
                answers[f"{entry['status']} {entry['code'] or ''}".strip()] += 1
                statements += entry["statements"]
    return answers, statements


class Files:
    """What the Lua scripts read: each user's token, and for each kind of read its paths in the order of a cycle."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.users = [(seed.user_id(n), seed.session_id(n)) for n in range(1, USERS + 1)]
        self.tokens = stack.home / "tokens"
        pages = [(n, "/orders?limit=20") for n in range(USERS)]
        random.shuffle(pages)
        # An order's number says whose it is: see seed.EVENLY.
        ones = [(n % USERS, f"/orders/{seed.order_id(n)}") for n in range(1, ORDERS + 1)]
        random.shuffle(ones)
        self._write("cached_one", sorted(dict(ones).items())[:CACHED_USERS])
        self._write("cached_list", pages[:CACHED_USERS])
        self._write("one", ones)
        # Another bound in each request: never the same answer, always the same SQL.
        self._write("list", [(user, f"{path}&created_before=2099-01-01T00:00:00.{{n}}Z") for user, path in pages])
        self._write(
            "items", [(user, f"{path}&created_before=2099-01-01T00:00:00.{{n}}Z&include=items") for user, path in pages]
        )

    def write_tokens(self) -> None:
        """They live for 15 minutes: each round has its own."""
        self.tokens.write_text("".join(f"{token}\n" for token in tokens(self.stack, self.users)))

    def arguments(self, figure: Figure, first: int) -> list[str]:
        if figure.script == "post.lua":
            return [figure.script, str(self.tokens), str(secrets.randbelow(2**31))]
        return [figure.script, str(self.tokens), str(self.stack.home / figure.paths), str(first)]

    def _write(self, name: str, paths: list[tuple[int, str]]) -> None:
        (self.stack.home / name).write_text("".join(f"{user + 1}\t{path}\n" for user, path in paths))


def wrk(served: Served, path: str, arguments: list[str], seconds: int) -> dict[str, Any]:
    """Raises Failed when a request was refused, or its connection lost."""
    script, *rest = arguments
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "--timeout", "10s"]
    output = run([*command, "-s", f"perf/wrk/{script}", served.url + path, "--", *rest])
    found = re.search(r"^\{.*\}$", output, re.MULTILINE)
    if not found:
        raise Failed(f"wrk said: {output.strip()}")
    measured = orjson.loads(found[0])
    wrong = {name: measured.pop(name) for name in ("status", "connect", "read", "write", "timeout")}
    if any(wrong.values()):
        raise Failed(f"wrk met errors with {script}: {wrong}")
    return {"rps": round(measured["requests"] / measured["seconds"], 1), **measured}


def pgbench(database_url: str, name: str, seconds: int) -> dict[str, Any]:
    """The service's own SQL without the service, prepared as there, over as many connections as its pools have."""
    given = ["-D", f"orders={ORDERS}", "-D", f"users={USERS}", "-f", f"perf/pgbench/{name}.sql"]
    output = run(
        ["pgbench", "-n", "-M", "prepared", "-c", str(POOLS), "-j", "1", "-T", str(seconds), *given, database_url]
    )
    found = {
        "rps": re.search(r"^tps = ([\d.]+)", output, re.MULTILINE),
        "mean_ms": re.search(r"^latency average = ([\d.]+) ms", output, re.MULTILINE),
    }
    lost = re.search(r"^number of failed transactions: ([1-9]\d*)", output, re.MULTILINE)
    if lost or not all(found.values()):
        raise Failed(f"pgbench said of {name}: {output.strip()}")
    return {name: round(float(match[1]), 3) for name, match in found.items() if match}


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)  # noqa: S603
    if done.returncode:
        raise Failed(f"{command[0]} ended with {done.returncode}: {(done.stderr.strip() or done.stdout.strip())[:500]}")
    return done.stdout


@dataclass(frozen=True)
class Row:
    """A figure as it is reported. `met`: None where nothing is promised, or what it is compared with is missing."""

    name: str
    title: str
    rps: float | None
    p50_ms: float | None
    p99_ms: float | None
    by_hello: float | None
    by_pgbench: float | None
    target: dict[str, float]
    met: bool | None


def row_of(figure: Figure, results: Results) -> Row:
    by_hello = results.ratio(figure.name, HELLO.name)
    by_pgbench = results.ratio(figure.name, f"pgbench_{figure.sql}")
    p99_ms = results.median(figure.name, "p99_ms")
    return Row(
        figure.name,
        figure.title,
        results.median(figure.name),
        results.median(figure.name, "p50_ms"),
        p99_ms,
        by_hello,
        by_pgbench,
        {name: value for name, value in asdict(figure.target).items() if value is not None} if figure.target else {},
        is_met(figure.target, by_hello, by_pgbench, p99_ms),
    )


def is_met(
    target: Target | None, by_hello: float | None, by_pgbench: float | None, p99_ms: float | None
) -> bool | None:
    if target is None or by_hello is None or p99_ms is None or (target.pgbench and by_pgbench is None):
        return None
    return (
        by_hello >= target.hello
        and (target.pgbench is None or (by_pgbench or 0) >= target.pgbench)
        and (target.p99_ms is None or p99_ms < target.p99_ms)
    )


def table(rows: list[Row], results: Results) -> str:
    lines = [["figure", "rps", "p50/p99 ms", "÷ hello", "÷ pgbench", "target", "met?"]]
    for row in rows:
        both = f"{row.p50_ms:.1f}/{row.p99_ms:.1f}"
        ratios = [ratio_text(row.by_hello), ratio_text(row.by_pgbench)]
        lines.append([row.title, f"{row.rps:,.0f}", both, *ratios, target_text(row.target), met_text(row.met)])
    for name in SQL:
        rps = results.median(f"pgbench_{name}")
        if rps is not None:
            mean = f"mean {results.median(f'pgbench_{name}', 'mean_ms'):.1f}"
            by_hello = ratio_text(results.ratio(f"pgbench_{name}", HELLO.name))
            lines.append([f"pgbench {name}", f"{rps:,.0f}", mean, by_hello, "", "", ""])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at in (0, 5) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def target_text(target: Mapping[str, float]) -> str:
    words = {"hello": "≥ {:.2f} ÷ hello", "pgbench": "≥ {:.2f} ÷ pgbench", "p99_ms": "p99 < {:g} ms"}
    return ", ".join(words[name].format(value) for name, value in target.items())


def ratio_text(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"


def met_text(met: bool | None) -> str:
    return {None: "", True: "yes", False: "NO"}[met]


def write(results: Results, rows: list[Row], head: dict[str, Any]) -> None:
    from perf.chart import draw  # matplotlib takes a second to load: not for a quick look

    document = {**head, "figures": [asdict(row) for row in rows], "raw": results.rounds}
    path = write_result("bench", document)
    draw([asdict(row) for row in rows], path.with_suffix(".svg"), f"{document['date']}, {document['commit']}")
    say(f"written: {path.relative_to(ROOT)} and {path.with_suffix('.svg').name}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
