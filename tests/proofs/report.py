"""What a person reads of a proof: two tables and a picture."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"

from matplotlib import pyplot  # noqa: E402  (the backend is chosen first)

from perf import figures as tables  # noqa: E402
from tests.proofs.figures import S, first_ack_bound  # noqa: E402
from tests.proofs.history import UNKNOWN, WRITES  # noqa: E402
from tests.proofs.plan import LANES, Size  # noqa: E402
from tests.proofs.trial import Trial  # noqa: E402

ROWS = {
    "operations": "operations",
    "acknowledged": "writes acknowledged",
    "unknown": "unknown, and resolved",
    "gone": "  of which: no answer at all",
    "rushes": "keys from 8 clients at once",
    "doubled": "webhooks doubled",
    "faults": "faults",
    "lost_violations": "lost",
    "doubled_violations": "doubled",
    "leaked_violations": "leaked",
    "wrong_violations": "otherwise wrong",
}
OK_COLOUR, UNKNOWN_COLOUR, LANE_COLOURS = "#3b7a57", "#b5533c", ("#222222", "#7a5ea8")


def summary(size: Size, runs: Sequence[dict[str, Any]], total: dict[str, Any]) -> str:
    lines = []
    for name, title in ROWS.items():
        each = {f"seed {run['seed']}": run[name] for run in runs} if len(runs) > 1 else {}
        lines.append({"": title, **each, "all": total[name], "at least": size.least.get(name, "")})
    return f"{tables.table(lines)}\n\n{_recoveries(runs)}"


def _recoveries(runs: Sequence[dict[str, Any]]) -> str:
    by_kind = defaultdict(list)
    for run in runs:
        for one in run["recoveries"]:
            by_kind[one["kind"]].append(one["first_ack_s"])
    lines = [
        {
            "fault": kind,
            "times": len(by_kind[kind]),
            "first acknowledgement s": f"{median(by_kind[kind]):.2f}",
            "worst": f"{max(by_kind[kind]):.2f}",
            "at most": f"{first_ack_bound(kind):g}",
        }
        for lane in LANES
        for kind in lane
        if kind in by_kind
    ]
    return tables.table(lines)


def draw(trials: Sequence[Trial], path: Path, title: str) -> None:
    """What was acknowledged and what was unknown in each second, with the faults above."""
    fig, axes = pyplot.subplots(len(trials), figsize=(13, 4.4 * len(trials)), layout="constrained", squeeze=False)
    for trial, ax in zip(trials, axes[:, 0], strict=True):
        _draw_one(trial, ax)
    axes[0, 0].legend(loc="upper right", bbox_to_anchor=(1, -0.06), fontsize=8, frameon=False, ncols=2)
    axes[0, 0].set_title(title, fontsize=10, loc="left")
    fig.savefig(path, metadata={"Date": None})
    pyplot.close(fig)


def _draw_one(trial: Trial, ax: Any) -> None:
    seconds = range(int((trial.over - trial.began) / S) + 1)
    writes = [attempt for attempt in trial.run.attempts if attempt.operation in WRITES]
    for chosen, colour, label in (
        ([w for w in writes if w.ok], OK_COLOUR, "acknowledged"),
        ([w for w in writes if w.outcome == UNKNOWN], UNKNOWN_COLOUR, "unknown, asked again"),
    ):
        counts = [0] * len(seconds)
        for attempt in chosen:
            if 0 <= (second := int((attempt.end - trial.began) / S)) < len(counts):
                counts[second] += 1
        ax.step(seconds, counts, where="post", color=colour, linewidth=1.6, label=label)
    top = ax.get_ylim()[1]
    for lane, (kinds, colour) in enumerate(zip(LANES, LANE_COLOURS, strict=True)):
        for fault in (fault for fault in trial.run.faults if fault.kind in kinds):
            at, to = ((moment - trial.began) / S for moment in (fault.start, fault.end))
            ax.axvspan(at, max(to, at + 0.06), color=colour, alpha=0.12, linewidth=0)
            ax.text(at, top * (1.01 + 0.5 * lane), fault.kind, rotation=60, fontsize=6.5, color=colour)
    ax.set_xlim(0, len(seconds))
    ax.set_ylim(0, top * 2)
    ax.set_xlabel(f"seconds; seed {trial.seed}")
    ax.set_ylabel("writes a second")
    ax.spines[["top", "right"]].set_visible(False)
