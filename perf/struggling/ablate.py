"""`make ablate`: what each cure adds to those before it, under the profile that the service as found can't bear.

And the capacity: the most that 16 clients get answered, who each ask again at once.
"""

import sys
import time
from typing import Any

from perf.figures import table
from perf.record import circumstances, warn_if_busy, write_result
from perf.stack import ROOT
from perf.struggling import probes
from perf.struggling.load import PROFILE, Arrival, at_once, digest, schedule
from perf.struggling.machine import cpu_s, leave_on_signals, pinned_to
from perf.struggling.measure import database_seconds, run
from perf.struggling.site import Site
from perf.struggling.tree import CURES

CLIENTS = 16
FEW, ENOUGH_S = 100, 4.0  # requests to guess from; how long the capacity is taken
MOST = 6000


def main() -> int:
    leave_on_signals()
    warn_if_busy()
    told = circumstances()
    with Site(PROFILE["orders"]) as site:
        rate = PROFILE["load"] / database_seconds(site)
        seconds = PROFILE["warm_up_s"] + PROFILE["measured_s"] / 2
        arrivals = schedule(rate, seconds)
        alone = probes.buffers_by_status_alone(site)
        steps = [step("as found", site, arrivals)]
        for _ in CURES:
            name = site.cure()
            site.serve()  # each step begins with fresh workers
            steps.append(step(name, site, arrivals))
    print(table(steps))
    profile = {"hash": digest(arrivals), "rate": round(rate, 2), "seconds": seconds}
    document = {**told, "command": "make ablate", "profile": profile, "steps": steps}
    kept = write_result("ablation", document | {"buffers_by_status_alone": alone})
    print(f"Kept in {kept.relative_to(ROOT)}")
    return 0


def step(name: str, site: Site, arrivals: list[Arrival]) -> dict[str, Any]:
    measured = run(site.postgres, site.core, site.port, arrivals, site.request_of).figures
    capacity, cost = closed_loop(site)
    taken = {
        name: measured[name] for name in ("p50_ms", "p95_ms", "failed_percent", "database_cpu_percent", "hit_percent")
    }
    webhooks = probes.forged_webhooks(site)
    figures = {
        "with": name,
        **taken,
        "capacity": capacity,
        "database_ms": cost,
        "statements": probes.statements(site),
        "stampede_loads": probes.stampede(site)["loads"],
        "stuck_errors": probes.crowd(site)["errors"],
        "forged_refused": webhooks["refused"],
        "secrets": len([find for find in probes.scan(site) if "in the files" in find]),
        "others_percent": measured["others_on_the_core_percent"],
    }
    print(figures, flush=True)
    return figures


def closed_loop(site: Site) -> tuple[float, float]:
    """Answers a second, and milliseconds of the database's time an answer."""
    assert site.postgres.process
    count, took = FEW, 0.0
    with pinned_to(site.core):
        while took < ENOUGH_S / 2 and count <= MOST:
            requests = [site.request_of(arrival) for arrival in schedule(count / 10, 10)[:count]]
            begin, before = time.monotonic(), cpu_s(site.postgres.process.pid)
            answers = at_once(site.port, requests, CLIENTS)
            took, cost = time.monotonic() - begin, cpu_s(site.postgres.process.pid) - before
            good = sum(200 <= status < 300 for status, _, _ in answers)
            done, count = len(answers), int(max(2 * count, count * ENOUGH_S / took))
    return round(good / took, 1), round(1000 * cost / done, 2)


if __name__ == "__main__":
    sys.exit(main())
