"""`make diagnose`: the struggling service as it was found and cured, under the same profile, and our own beside it.

Ends with 1 when a gate fails, and with 2 when a symptom was not there to begin with: "not reproduced".
"""

import sys
from typing import Any

from perf.record import RESULTS, circumstances, warn_if_busy, write_result
from perf.stack import ROOT
from perf.struggling import charts, gates, probes
from perf.struggling.load import PROFILE, Arrival, digest, schedule
from perf.struggling.machine import CONNECTIONS, FIXED, leave_on_signals
from perf.struggling.measure import Run, database_seconds, run
from perf.struggling.ours import Ours
from perf.struggling.site import Site
from perf.struggling.tree import CURES

CODE_AND_INDEXES = 2  # the first cures; the memory of a service without an index would take minutes to fill


def main() -> int:
    leave_on_signals()
    warn_if_busy()
    told = circumstances()
    with Site(PROFILE["orders"]) as site:
        seconds = database_seconds(site)
        rate = PROFILE["load"] / seconds
        arrivals = schedule(rate)
        say(f"A request costs the database {seconds * 1000:.0f} ms: {rate:.1f} a second, profile {digest(arrivals)}")
        before = as_found(site, arrivals)
        after = cured(site, arrivals)
    with Ours() as ours:
        same = run(ours.postgres, ours.core, ours.port, arrivals, ours.request_of)
    say(f"orders-api: {same.figures}")
    rows = gates.judge(before, after)
    missing, failed = gates.complaints(rows, after)
    print(gates.table(rows, same.figures))
    profile = {
        "hash": digest(arrivals),
        "rate": round(rate, 2),
        "requests": len(arrivals),
        "database_ms_a_request": round(seconds * 1000, 1),
        "settings": PROFILE,
        "postgres": {name: str(value) for name, value in FIXED.items()},
        "connections_for_the_service": CONNECTIONS - 3,
    }
    document = {**told, "command": "make diagnose", "profile": profile, "before": before, "after": after}
    document |= {"ours": side(same), "not_reproduced": missing, "failed": failed}
    kept = write_result("diagnosis", document)
    page = charts.draw(document, gates.table(rows, same.figures), RESULTS / "diagnosis")
    print(f"Kept in {kept.relative_to(ROOT)}; charts: {page.relative_to(ROOT)}")
    return gates.verdict(missing, failed)


def as_found(site: Site, arrivals: list[Arrival]) -> dict[str, Any]:
    found = {**side(run(site.postgres, site.core, site.port, arrivals, site.request_of)), **questions(site)}
    say(f"As found: {found['load']}")
    found["secrets_in_the_tree"] = len(in_the_files(site))
    for _ in CURES[:CODE_AND_INDEXES]:
        site.cure()
    site.serve()  # fresh workers: their caches are empty
    found["memory"] = probes.memory(site)
    return found


def cured(site: Site, arrivals: list[Arrival]) -> dict[str, Any]:
    for _ in CURES[CODE_AND_INDEXES:]:
        say(f"Applied up to {site.cure()}")
    with site.admin() as admin:
        admin.execute("VACUUM ANALYZE")
        admin.execute("CHECKPOINT")
    found = {**side(run(site.postgres, site.core, site.port, arrivals, site.request_of)), **questions(site)}
    say(f"Cured: {found['load']}")
    found["memory"] = probes.memory(site)
    finds = probes.scan(site)
    found["secrets_in_the_tree"] = len([find for find in finds if "in the files" in find])
    found["ci"] = probes.gate(site, finds)
    found["rotation"] = probes.rotate(site)
    return found


def questions(site: Site) -> dict[str, Any]:
    return {
        "plans": probes.plans(site),
        "statements": probes.statements(site),
        "stampede": probes.stampede(site),
        "crowd": probes.crowd(site),
        "webhooks": probes.forged_webhooks(site),
    }


def in_the_files(site: Site) -> list[str]:
    return [find for find in probes.scan(site) if "in the files" in find]


def side(measured: Run) -> dict[str, Any]:
    """The figures, and what is drawn: the database's second by second, and each request as `seconds:milliseconds`."""
    took = " ".join(f"{sample.at:g}:{sample.took * 1000:.1f}" for sample in measured.samples)
    return {"load": measured.figures, "database": measured.meter.points, "latencies_ms": took}


def say(sentence: str) -> None:
    print(sentence, flush=True)


if __name__ == "__main__":
    sys.exit(main())
