"""Draws a soak: rate, latency and each process's own memory over time."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from perf.chart import pyplot
from perf.figures import percentile
from perf.generator import Sent

BIN_S = 5
SHOWN = {"worker": "#3b7a57", "master": "#222222", "memcached": "#b5533c", "backend": "#4a6fa5"}


def draw(sent: Sent, watched: list[dict[str, Any]], path: Path, subtitle: str) -> None:
    """`watched`: what a soak saw of the processes, second by second."""
    fig, (rate, latency, memory) = pyplot.subplots(3, figsize=(9, 8), sharex=True, layout="constrained")
    bins: dict[int, list[float]] = defaultdict(list)
    for at, _, _, took, _, _ in sent.samples:
        bins[int(at // BIN_S)].append(took * 1000)
    times = [number * BIN_S for number in sorted(bins)]
    rate.plot(times, [len(bins[number]) / BIN_S for number in sorted(bins)], color=SHOWN["worker"])
    rate.set_ylabel("requests a second")
    for share, colour in ((0.5, SHOWN["worker"]), (0.95, SHOWN["backend"]), (0.99, SHOWN["memcached"])):
        values = [percentile(bins[number], share) for number in sorted(bins)]
        latency.plot(times, values, color=colour, label=f"p{share * 100:.0f}")
    latency.set_ylabel("latency, ms")
    latency.set_yscale("log")
    latency.legend(frameon=False, ncols=3)
    _memory(memory, sent.began, watched)
    rate.set_title(f"orders-api, {subtitle}", fontsize=10, loc="left")
    for axes in (rate, memory):
        axes.set_ylim(bottom=0)
    for axes in (rate, latency, memory):
        axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, metadata={"Date": None})
    pyplot.close(fig)


def _memory(axes: Any, began: float, watched: list[dict[str, Any]]) -> None:
    lines: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in watched:
        for pid, process in row["processes"].items():
            if process["name"] in SHOWN:
                lines[process["name"], pid].append((row["at"] - began, process["own"] / 1024))
    named: set[str] = set()
    for (name, _), points in sorted(lines.items()):
        axes.plot(*zip(*points, strict=True), color=SHOWN[name], linewidth=1, label=None if name in named else name)
        named.add(name)
    axes.set_ylabel("own memory, MB")
    axes.set_xlabel("seconds")
    axes.legend(frameon=False, ncols=4)
