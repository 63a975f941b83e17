"""From samples to figures: percentiles, the table, and the file that is kept."""

import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perf.record import circumstances, write_result
from perf.stack import PRODUCTION

MAX_P95_MS = 200
MAX_LAG_S = 0.05  # of the generator, 99th percentile: beyond it the plan is no longer what was sent

MUCH = 0.15  # of the processors, by other programs

Row = dict[str, Any]


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: a value that was measured, never one between two."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)] if ordered else 0.0


def row(name: str, samples: Sequence[Sequence[Any]], seconds: float) -> Row:
    """`samples` are perf.traffic.Sample, or lists of the same."""
    took = [sample[3] * 1000 for sample in samples]
    figures = {f"p{round(share * 100)}_ms": round(percentile(took, share), 1) for share in (0.5, 0.95, 0.99)}
    failures = sum(sample[4] != "ok" for sample in samples)
    return {
        "operation": name,
        "requests": len(samples),
        "failures": failures,
        "rate": round(len(samples) / seconds, 1),
        **figures,
        "max_ms": round(max(took, default=0.0), 1),
    }


def rows(samples: Sequence[Sequence[Any]], seconds: float) -> list[Row]:
    """One for each operation, then the one for all."""
    names = sorted({sample[1] for sample in samples})
    each = [row(name, [sample for sample in samples if sample[1] == name], seconds) for name in names]
    return [*each, row("all", samples, seconds)]


def table(lines: Sequence[Row]) -> str:
    """Plain text, with the keys as heads."""
    heads = list(lines[0])
    cells = [heads, *([str(line[head]) for head in heads] for line in lines)]
    widths = [max(len(cell[column]) for cell in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(cell, widths, strict=True))
        )
        for cell in cells
    )


def lag(samples: Sequence[Sequence[Any]]) -> float:
    """How late the generator sent, in seconds: the 99th percentile."""
    return percentile([sample[2] for sample in samples], 0.99)


def outcomes(samples: Sequence[Sequence[Any]]) -> dict[str, int]:
    """What went wrong, and how often; the most frequent first."""
    wrong = [sample[4] for sample in samples if sample[4] != "ok"]
    return dict(sorted(((text, wrong.count(text)) for text in set(wrong)), key=lambda pair: -pair[1]))


def complaints(samples: Sequence[Sequence[Any]]) -> list[str]:
    """Why these samples don't pass: one sentence each."""
    p95 = percentile([sample[3] * 1000 for sample in samples], 0.95)
    said = [f"{count} times: {text}" for text, count in outcomes(samples).items()]
    if p95 >= MAX_P95_MS:
        said.append(f"p95 is {p95:.0f} ms; it has to stay below {MAX_P95_MS}")
    if lag(samples) > MAX_LAG_S:
        said.append(f"the generator fell behind: 1 % was sent {lag(samples) * 1000:.0f} ms late or more")
    return said


def missing(samples: Sequence[Sequence[Any]], planned: float) -> list[str]:
    """Says so if what became of some is unknown, or of all. One may be left out where a count is rounded."""
    unknown = not samples or len(samples) < planned - 1.5
    return [f"{len(samples)} answers are known of {planned:g}"] if unknown else []


def keep(kind: str, env: dict[str, str], others_busy: float | None, figures: Row) -> Path:
    """Writes perf/results/<kind>-<date>-<commit>.json with the command, the machine, the settings and the figures."""
    settings = {name: env[name] for name in sorted(env) if name in PRODUCTION or name.startswith("RATE_LIMIT_")}
    told = {"command": command(), "settings": settings, "others_busy": others_busy}
    return write_result(kind, {**circumstances(), **told, **figures})


def given(name: str) -> float | None:
    """What the environment asks for, if anything. Ends the program when it is no number above 0."""
    text = os.environ.get(name)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        sys.exit(f"{name} has to be a number above 0, not {text}.")
    return number


def command() -> str:
    """What was asked for, as `make` is told."""
    name = "capacity" if "capacity" in sys.argv else Path(sys.argv[0]).stem
    settings = [f"{setting}={os.environ[setting]}" for setting in ("RATE", "SECONDS") if os.environ.get(setting)]
    return " ".join(["make", name, *settings])


def busy_with_others() -> float | None:
    """The share of the processors that is in use before we start, over a second; None where /proc does not tell.

    Says so if it is much: on a busy machine a slow answer need not be the service's.
    """
    try:
        idle, total = _jiffies()
        time.sleep(1)
        idle, total = (now - before for now, before in zip(_jiffies(), (idle, total), strict=True))
    except OSError:
        return None
    busy = round(1 - idle / max(total, 1), 2)
    if busy > MUCH:
        print(f"WARNING: other programs use {busy:.0%} of the processors; the figures will not be the service's alone.")
    return busy


def _jiffies() -> tuple[int, int]:
    """Idle and all, since the boot (proc(5): user nice system idle iowait …)."""
    counts = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return counts[3] + counts[4], sum(counts)
