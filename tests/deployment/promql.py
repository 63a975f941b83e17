"""What is named in Prometheus' and Grafana's files, by a real parser of PromQL."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser as promql
import yaml

from tests.conftest import ROOT

PROMETHEUS, GRAFANA = ROOT / "conf/prometheus", ROOT / "conf/grafana"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
SCENARIOS = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
DASHBOARD = json.loads((GRAFANA / "orders-api.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


class Query(NamedTuple):
    """`legend`: the labels that its legend names."""

    text: str
    legend: frozenset[str] = frozenset()


def queries() -> dict[str, list[Query]]:
    """All of them by the file they are in; a dashboard's variables have values."""
    checks = [check for scenario in SCENARIOS for check in scenario["promql_expr_test"]]
    series = [one for scenario in SCENARIOS for one in scenario["input_series"]]
    return {
        "alerts.yml": [Query(rule["expr"]) for rule in RULES],
        "alerts.test.yml": [Query(one["expr"]) for one in checks] + [Query(one["series"]) for one in series],
        "orders-api.json": list(_of_dashboard()),
    }


def _of_dashboard() -> Iterator[Query]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield Query(_with_values(target["expr"]), _labels_in(target["legendFormat"]))
    for annotation in DASHBOARD["annotations"]["list"]:
        yield Query(annotation["expr"], _labels_in(annotation["titleFormat"]))
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            yield Query(selector, frozenset([label]))


def _with_values(query: str) -> str:
    return query.replace("$__rate_interval", "1m").replace("$instance", ".*")


def _labels_in(legend: str) -> frozenset[str]:
    return frozenset(re.findall(r"\{\{\s*(\w+)\s*\}\}", legend))


def selectors(node: Any) -> Iterator[promql.VectorSelector]:
    """Of a parsed query and all that is below it."""
    if isinstance(node, promql.VectorSelector):
        yield node
    for child in _children(node):
        yield from selectors(child)


def labels_asked_of(node: Any) -> Iterator[tuple[Any, str]]:
    """Each label that an aggregation or a match of two sides names, with the part of the query that should have it."""
    if isinstance(node, promql.AggregateExpr) and node.modifier:
        yield from ((node.expr, label) for label in node.modifier.labels)
    if isinstance(node, promql.BinaryExpr) and node.modifier and node.modifier.matching:
        for side in (node.lhs, node.rhs):
            yield from ((side, label) for label in node.modifier.matching.labels)
    for child in _children(node):
        yield from labels_asked_of(child)


def _children(node: Any) -> Iterator[Any]:
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None and not isinstance(child, str):
            yield child
    yield from getattr(node, "args", ())


def values_in(matcher: promql.Matcher) -> list[str]:
    """What a matcher asks for, or leaves out, by name: of a regular expression its alternatives."""
    return matcher.value.split("|") if matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe) else [matcher.value]


def runbook() -> str:
    return (ROOT / "docs/runbook.md").read_text()
