"""The profile against one service: what is meant by p95, database CPU, hit rate and 5xx, and how they are taken.

p95: of all requests whose intended time lies in the measured window, whatever their answer; the nearest rank.
Database CPU: user and system time of the postmaster and its children, reaped ones too, ÷ wall time of the window; 100 %
is the one core that it may use. Hit rate: of the reads in the window, those answered with `X-Cache: hit`.
5xx: the share of answers from 500 on in the window; no answer counts as one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from perf.figures import percentile
from perf.struggling.load import NO_ANSWER, PROFILE, Arrival, Request, Sample, at_once, schedule, send
from perf.struggling.machine import Meter, PinnedPostgres, cpu_s, pinned_to
from perf.struggling.site import Site

CALIBRATION = 200  # requests
AT_ONCE = 3


class Run(NamedTuple):
    samples: list[Sample]
    meter: Meter
    figures: dict[str, Any]


def database_seconds(site: Site) -> float:
    """What an average request of the profile costs the database of the service as found: a second ÷ this is its
    capacity, and others on the machine can't distort it."""
    assert site.postgres.process
    requests = [site.request_of(arrival) for arrival in schedule(CALIBRATION / 10, 10)[:CALIBRATION]]
    at_once(site.port, requests[:10], AT_ONCE)  # the workers' first requests, and the tables into memory
    before = cpu_s(site.postgres.process.pid)
    at_once(site.port, requests, AT_ONCE)
    return (cpu_s(site.postgres.process.pid) - before) / len(requests)


def run(
    postgres: PinnedPostgres,
    core: int,
    port: int,
    arrivals: Sequence[Arrival],
    request_of: Callable[[Arrival], Request],
) -> Run:
    """Warms up, then measures; the generator shares the application's core, never the database's."""
    with pinned_to(core), Meter(postgres) as meter:
        samples = send(port, arrivals, request_of)
    return Run(samples, meter, figures(samples, meter))


def figures(samples: Sequence[Sample], meter: Meter) -> dict[str, Any]:
    begin, end = PROFILE["warm_up_s"], PROFILE["warm_up_s"] + PROFILE["measured_s"]
    counted = [sample for sample in samples if begin <= sample.at < end]
    reads = [sample for sample in counted if sample.operation in ("list", "order")]
    failed = sum(sample.status >= 500 or sample.status == NO_ANSWER for sample in counted)
    return {
        "requests": len(counted),
        "p50_ms": round(percentile([sample.took * 1000 for sample in counted], 0.5), 1),
        "p95_ms": round(percentile([sample.took * 1000 for sample in counted], 0.95), 1),
        "failed_percent": round(100 * failed / len(counted), 2),
        "database_cpu_percent": round(100 * meter.share(begin, end), 1),
        "hit_percent": round(100 * sum(sample.cache == "hit" for sample in reads) / len(reads), 1),
        "refused": sum(400 <= sample.status < 500 for sample in counted),
        "generator_lag_p99_ms": round(percentile([sample.lag * 1000 for sample in counted], 0.99), 1),
        "others_on_the_core_percent": round(100 * meter.others(begin, end), 1),
    }
