"""`make load`: the acceptance profile at RATE requests a second for SECONDS. `make capacity`: the most it stands.

Fails when the 95th percentile reaches 200 ms, an answer is wrong, or the generator could not keep its plan.
"""

import json
import os
import signal
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orders_api.dev.children import spawn, stop
from perf import bench, figures
from perf.crowd import gather
from perf.generator import Crowd
from perf.record import RESULTS
from perf.stack import ROOT, Served, Stack

RATE = 100  # requests a second: what the service is accepted with
SECONDS = 60
WARM_UP_S = 5
POINT_S = 10  # of the search for the capacity
FIRST_RATE = 200
CLOSE_ENOUGH = 0.06  # of the rate
MAX_POINTS = 12
ROUNDS = 3
HELLO_S = 8


def main() -> int:
    capacity = sys.argv[1:] == ["capacity"]
    if capacity:
        bench.require("wrk")
    with Stack() as stack:
        served = stack.serve()
        return search(stack, served) if capacity else load(stack, served)


def load(stack: Stack, served: Served) -> int:
    rate, seconds = figures.given("RATE") or RATE, figures.given("SECONDS") or SECONDS
    print(f"{rate:g} requests a second for {seconds:g} s, after {WARM_UP_S} s to warm up", flush=True)
    busy = figures.busy_with_others()
    samples = _by_locust(stack, served, rate, seconds)
    lines = figures.rows(samples, seconds)
    wrong = [*figures.complaints(samples), *figures.missing(samples, rate * seconds)]
    print(figures.table(lines))
    print(f"The generator sent 99 % at most {figures.lag(samples) * 1000:.1f} ms late.")
    summary = {"rate": rate, "seconds": seconds, "passed": not wrong, "complaints": wrong, "operations": lines}
    kind = "load" if rate == RATE else f"load-{rate:g}"
    kept = figures.keep(
        kind, served.env, busy, {**summary, "generator_lag_p99_ms": round(figures.lag(samples) * 1000, 1)}
    )
    print(f"Kept in {kept.relative_to(ROOT)}; Locust's report is perf/results/load.html")
    return verdict(wrong)


def verdict(wrong: list[str]) -> int:
    for sentence in wrong:
        print(f"FAILED: {sentence}")
    print("Failed." if wrong else "Passed.")
    return bool(wrong)


def _by_locust(stack: Stack, served: Served, rate: float, seconds: float) -> list[Any]:
    """Locust in a process of its own: it patches what it is imported into, and the clock of the plan is its own."""
    crowd, file = gather(stack, served), stack.home / "samples.json"
    plan = {"HOST": "127.0.0.1", "PORT": str(served.port), "CROWD": str(crowd), "SAMPLES": str(file)}
    timing = {"RATE": str(rate), "SECONDS": str(seconds), "WARM_UP_S": str(WARM_UP_S)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    quiet = ["--headless", "--only-summary", "--users", "1", "--loglevel", "WARNING", "--exit-code-on-error", "0"]
    report = ["--html", str(RESULTS / "load.html"), "--csv", str(stack.home / "locust")]
    command = [sys.executable, "-m", "locust", "-f", "perf/locustfile.py", *quiet, *report]
    with (stack.home / "locust.log").open("wb") as log:
        locust = spawn(command, death_signal=signal.SIGTERM, cwd=ROOT, env={**os.environ, **plan, **timing}, output=log)
        try:
            code = locust.wait(seconds + WARM_UP_S + 60)
        finally:
            stop(locust, signal.SIGTERM, 5)
    if code or not file.exists():
        raise RuntimeError(f"Locust failed:\n{Path(log.name).read_text(errors='replace')}")
    return json.loads(file.read_text())


def search(stack: Stack, served: Served) -> int:
    """Three times over, beside bare Falcon each: what slows the machine for a minute should not decide alone."""
    busy = figures.busy_with_others()
    rounds = []
    for _ in range(ROUNDS):
        before = hello(stack)
        capacity, points = sustainable(Crowd(stack, served), POINT_S)
        bare = [before, hello(stack)]
        ratio = round(capacity / statistics.mean(bare), 3)
        print(figures.table(points))
        print(f"{capacity:g}/s, {ratio} of bare Falcon ({bare[0]:,.0f} before, {bare[1]:,.0f} after)", flush=True)
        rounds.append({"capacity": capacity, "hello": bare, "ratio": ratio, "points": points})
    medians = {figure: statistics.median(found[figure] for found in rounds) for figure in ("capacity", "ratio")}
    kept = figures.keep("capacity", served.env, busy, {**medians, "seconds_a_point": POINT_S, "rounds": rounds})
    print(f"The highest rate with p95 < {figures.MAX_P95_MS} ms and no failure: {medians['capacity']:g} a second,")
    print(f"{medians['ratio']} of bare Falcon; medians of {ROUNDS}. Kept in {kept.relative_to(ROOT)}")
    return 0 if medians["capacity"] else 1


def hello(stack: Stack) -> float:
    """Requests a second of bare Falcon on the same configuration."""
    bare = stack.serve("perf.hello:application")
    try:
        return bench.wrk(bare, "/hello", [bench.HELLO.script], HELLO_S)["rps"]
    finally:
        bare.stop()


def sustainable(
    crowd: Crowd, seconds: float, mix: Mapping[str, int] | None = None, burden: float = 0.0
) -> tuple[float, list[figures.Row]]:
    """The highest rate that passes, and all that were tried: doubles until one fails, then halves the distance."""
    crowd.send([(FIRST_RATE * 2, WARM_UP_S)], mix)
    points: list[figures.Row] = []
    low, high, rate = 0.0, 0.0, float(FIRST_RATE)  # `high` is 0 until a rate has failed
    while len(points) < MAX_POINTS and (not high or high - low > CLOSE_ENOUGH * high):
        points.append(_point(crowd, rate, seconds, mix, burden))
        low, high = (rate, high) if points[-1]["passed"] else (low, rate)
        rate = float(round((low + high) / 2 if high else low * 2))
    return low, points


def _point(crowd: Crowd, rate: float, seconds: float, mix: Mapping[str, int] | None, burden: float) -> figures.Row:
    """The first two seconds are not counted: the connections are being made."""
    samples = [sample for sample in crowd.send([(rate, 2 + seconds)], mix, burden).samples if sample[0] >= 2]
    wrong = figures.complaints(samples)
    point = {**figures.row("all", samples, seconds), "lag_p99_ms": round(figures.lag(samples) * 1000, 1)}
    point = {"asked": f"{rate:g}", "passed": not wrong, **point}
    del point["operation"]
    print(f"{rate:g}/s: p95 {point['p95_ms']} ms, " + ("passed" if not wrong else "; ".join(wrong)), flush=True)
    return point


if __name__ == "__main__":
    sys.exit(main())
