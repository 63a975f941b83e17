"""`make storm` can fail: each promise that a storm could break is broken in the samples it is given."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from perf import storm
from perf.generator import Sent
from perf.traffic import Sample
from tests.web.raw import wait_until

BEGIN, END = storm.WARM_UP_S, storm.WARM_UP_S + storm.STORM_S  # of the storm
SENT = 3  # of each operation in a second of it
SHED = {"list": 2, "order": 1, "create": 0}  # of these
ACCEPTED = 6  # the others, a second


def sample(at: float, outcome: str = "ok", operation: str = "create", took_s: float = 0.1, lag_s: float = 0) -> Sample:
    return Sample(at, operation, lag_s, took_s, outcome, 1)


def storm_of(
    *others: Sample,
    shed: Mapping[str, int] = SHED,
    accepted_s: float = 0.1,
    shed_s: float = 1.0,
    lag_s: float = 0,
    peak: float = ACCEPTED,
    probe_failures: Sequence[str] = (),
) -> storm.Round:
    """A storm that keeps every promise but for what is said otherwise. The only place that knows how one is built."""
    during = [
        sample(at, "shed", operation, shed_s, lag_s) if n < shed[operation] else sample(at, "ok", operation, accepted_s)
        for at in range(BEGIN, END)
        for operation in SHED
        for n in range(SENT)
    ]
    calm = [sample(at) for at in (*range(BEGIN), *range(END, END + storm.AFTER_S))]
    probes = storm.Probes("http://127.0.0.1")
    probes.took, probes.failures = [0.01] * 40, list(probe_failures)
    sent = Sent([*calm, *during, *others], connections=1, waited=0, began=0, cpu_s=[0, 0, 0])
    tried = ((peak, 0), (4 * ACCEPTED, 100))  # the rate, and how many of 200 were not accepted
    points = [{"requests": 200, "failures": failures, "rate": rate} for rate, failures in tried]
    return storm.Round(sent, probes, Counter(order=2, create=3, list=1), 0.2, peak, points)


AFTERWARDS = "storm 1: 5 s after the storm"
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "as promised": ({}, []),
    "accepted below 300 ms": ({"accepted_s": 0.2999}, []),
    "accepted at 300 ms": ({"accepted_s": 0.3}, ["p95 of the accepted is 300 ms; it has to stay below 300"]),
    "just 0.8 of the peak": ({"peak": ACCEPTED / 0.8}, []),
    "less than 0.8 of the peak": ({"peak": ACCEPTED / 0.798}, ["79.8% of the peak were accepted; 80% should be"]),
    "no peak at all": ({"peak": 0}, ["0.0% of the peak were accepted; 80% should be"]),
    "refused after 1.1 s": ({"shed_s": 1.1}, []),
    "refused later": ({"shed_s": 1.11}, ["storm 1: 60 were refused later than after 1.1 s, one after 1.1"]),
    "reads are shed before lists": (
        {"shed": {"list": 1, "order": 2, "create": 0}},
        ["storm 1: lists are not shed before reads, and reads before creates"],
    ),
    "creates are shed as reads are": (
        {"shed": {"list": 2, "order": 1, "create": 1}, "peak": 5},
        ["storm 1: lists are not shed before reads, and reads before creates"],
    ),
    "the generator is 50 ms late": ({"lag_s": 0.05}, []),
    "the generator is later": (
        {"lag_s": 0.051},
        ["storm 1: the generator fell behind: 1 % was sent 51 ms late or more"],
    ),
    "a health check failed": (
        {"probe_failures": ["healthz: 503", "readyz: 1.20 s", "healthz: 503"]},
        ["storm 1: 3 of 40 health checks failed, such as healthz: 503"],
    ),
}


@pytest.mark.parametrize(("otherwise", "said"), CASES.values(), ids=CASES.keys())
def test_a_promise_that_is_not_kept_is_said(otherwise: dict[str, Any], said: list[str]):
    assert storm.complaints([storm_of(**otherwise)]) == said


@pytest.mark.parametrize("at", [0, BEGIN, END], ids=["before", "in the storm", "after"])
@pytest.mark.parametrize("outcome", ["timeout", "status 500"])
def test_an_outcome_that_is_neither_an_answer_nor_a_refusal_is_said(at: float, outcome: str):
    assert storm.complaints([storm_of(sample(at, outcome))]) == [f"storm 1: 1 times: {outcome}"]


LAST_MOMENT, TOO_LATE = END + storm.RECOVERY_S - 0.01, END + storm.RECOVERY_S


@pytest.mark.parametrize(
    ("late", "said"),
    [
        (sample(LAST_MOMENT, "shed"), []),
        (sample(LAST_MOMENT, took_s=0.9), []),
        (sample(TOO_LATE, "shed"), [f"{AFTERWARDS} 1 were not accepted, and p95 was 100 ms"]),
        (sample(TOO_LATE, took_s=0.2), [f"{AFTERWARDS} 0 were not accepted, and p95 was 200 ms"]),
        (sample(TOO_LATE, took_s=0.199), []),
    ],
)
def test_5_s_after_the_storm_all_are_accepted_and_quickly(late: Sample, said: list[str]):
    assert storm.complaints([storm_of(late)]) == said


@pytest.mark.parametrize("weak", [{"accepted_s": 0.9}, {"peak": 100}])
def test_of_three_storms_the_median_is_judged_by_p95_and_throughput(weak: dict[str, float]):
    assert storm.complaints([storm_of(), storm_of(), storm_of(**weak)]) == []
    assert len(storm.complaints([storm_of(**weak), storm_of(), storm_of(**weak)])) == 1


def test_what_is_accepted_past_the_peak_is_told():
    assert storm.medians([storm_of()])["accepted_share_of_most"] == 0.5


def test_all_else_has_to_hold_in_each_storm():
    rounds = [storm_of(), storm_of(sample(BEGIN, "timeout")), storm_of(probe_failures=["readyz: 503"])]
    assert storm.complaints(rounds) == [
        "storm 2: 1 times: timeout",
        "storm 3: 1 of 40 health checks failed, such as readyz: 503",
    ]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def answering(bytes_of_it: bytes, after_s: float = 0) -> Iterator[str]:
    """A server that answers whatever it is asked with these bytes; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(after_s)
            self.wfile.write(bytes_of_it)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (OK, ""),
        (UNAVAILABLE, "503"),
        (b"hello, world\r\n", "BadStatusLine"),
        (b"", "RemoteDisconnected"),
    ],
)
def test_a_health_check_says_why_the_answer_was_no_200(answer: bytes, why: str):
    with answering(answer) as url:
        assert storm._unhealthy(url) == why


def test_a_health_check_says_that_nobody_listens():
    with answering(b"") as url:
        pass
    assert storm._unhealthy(url) == "URLError"


def test_a_health_check_says_that_no_answer_came(monkeypatch):
    monkeypatch.setattr(storm, "MAX_PROBE_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert storm._unhealthy(f"http://127.0.0.1:{silent.getsockname()[1]}/healthz") == "TimeoutError"


def test_both_health_checks_are_asked_and_their_failures_kept():
    with answering(UNAVAILABLE) as url, storm.Probes(url) as probes:
        wait_until(lambda: {"healthz: 503", "readyz: 503"} <= {*probes.failures})
    assert len(probes.took) == len(probes.failures)


def test_a_health_check_that_takes_too_long_failed(monkeypatch):
    monkeypatch.setattr(storm, "MAX_PROBE_S", 0.1)
    with answering(OK, after_s=0.15) as url, storm.Probes(url) as probes:
        wait_until(lambda: any(failure.endswith(" s") for failure in probes.failures))
