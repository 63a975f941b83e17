"""`make storm`: three times what the service sustains, then half of it. Overload has to cost the excess, and only that.

RATE is what it sustains, in requests a second; without it, it is searched first.

The accepted are of another mix than the sent: mostly writes, which are worth most and cost most. So the peak that their
throughput is compared with is searched after each storm, with that mix and no excess, the sending still taking as much
of the shared processors (perf/burden.py). Past it, a few refused, still more is accepted: the most is told too, and
nothing is promised of it. The machine may be a quarter slower a minute later: p95 and throughput are medians of ROUNDS
storms with a peak each; all else holds in every one.
"""

import statistics
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from perf import figures
from perf.generator import Crowd, Sent
from perf.load import sustainable, verdict
from perf.stack import ROOT, Stack

ROUNDS = 3
WARM_UP_S, STORM_S, AFTER_S = 5, 20, 10
EXCESS, REST = 3, 0.5  # of the sustainable rate
RECOVERY_S = 5
SEARCH_POINT_S = 6

MAX_ACCEPTED_P95_MS = 300
MAX_SHED_S = 1.1  # a second for a place, and the way there and back
MIN_THROUGHPUT = 0.8  # of the peak
PROBE_EVERY_S = 0.25
MAX_PROBE_S = 1
CLASSES = {  # the first is shed first
    "lists": ("list", "list with items"),
    "reads": ("order",),
    "creates": ("create",),
    "changes": ("change", "cancel"),
    "logins": ("login",),
}

Samples = Sequence[Sequence[Any]]  # perf.traffic.Sample as lists: at, operation, lag, took, outcome, size


def main() -> int:
    with Stack() as stack:
        served = stack.serve()
        crowd = Crowd(stack, served)
        busy = figures.busy_with_others()
        rate = figures.given("RATE") or sustainable(crowd, SEARCH_POINT_S)[0]
        if not rate:
            return verdict(["no rate is sustainable, so there is nothing to exceed"])
        rounds = [weather(crowd, served.url, rate) for _ in range(ROUNDS)]
        reports = [one.report(rate) for one in rounds]
        wrong = complaints(rounds)
        summary = {"sustainable": rate, "passed": not wrong, "complaints": wrong, **medians(rounds), "rounds": reports}
        for name, value in medians(rounds).items():
            print(f"median {name.replace('_', ' ')}: {value}")
        print(f"Kept in {figures.keep('storm', served.env, busy, summary).relative_to(ROOT)}")
        return verdict(wrong)


def weather(crowd: Crowd, url: str, rate: float) -> "Round":
    """One storm, and the peak of what was accepted in it."""
    print(f"Sustainable: {rate:g} requests a second; the storm: {EXCESS * rate:g} for {STORM_S} s", flush=True)
    with Probes(url) as probes:
        sent = crowd.send([(rate * REST, WARM_UP_S), (rate * EXCESS, STORM_S), (rate * REST, AFTER_S)])
    mix = Counter(sample[1] for sample in accepted(during(sent.samples)))
    print(f"The peak of what was accepted ({', '.join(f'{n} x {name}' for name, n in mix.most_common())}):")
    sending = sent.cpu_s[1] / STORM_S
    one = Round(sent, probes, mix, sending, *sustainable(crowd, SEARCH_POINT_S, mix, sending))
    _show(one.report(rate))
    return one


class Probes:
    """/healthz and /readyz, as a platform asks: at fixed times, each on a new connection."""

    def __init__(self, url: str) -> None:
        self.took: list[float] = []  # seconds
        self.failures: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._probe, args=(url + path,)) for path in ("/healthz", "/readyz")]

    def __enter__(self) -> "Probes":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _probe(self, url: str) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            begin = time.monotonic()
            why = _unhealthy(url)
            took = time.monotonic() - begin
            self.took.append(took)
            if why or took > MAX_PROBE_S:
                self.failures.append(f"{url.rsplit('/', 1)[1]}: {why or f'{took:.2f} s'}")
            due = max(due + PROBE_EVERY_S, time.monotonic())


def _unhealthy(url: str) -> str:
    """Why the answer is no 200, or nothing."""
    try:
        urllib.request.urlopen(url, timeout=5 * MAX_PROBE_S).close()  # noqa: S310  (our own address)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except (OSError, HTTPException) as error:  # HTTPException: what came is no HTTP
        return type(error).__name__
    return ""


def during(samples: Samples) -> Samples:
    return [sample for sample in samples if WARM_UP_S <= sample[0] < WARM_UP_S + STORM_S]


def after(samples: Samples) -> Samples:
    return [sample for sample in samples if sample[0] >= WARM_UP_S + STORM_S]


def accepted(samples: Samples) -> Samples:
    return [sample for sample in samples if sample[4] == "ok"]


def shed(samples: Samples) -> Samples:
    return [sample for sample in samples if sample[4] == "shed"]


