"""What `make diagnose` holds against what it was asked for: a row for each figure, before beside after."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Side = dict[str, Any]


class Gate(NamedTuple):
    name: str
    figure: Callable[[Side], Any]
    ill: Callable[[Any], bool]  # the symptom is there: else it was not reproduced
    ill_text: str
    well: Callable[[Any], bool]
    well_text: str
    asked: str


class Row(NamedTuple):
    name: str
    before: Any
    reproduced: bool
    after: Any
    met: bool
    gate: Gate


GATES = [
    Gate("p95, ms", lambda s: s["load"]["p95_ms"], lambda v: v >= 1200, ">= 1200", lambda v: v < 100, "< 100", "< 300"),
    Gate(
        "database CPU, %",
        lambda s: s["load"]["database_cpu_percent"],
        lambda v: v >= 90,
        ">= 90",
        lambda v: v < 40,
        "< 40",
        "< 60",
    ),
    Gate("hit rate, %", lambda s: s["load"]["hit_percent"], lambda v: v < 10, "< 10", lambda v: v > 75, "> 75", "> 60"),
    Gate("5xx, %", lambda s: s["load"]["failed_percent"], lambda v: v > 0, "> 0", lambda v: v == 0, "0", "none"),
    Gate(
        "statements a page with items",
        lambda s: s["statements"],
        lambda v: v == 21,
        "21",
        lambda v: v == 2,
        "2",
        "no N+1",
    ),
    Gate(
        "buffers, items of an order",
        lambda s: s["plans"]["items of an order"]["buffers"],
        lambda v: v > 1000,
        "> 1000",
        lambda v: v <= 10,
        "<= 10",
        "an index",
    ),
    Gate(
        "buffers, newest of a status",
        lambda s: s["plans"]["newest of a status"]["buffers"],
        lambda v: v > 500,
        "> 500",
        lambda v: v <= 30,
        "<= 30",
        "an index",
    ),
    Gate(
        "loads by 200 readers", lambda s: s["stampede"]["loads"], lambda v: v > 10, "> 10", lambda v: v <= 2, "<= 2", ""
    ),
    Gate(
        "errors of 60 readers, database stuck",
        lambda s: s["crowd"]["errors"],
        lambda v: v > 0,
        "> 0",
        lambda v: v == 0,
        "0",
        "bounded",
    ),
    Gate(
        "memory for 6,000 URLs, MB",
        lambda s: round(s["memory"]["after_mb"] - s["memory"]["before_mb"], 1),
        lambda v: v > 20,
        "> 20",
        lambda v: v < 10,
        "< 10",
        "",
    ),
    Gate(
        "forged webhooks refused, of 40",
        lambda s: s["webhooks"]["refused"],
        lambda v: v == 0,
        "0",
        lambda v: v == 40,
        "40",
        "401/403",
    ),
    Gate(
        "... and audited",
        lambda s: s["webhooks"]["audited"],
        lambda v: v == 0,
        "0",
        lambda v: v == 40,
        "40",
        "audited",
    ),
    Gate(
        "... and paid by them",
        lambda s: s["webhooks"]["paid"],
        lambda v: v == 40,
        "40",
        lambda v: v == 0,
        "0",
        "",
    ),
    Gate(
        "secrets in the tree",
        lambda s: s["secrets_in_the_tree"],
        lambda v: v > 0,
        "> 0",
        lambda v: v == 0,
        "0",
        "none",
    ),
]


def judge(before: Side, after: Side) -> list[Row]:
    rows = []
    for gate in GATES:
        was, is_ = gate.figure(before), gate.figure(after)
        rows.append(Row(gate.name, was, gate.ill(was), is_, gate.well(is_), gate))
    return rows


def complaints(rows: Sequence[Row], after: Side) -> tuple[list[str], list[str]]:
    """What was not reproduced, and what was not mended."""
    missing = [f"{row.name}: {row.before} as found; expected {row.gate.ill_text}" for row in rows if not row.reproduced]
    failed = [
        f"{row.name}: {row.after} after the cures; the gate is {row.gate.well_text}" for row in rows if not row.met
    ]
    if after["webhooks"]["signed_one"] != 204:
        failed.append("a webhook that the provider signed was refused")
    if after["ci"] != {"allowed": after["ci"]["allowed"], "without": 0, "with_a_new_one": 1}:
        failed.append(f"CI does not tell a new secret from an old one: {after['ci']}")
    rotated = {"both": [200, 204, 200, 204], "new": [200, 204], "old": [401, 401], "old_login_works": False}
    if after["rotation"] != rotated:
        failed.append(f"the rotation lost a request, or an old secret works: {after['rotation']}")
    return missing, failed


def table(rows: Sequence[Row], ours: Side) -> str:
    heads = ("", "as found", "cured", "gate", "asked", "orders-api", "")
    own = {
        "p95, ms": "p95_ms",
        "database CPU, %": "database_cpu_percent",
        "hit rate, %": "hit_percent",
        "5xx, %": "failed_percent",
    }
    cells = [heads]
    for row in rows:
        same = str(ours[own[row.name]]) if row.name in own else ""
        said = "" if row.met and row.reproduced else "FAILED" if not row.met else "not reproduced"
        cells.append((row.name, str(row.before), str(row.after), row.gate.well_text, row.gate.asked, same, said))
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def verdict(missing: list[str], failed: list[str]) -> int:
    """Says what is wrong. 0: nothing; 1: a gate failed; 2: a symptom was not there to begin with."""
    for sentence in missing:
        print(f"NOT REPRODUCED: {sentence}")
    for sentence in failed:
        print(f"FAILED: {sentence}")
    print("Failed." if failed else "Not reproduced." if missing else "Passed.")
    return 1 if failed else 2 if missing else 0
