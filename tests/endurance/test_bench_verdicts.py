"""`make bench` and `make growth` can fail: what they would have to find is in the log and figures given."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from orders_api import logs
from perf import bench, growth
from perf.bench import Failed, Figure, Results, Target

CACHED = Figure("one", "GET one", "get.lua", statements=(0, bench.MOST_IF_CACHED))
UNCACHED = Figure("one", "GET one", "get.lua")


class Log:
    """A log that requests write to as the service does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()

    def request(self, status: int = 200, code: str | None = None, statements: int = 1) -> None:
        logs.write("request", status=status, code=code, statements=statements)

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def cut(self, size: int) -> None:
        """The last of what was written is still to come."""
        self.path.write_bytes(self.path.read_bytes()[:size])


@pytest.fixture
def log(tmp_path, monkeypatch):
    log = Log(tmp_path / "log")
    with log.path.open("ab") as file:
        monkeypatch.setattr(logs, "_out", structlog.BytesLogger(file))
        yield log


def test_answers_and_statements_are_counted(log):
    log.request(200, statements=2)
    log.request(200, statements=0)
    log.request(503, "overloaded", statements=1)
    log.request(304, statements=1)
    logs.write("started", statements=7)
    assert bench.account(log.path, 0) == ({"200": 2, "503 overloaded": 1, "304": 1}, 4)


def test_what_was_before_the_position_is_not_counted(log):
    log.request(503)
    begin = log.size
    log.request(200)
    assert bench.account(log.path, begin) == ({"200": 1}, 1)


@pytest.mark.parametrize("missing", [1, 30, 80])
def test_a_line_in_whose_middle_the_position_is_belongs_to_what_was_before(log, missing: int):
    log.request(503)
    begin = log.size - missing
    log.request(200)
    assert bench.account(log.path, begin) == ({"200": 1}, 1)


@pytest.mark.parametrize("missing", [1, 2, 30, 80])
def test_a_half_written_last_line_is_not_counted_yet(log, missing: int):
    log.request(200)
    log.request(503)
    log.cut(log.size - missing)
    assert bench.account(log.path, 0) == ({"200": 1}, 1)


@pytest.mark.parametrize(
    ("figure", "statements", "is_met"),
    [(CACHED, 0, True), (CACHED, 10, True), (CACHED, 11, False), (UNCACHED, 990, True), (UNCACHED, 989, False)],
)
def test_cached_asks_no_database_and_uncached_does(figure: Figure, statements: int, is_met: bool):
    answers = Counter({"200": 1000})
    if is_met:
        assert bench.cost(figure, answers, statements) == statements / 1000
    else:
        with pytest.raises(Failed, match=f"one cost {statements / 1000} statements a request instead of"):
            bench.cost(figure, answers, statements)


@pytest.mark.parametrize("answer", ["304", "404 order_not_found", "503 overloaded"])
def test_one_answer_other_than_2xx_fails_a_figure(answer: str):
    with pytest.raises(Failed, match="answers other than 2xx"):
        bench.cost(UNCACHED, Counter({"200": 999, answer: 1}), 1000)


def test_a_log_that_tells_of_no_request_fails_also_what_is_cached():
    with pytest.raises(Failed, match="tells of no request"):
        bench.cost(CACHED, Counter(), 0)


@pytest.mark.parametrize(
    ("by_hello", "by_pgbench", "p99_ms", "is_met"),
    [
        (0.4, 0.2, 49.9, True),
        (0.3999, 0.2, 49.9, False),
        (0.4, 0.1999, 49.9, False),
        (0.4, 0.2, 50, False),
        (None, 0.2, 49.9, None),
        (0.4, None, 49.9, None),
        (0.4, 0.2, None, None),
    ],
)
def test_a_figure_is_met_when_each_bound_is(by_hello, by_pgbench, p99_ms, is_met: bool | None):
    assert bench.is_met(Target(0.4, pgbench=0.2, p99_ms=50), by_hello, by_pgbench, p99_ms) is is_met


def test_only_what_is_promised_is_judged():
    assert bench.is_met(Target(0.4), 0.4, None, 9_000) is True
    assert bench.is_met(None, 0.4, 0.2, 1) is None


def test_a_ratio_is_the_median_of_the_rounds_own():
    results = Results()
    for ours, theirs in [(90, 100), (10, 50), (40, 160)]:  # 0.9, 0.2, 0.25; 40 to 100 would be 0.4
        results.add("one", {"rps": ours})
        results.add("hello", {"rps": theirs})
    assert results.ratio("one", "hello") == 0.25


def test_what_was_not_measured_has_no_ratio():
    results = Results({"one": [{"rps": 40}]})
    assert results.ratio("one", "pgbench_create") is None


class Given(growth.Size):
    """A size whose times are given, after slower ones to warm up; each request costs the same statements."""

    def __init__(self, log: Log, orders: int, p50_ms: float = 10, statements: int = 1) -> None:
        self.orders, self.statements, self.log = orders, statements, log
        self.times = iter([900.0] * growth.WARM_UPS + [1, p50_ms, 800])
        self.served = SimpleNamespace(log_path=log.path)

    def get_ready(self) -> None:
        self.begin = self.log.size

    def measure(self, figure: str) -> float:
        self.log.request(statements=self.statements)
        return next(self.times)


@pytest.mark.parametrize(
    ("p50_ms", "ratio", "is_met"),
    [
        ((10, 10, 10), 1, True),
        ((10, 11, 13), 1.3, True),
        ((10, 11, 13.01), 1.301, False),
        ((10, 13.01, 11), 1.301, False),
        ((13.01, 10, 11), 1.301, False),
    ],
)
def test_growth_is_the_slowest_size_to_the_quickest(log, p50_ms: tuple[float, ...], ratio: float, is_met: bool):
    sizes = [Given(log, orders, ms) for orders, ms in zip((10, 1000, 5000), p50_ms, strict=True)]
    found = growth.compare("read one", sizes, samples=3)
    assert found["p50_ms"] == dict(zip(("10", "1000", "5000"), p50_ms, strict=True))
    assert (found["ratio"], found["met"]) == (ratio, is_met)


def test_growth_fails_when_it_was_not_the_database_that_answered(log):
    with pytest.raises(Failed, match="read one of 10 orders cost 0 statements for 53 requests"):
        growth.compare("read one", [Given(log, 10, statements=0)], samples=3)


@pytest.mark.parametrize(("cached", "is_failed"), [(1, False), (2, True)])
def test_1_of_100_may_be_answered_from_a_cache(log, cached: int, is_failed: bool):
    size = Given(log, 10)
    size.get_ready()
    for number in range(100):
        log.request(statements=number >= cached)
    if is_failed:
        with pytest.raises(Failed, match="cost 98 statements for 100 requests"):
            size.check("read one")
    else:
        size.check("read one")


def test_growth_fails_when_the_log_tells_of_no_request(log):
    size = Given(log, 10)
    log.request()
    size.get_ready()
    with pytest.raises(Failed, match="0 statements for 0 requests"):
        size.check("read one")
