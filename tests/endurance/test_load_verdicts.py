"""`make load` and `make capacity` can fail: what they would have to find is in the samples they are given."""

import re

import pytest

from perf import figures, load
from perf.traffic import Sample


def samples(count: int, *others: Sample, took_ms: float = 10, lag_ms: float = 0) -> list[Sample]:
    """So many that were answered alike, and others."""
    return [*(Sample(at, "order", lag_ms / 1000, took_ms / 1000, "ok", 1) for at in range(count)), *others]


def one(outcome: str = "ok", operation: str = "list", took_ms: float = 10) -> Sample:
    return Sample(0, operation, 0, took_ms / 1000, outcome, 1)


@pytest.mark.parametrize(
    ("count", "ranks"), [(1, (1, 1, 1)), (2, (1, 2, 2)), (20, (10, 19, 20)), (100, (50, 95, 99)), (101, (51, 96, 100))]
)
def test_a_percentile_is_the_value_of_the_nearest_rank(count: int, ranks: tuple[int, ...]):
    values = [float(value) for value in range(count, 0, -1)]  # each is its rank
    assert tuple(figures.percentile(values, share) for share in (0.5, 0.95, 0.99)) == ranks


def test_of_no_values_the_percentile_is_0():
    assert figures.percentile([], 0.95) == 0


@pytest.mark.parametrize(("took_ms", "is_said"), [(199, False), (199.9, False), (200, True), (201, True)])
def test_the_95th_percentile_has_to_stay_below_200_ms(took_ms: float, is_said: bool):
    said = [f"p95 is {took_ms:.0f} ms; it has to stay below 200"]
    assert figures.complaints(samples(100, took_ms=took_ms)) == said * is_said


@pytest.mark.parametrize(("slow", "is_said"), [(5, False), (6, True)])
def test_5_of_100_may_be_slow(slow: int, is_said: bool):
    slow_ones = [one(took_ms=900)] * slow
    assert figures.complaints(samples(100 - slow, *slow_ones)) == ["p95 is 900 ms; it has to stay below 200"] * is_said


def test_one_wrong_answer_of_a_thousand_is_said():
    assert figures.complaints(samples(999, one("status 500"))) == ["1 times: status 500"]


def test_one_refusal_of_a_thousand_is_said():
    assert figures.complaints(samples(999, one("shed"))) == ["1 times: shed"]


def test_what_went_wrong_is_counted_by_its_kind():
    wrong = [one("timeout"), *[one("status 500")] * 2]
    assert figures.complaints(samples(997, *wrong)) == ["2 times: status 500", "1 times: timeout"]


@pytest.mark.parametrize(("lag_ms", "is_said"), [(50, False), (51, True)])
def test_a_generator_that_falls_behind_is_said(lag_ms: float, is_said: bool):
    said = ["the generator fell behind: 1 % was sent 51 ms late or more"]
    assert figures.complaints(samples(100, lag_ms=lag_ms)) == said * is_said


@pytest.mark.parametrize(
    ("known", "planned", "is_said"),
    [
        (6000, 6000, False),
        (5999, 6000, False),
        (5998, 6000, True),
        (0, 6000, True),
        (99, 100.5, False),
        (1, 0.6, False),
    ],
)
def test_answers_that_nobody_knows_of_are_said(known: int, planned: float, is_said: bool):
    assert figures.missing(samples(known), planned) == [f"{known} answers are known of {planned:g}"] * is_said


def test_a_plan_of_which_nothing_was_sent_does_not_pass():
    assert figures.missing([], 0.6) == ["0 answers are known of 0.6"]


def test_a_row_counts_requests_failures_and_what_came_in_a_second():
    row = figures.row("all", [*samples(7), one("shed"), one("timeout", took_ms=900), one()], 5)
    assert row == {
        "operation": "all",
        "requests": 10,
        "failures": 2,
        "rate": 2.0,
        "p50_ms": 10.0,
        "p95_ms": 900.0,
        "p99_ms": 900.0,
        "max_ms": 900.0,
    }


def test_each_operation_has_its_row_and_all_have_one():
    lines = figures.rows(samples(3, one("shed"), one(operation="login")), 1)
    counts = {line["operation"]: (line["requests"], line["failures"]) for line in lines}
    assert counts == {"list": (1, 1), "login": (1, 0), "order": (3, 0), "all": (5, 1)}


@pytest.mark.parametrize("setting", ["RATE", "SECONDS"])
@pytest.mark.parametrize("text", ["0", "nan", "inf", "abc", "-1"])
def test_a_setting_that_is_no_number_above_0_ends_the_program_with_a_sentence(monkeypatch, setting: str, text: str):
    monkeypatch.setenv(setting, text)
    with pytest.raises(SystemExit, match=f"^{re.escape(f'{setting} has to be a number above 0, not {text}.')}$"):
        figures.given(setting)


@pytest.mark.parametrize(("text", "asked"), [("", None), ("0.5", 0.5), ("250", 250)])
def test_a_setting_that_is_a_number_above_0_is_taken(monkeypatch, text: str, asked: float | None):
    monkeypatch.setenv("RATE", text)
    assert figures.given("RATE") == asked


def test_a_complaint_is_the_exit_code_of_the_program(capsys):
    assert load.verdict([]) == 0
    assert load.verdict(["p95 is 200 ms"]) == 1
    assert capsys.readouterr().out == "Passed.\nFAILED: p95 is 200 ms\nFailed.\n"
