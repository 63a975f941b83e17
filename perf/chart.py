"""Draws the figures of a bench: each as a share of what bare Falcon does, with its target."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "bench"  # the same figures give the same file
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: smaller, and found by a search

from matplotlib import pyplot  # noqa: E402  (the backend is chosen first)

MET, MISSED, TICK = "#3b7a57", "#b5533c", "#222222"


def draw(figures: list[dict[str, Any]], path: Path, subtitle: str) -> None:
    """`figures`: a bench's rows. `path`: its suffix says which format."""
    shown = [figure for figure in figures if figure["target"] and figure["by_hello"] is not None][::-1]
    fig, axes = pyplot.subplots(figsize=(8, 0.55 * len(shown) + 1.5), layout="constrained")
    for at, figure in enumerate(shown):
        share, target = figure["by_hello"], figure["target"]["hello"]
        axes.barh(at, share, height=0.55, color=MET if figure["met"] else MISSED)
        axes.plot([target, target], [at - 0.38, at + 0.38], color=TICK, linewidth=2)
        label = f"{share:.2f}  ({figure['rps']:,.0f} rps, p99 {figure['p99_ms']:.0f} ms)"
        axes.annotate(label, (max(share, target), at), (6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(shown)), [figure["title"] for figure in shown])
    axes.set_xlim(0, 1.6 * max(max(figure["by_hello"], figure["target"]["hello"]) for figure in shown))
    axes.set_xlabel("requests a second ÷ bare Falcon's; tick: its target; red: a target is missed")
    axes.set_title(f"orders-api, {subtitle}", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    fig.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(fig)
