"""docs/diagnosis.md is short, and says no figure that is not in the results it names."""

import copy
import json
import re
from typing import Any

import pytest

from perf.struggling import gates
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "diagnosis.md").read_text()
MAX_WORDS = 500
# `d` is the diagnosis, `b` and `a` its two sides, `ab` the ablation, `s` its steps.
FIGURES = [
    "{d[profile][requests]} requests (profile `{d[profile][hash]}`)",
    "| p95 | {b[load][p95_ms]:.0f} ms | {a[load][p95_ms]:.0f} ms | < 300 ms |",
    "| 5xx | {b[load][failed_percent]} % | {a[load][failed_percent]} % | none |",
    "| database CPU | {b[load][database_cpu_percent]} % | {a[load][database_cpu_percent]} % | < 60 % |",
    "| hit rate | {b[load][hit_percent]} % | {a[load][hit_percent]} % | > 60 % |",
    "{b[plans][items of an order][buffers]} buffers for two rows",
    "index on `order_items(order_id)`: {a[plans][items of an order][buffers]}.",
    "p95 {s[0][p95_ms]:.0f} → {s[1][p95_ms]:.0f} ms, a request",
    "costs the database {s[0][database_ms]} → {s[1][database_ms]} ms",
    "{b[plans][newest of a status][buffers]} buffers for 20 rows",
    "created_at DESC, id DESC)`: {a[plans][newest of a status][buffers]} "
    "(on `status` alone: {ab[buffers_by_status_alone]})",
    "*Effect:* {s[1][database_ms]} → {s[2][database_ms]} ms.",
    "{b[statements]} statements for a page of 20 with items",
    "prefetch: {a[statements]}.",
    "{s[2][database_ms]} → {s[3][database_ms]} ms, capacity",
    "{s[2][capacity]:.0f} → {s[3][capacity]:.0f} requests a second",
    "({bmem:.0f} MB for 6,000 URLs)",
    "200 readers of a cold page caused {b[stampede][loads]} loads and {b[stampede][failed]} errors",
    "{amem:.0f} MB, {a[stampede][loads]} load, {a[stampede][failed]} errors",
    "capacity {s[3][capacity]:.0f} → {s[4][capacity]:.0f}.",
    "{b[crowd][errors]} of 60 readers got 500",
    "503 with `Retry-After`: {a[crowd][told_to_come_back]}, and {a[crowd][errors]} errors",
    "capacity {s[4][capacity]:.0f} → {s[5][capacity]:.0f}: connections are kept",
    "{b[webhooks][paid]} of 40 forged webhooks",
    "{a[webhooks][refused]} got 401 and {a[webhooks][audited]} audit rows",
    "the scanner saw {b[secrets_in_the_tree]} of three",
    "all {d[profile][connections_for_the_service]} connections",
    "the rate ({d[profile][rate]} a second)",
    "p95 {d[ours][load][p95_ms]:.0f} ms and {d[ours][load][hit_percent]} % hits",
]
NOT_MEASURED = ["N+1", "5xx", "p95", "30 s with jitter", "gets 500", "1.", "2.", "3.", "4.", "5.", "6.", "7."]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    diagnosis, ablation = (_read(kind) for kind in ("diagnosis", "ablation"))
    before, after = diagnosis["before"], diagnosis["after"]
    grown = {
        side: diagnosis[side]["memory"]["after_mb"] - diagnosis[side]["memory"]["before_mb"]
        for side in ("before", "after")
    }
    words = {"d": diagnosis, "b": before, "a": after, "s": ablation["steps"], "ab": ablation}
    return words | {"bmem": grown["before"], "amem": grown["after"]}


def _read(kind: str) -> Any:
    (name,) = re.findall(rf"`({kind}-[\w-]+)`", TEXT)
    return json.loads((ROOT / "perf" / "results" / f"{name}.json").read_text())


def test_it_has_at_most_500_words():
    assert len(TEXT.split()) <= MAX_WORDS


def test_each_figure_is_that_of_the_results(results):
    rest = " ".join(re.sub(r"`(diagnosis|ablation)-[\w-]+`", "", TEXT).split())
    for figure in FIGURES:
        said = figure.format_map(results)
        assert said in rest, said
        rest = rest.replace(said, "", 1)
    for words in NOT_MEASURED:
        rest = rest.replace(words, "")
    assert re.findall(r"\d+", rest) == []


def test_the_results_passed_their_gates(results):
    assert results["d"]["not_reproduced"] == results["d"]["failed"] == []


def test_a_symptom_that_was_not_there_is_not_reproduced_and_one_that_stayed_fails(results):
    before, after = copy.deepcopy(results["b"]), copy.deepcopy(results["a"])
    before["load"]["p95_ms"] = 1100
    after["stampede"]["loads"] = 3
    after["rotation"]["old"] = [200, 401]

    missing, failed = gates.complaints(gates.judge(before, after), after)

    assert [sentence.partition(":")[0] for sentence in missing] == ["p95, ms"]
    assert [sentence.partition(":")[0] for sentence in failed] == [
        "loads by 200 readers",
        "the rotation lost a request, or an old secret works",
    ]
    assert (gates.verdict([], []), gates.verdict(missing, []), gates.verdict(missing, failed)) == (0, 2, 1)
