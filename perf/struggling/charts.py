"""Draws a diagnosis: a chart a symptom as SVG, and one page with all of them that needs no other file."""

import html
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams |= {"svg.hashsalt": "diagnosis", "svg.fonttype": "none", "font.size": 10}

from matplotlib import pyplot  # noqa: E402  (the backend is chosen first)

from perf.figures import percentile  # noqa: E402

FOUND, CURED, OURS, LIMIT = "#b5533c", "#3b7a57", "#3f6ea8", "#222222"
SIDES = (("before", "as found", FOUND), ("after", "cured", CURED), ("ours", "orders-api", OURS))
BIN_S = 2
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "pre{overflow-x:auto;background:#f4f4f4;padding:.8rem;font-size:.8rem}svg{max-width:100%;height:auto}"
)

Document = dict[str, Any]


def draw(document: Document, table: str, folder: Path) -> Path:
    """Writes the charts into `folder`, and returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    charts = {"latency": _latency, "database": _database, "statements": _statements, "memory": _memory}
    charts["stampede"] = _stampede
    drawn = []
    for name, chart in charts.items():
        figure, axes = pyplot.subplots(
            figsize=(8, 3.2 if name in ("latency", "database") else 2.2), layout="constrained"
        )
        chart(axes, document)
        axes.spines[["top", "right"]].set_visible(False)
        path = folder / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)
        path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
        drawn.append(path.read_text().partition("<svg")[1] + path.read_text().partition("<svg")[2])
    page = folder / "index.html"
    page.write_text(_page(document, table, drawn))
    return page


def _latency(axes: Any, document: Document) -> None:
    for side, name, colour in SIDES:
        bins: dict[int, list[float]] = {}
        for sample in document[side]["latencies_ms"].split():
            at, _, took = sample.partition(":")
            bins.setdefault(int(float(at) / BIN_S), []).append(float(took))
        points = sorted((number * BIN_S + BIN_S / 2, percentile(took, 0.95)) for number, took in bins.items())
        axes.plot(*zip(*points, strict=True), color=colour, label=name)
    axes.axhline(300, color=LIMIT, linestyle="--", linewidth=1, label="asked: 300 ms")
    axes.set_yscale("log")
    axes.set_title(f"p95 of each {BIN_S} s, ms", loc="left")
    _over_time(axes, document)


def _database(axes: Any, document: Document) -> None:
    for side, name, colour in SIDES:
        points = [(at, 100 * ours) for at, ours, _ in document[side]["database"]]
        axes.plot(*zip(*points, strict=True), color=colour, label=name)
    axes.axhline(60, color=LIMIT, linestyle="--", linewidth=1, label="asked: 60 %")
    axes.set_ylim(0, 110)
    axes.set_title("database CPU, % of its core", loc="left")
    _over_time(axes, document)


def _over_time(axes: Any, document: Document) -> None:
    warm_up = document["profile"]["settings"]["warm_up_s"]
    axes.axvspan(0, warm_up, color="#eeeeee", zorder=0)
    axes.set_xlim(0, warm_up + document["profile"]["settings"]["measured_s"])
    axes.set_xlabel("seconds of the profile; grey: warm-up, not counted")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def _statements(axes: Any, document: Document) -> None:
    _bars(axes, [(name, document[side]["statements"], colour) for side, name, colour in SIDES[:2]])
    axes.set_title("statements for a page of 20 orders with their items", loc="left")


def _memory(axes: Any, document: Document) -> None:
    bars = []
    for side, name, colour in SIDES[:2]:
        memory = document[side]["memory"]
        bars += [
            (f"{name}, fresh", memory["before_mb"], "#bbbbbb"),
            (f"{name}, 6,000 URLs", memory["after_mb"], colour),
        ]
    _bars(axes, bars)
    axes.set_title("memory of the four workers, MB", loc="left")


def _stampede(axes: Any, document: Document) -> None:
    bars = []
    for side, name, colour in SIDES[:2]:
        found = document[side]["stampede"]
        bars += [
            (f"{name}: loads", found["loads"], colour),
            (f"{name}: readers with an error", found["failed"], colour),
        ]
    _bars(axes, bars)
    axes.set_title("200 readers of a cold page at once", loc="left")


def _bars(axes: Any, bars: list[tuple[str, float, str]]) -> None:
    for at, (_, value, colour) in enumerate(reversed(bars)):
        axes.barh(at, value, color=colour, height=0.6)
        axes.annotate(f"{value:g}", (value, at), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(bars)), [name for name, _, _ in reversed(bars)])
    axes.set_xlim(0, 1.1 * max(value for _, value, _ in bars) or 1)
    axes.tick_params(axis="y", length=0)


def _page(document: Document, table: str, drawn: list[str]) -> str:
    plans = []
    for query, found in document["before"]["plans"].items():
        both = (("as found", found), ("cured", document["after"]["plans"][query]))
        plans += [
            f"<h3>{query}, {name}</h3><pre>{html.escape(chr(10).join(plan['plan']))}</pre>" for name, plan in both
        ]
    profile, said = document["profile"], document["not_reproduced"] + document["failed"]
    verdict = "<br>".join(map(html.escape, said)) or "All symptoms were reproduced, and all gates met."
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>The struggling service, before and after</title>
<style>{STYLE}</style>
<h1>The struggling service, before and after</h1>
<p>{html.escape(verdict)}</p>
<p>{profile["requests"]} requests, {profile["rate"]} a second and bursts of lists,
profile <code>{profile["hash"]}</code>; {document["date"]}, commit {document["commit"]}.</p>
<pre>{html.escape(table)}</pre>
{"".join(drawn)}
<h2>EXPLAIN (ANALYZE, BUFFERS)</h2>
{"".join(plans)}
</html>
"""