@dataclass
class Round:
    sent: Sent
    probes: Probes
    mix: Counter[str]  # of the accepted, by operation
    sending: float  # what it took of a processor
    peak: float  # requests a second of that mix, all of them accepted
    points: list[figures.Row]  # of the search for it

    @property
    def storm(self) -> Samples:
        return during(self.sent.samples)

    @property
    def most(self) -> float:
        """What was accepted of that mix at the rate of which that was most, in requests a second."""
        return max(point["rate"] * (1 - point["failures"] / point["requests"]) for point in self.points)

    @property
    def p95_ms(self) -> float:
        return figures.percentile([sample[3] * 1000 for sample in accepted(self.storm)], 0.95)

    @property
    def share(self) -> float:
        """What was accepted, of the peak."""
        return len(accepted(self.storm)) / STORM_S / self.peak if self.peak else 0.0

    @property
    def share_of_most(self) -> float:
        return len(accepted(self.storm)) / STORM_S / self.most

    def report(self, rate: float) -> dict[str, Any]:
        samples, storm, probes = self.sent.samples, self.storm, self.probes
        return {
            "accepted": figures.row("accepted", accepted(storm), STORM_S),
            "shed": figures.row("shed", shed(storm), STORM_S) | {"failures": 0},  # as it should be
            "afterwards": figures.row("afterwards", after(samples), AFTER_S),
            "accepted_share_of_sustainable": round(len(accepted(storm)) / STORM_S / rate, 3),
            "sending_took": round(self.sending, 3),
            "peak_of_this_mix": self.peak,
            "accepted_share_of_peak": round(self.share, 3),
            "most_accepted_of_this_mix": round(self.most, 1),
            "accepted_share_of_most": round(self.share_of_most, 3),
            "searched": self.points,
            "shed_shares": {name: round(share, 3) for name, share in shed_shares(storm).items()},
            "other_outcomes": {text: n for text, n in figures.outcomes(samples).items() if text != "shed"},
            "recovered_after_s": round(recovered_after(samples), 2),
            "probes": len(probes.took),
            "probes_failed": len(probes.failures),
            "probe_max_ms": round(max(probes.took, default=0) * 1000),
            "generator_lag_p99_ms": round(figures.lag(storm) * 1000, 1),
            "connections": self.sent.connections,
            "waited": self.sent.waited,
            "accepted_mix": dict(self.mix),
        }


def medians(rounds: Sequence[Round]) -> dict[str, float]:
    return {
        "accepted_p95_ms": round(statistics.median(one.p95_ms for one in rounds), 1),
        "accepted_share_of_peak": round(statistics.median(one.share for one in rounds), 3),
        "accepted_share_of_most": round(statistics.median(one.share_of_most for one in rounds), 3),
    }


def shed_shares(storm: Samples) -> dict[str, float]:
    shares = {}
    for name, operations in CLASSES.items():
        of_class = [sample for sample in storm if sample[1] in operations]
        shares[name] = len(shed(of_class)) / max(1, len(of_class))
    return shares


def recovered_after(samples: Samples) -> float:
    """Seconds from the storm's end to the last request that was refused, wrong or slow."""
    limit = figures.MAX_P95_MS / 1000
    bad = [sample[0] for sample in after(samples) if sample[4] != "ok" or sample[3] >= limit]
    return max(bad, default=WARM_UP_S + STORM_S) - WARM_UP_S - STORM_S


def complaints(rounds: Sequence[Round]) -> list[str]:
    """Every promise that was not kept, in one sentence each."""
    found = medians(rounds)
    said = _of_the_accepted(found["accepted_p95_ms"], found["accepted_share_of_peak"])
    for number, one in enumerate(rounds, 1):
        each = [*_of_the_others(one.sent.samples), *_of_the_end(one.sent.samples, one.probes)]
        said += [f"storm {number}: {sentence}" for sentence in each]
    return said


def _of_the_accepted(accepted_p95_ms: float, accepted_share_of_peak: float) -> list[str]:
    said = []
    if accepted_p95_ms >= MAX_ACCEPTED_P95_MS:
        said.append(f"p95 of the accepted is {accepted_p95_ms:.0f} ms; it has to stay below {MAX_ACCEPTED_P95_MS}")
    if accepted_share_of_peak < MIN_THROUGHPUT:
        said.append(f"{accepted_share_of_peak:.1%} of the peak were accepted; {MIN_THROUGHPUT:.0%} should be")
    return said


def _of_the_others(samples: Samples) -> list[str]:
    said = [f"{count} times: {text}" for text, count in figures.outcomes(samples).items() if text != "shed"]
    late = [sample[3] for sample in shed(samples) if sample[3] > MAX_SHED_S]
    if late:
        said.append(f"{len(late)} were refused later than after {MAX_SHED_S} s, one after {max(late):.1f}")
    if (lag := figures.lag(during(samples))) > figures.MAX_LAG_S:
        said.append(f"the generator fell behind: 1 % was sent {lag * 1000:.0f} ms late or more")
    shares = shed_shares(during(samples))
    if not shares["lists"] > shares["reads"] > shares["creates"]:
        said.append("lists are not shed before reads, and reads before creates")
    return said


def _of_the_end(samples: Samples, probes: Probes) -> list[str]:
    said = []
    later = [sample for sample in after(samples) if sample[0] >= WARM_UP_S + STORM_S + RECOVERY_S]
    p95 = figures.percentile([sample[3] * 1000 for sample in later], 0.95)
    if len(accepted(later)) < len(later) or p95 >= figures.MAX_P95_MS:
        refused = len(later) - len(accepted(later))
        said.append(f"{RECOVERY_S} s after the storm {refused} were not accepted, and p95 was {p95:.0f} ms")
    if probes.failures:
        worst = max(set(probes.failures), key=probes.failures.count)
        said.append(f"{len(probes.failures)} of {len(probes.took)} health checks failed, such as {worst}")
    return said


def _show(report: dict[str, Any]) -> None:
    print(figures.table([report[name] for name in ("accepted", "shed", "afterwards")]))
    print("Shed: " + ", ".join(f"{name} {share:.0%}" for name, share in report["shed_shares"].items()))
    for name, value in report.items():
        if not isinstance(value, dict):
            print(f"{name.replace('_', ' ')}: {value}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
