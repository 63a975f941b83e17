"""Alerts, dashboard and runbook speak of what there is: metrics, labels and their values, alerts, tables."""

import re
from collections.abc import Iterator

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from orders_api import metrics
from orders_api.accounts.tokens import AccessTokens
from orders_api.admission import Priority
from orders_api.app import NO_KEY
from orders_api.errors import PROBLEMS
from orders_api.routes import routes
from orders_api.settings import Settings
from orders_api.web.rate_limits import Limiter
from orders_api.web.resources import METHODS
from tests.client import Client
from tests.conftest import ROOT, Databases, Server, serving
from tests.deployment.promql import (
    ALERTS,
    DASHBOARD,
    GRAFANA,
    PANELS,
    PROMETHEUS,
    RULES,
    SCENARIOS,
    labels_asked_of,
    queries,
    selectors,
    values_in,
)

TOKEN = "not-a-secret-but-long-enough"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
(SCRAPED,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
(SOURCE,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
(PROVIDER,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/orders-api.yml").read_text())["providers"]

OURS = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
SCRAPE = {"job", "instance"}
# What Prometheus makes itself. An alert has its own labels and those of its query.
ITS_OWN = {"up": SCRAPE, "ALERTS": {"alertname", "alertstate", "severity", "kind", "outcome", "server", *SCRAPE}}
LABELLED = {value for rule in RULES for value in rule.get("labels", {}).values()}
RECORDED = {rule["record"]: {"job", *rule.get("labels", ())} for rule in RULES if "record" in rule}
# Metrics that nobody looks at, and why.
UNUSED: dict[str, str] = {}

SOURCES = "".join(file.read_text() for file in (ROOT / "orders_api").rglob("*.py"))
SETTINGS = Settings.from_env({"ENVIRONMENT": "development", "DATABASE_URL": "postgresql:///", "JWT_KEYS": NO_KEY})
VALUES = {
    "job": {SCRAPED["job_name"]},
    "method": {*METHODS, "other"},
    "route": {*routes(SETTINGS, AccessTokens(SETTINGS.jwt_keys), Limiter(SETTINGS)), "-"},
    "status": {"5..", "200", "201", *(str(problem.status) for problem in PROBLEMS.values())},
    "priority": {priority.name.lower() for priority in Priority},
    "le": {str(float(bound)) for bound in metrics.DURATIONS},
    "alertname": {*ALERTS},
    "alertstate": {"firing", "pending"},
}
FREE = {"instance", "server"}
WHERE = ["alerts.yml", "alerts.test.yml", "orders-api.json"]


def series_of(metric: MetricWrapperBase) -> dict[str, set[str]]:
    """The names under which Prometheus keeps it, each with its labels."""
    labels, (family,) = {*metric._labelnames, *SCRAPE}, metric.describe()
    match family.type:
        case "counter":
            return {f"{family.name}_total": labels}
        case "histogram":
            return {f"{family.name}_{part}": labels for part in ("count", "sum")} | {
                f"{family.name}_bucket": labels | {"le"}
            }
    return {family.name: labels}


DECLARED = {name: labels for metric in OURS for name, labels in series_of(metric).items()}


@pytest.fixture(scope="module")
def samples(databases: Databases, memcached: str) -> Iterator[list[Sample]]:
    """What a real server's /metrics shows after a little traffic."""
    for serve in serving(databases, memcached):
        server: Server = serve(METRICS_TOKEN=TOKEN)
        alice = Client(server.url).register().login()
        alice.get(alice.place().headers["Location"])
        alice.place({})
        alice.close()
        answer = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        yield [one for family in text_string_to_metric_families(answer.text) for one in family.samples]


@pytest.fixture(scope="module")
def shown(samples: list[Sample]) -> dict[str, set[str]]:
    """The same, as labels by name."""
    return {sample.name: {*sample.labels, *SCRAPE} for sample in samples}


def known(shown: dict[str, set[str]]) -> dict[str, set[str]]:
    return DECLARED | shown | RECORDED | ITS_OWN


def test_what_a_server_shows_is_what_the_list_says(shown):
    from_database = {
        name for name in shown.keys() - DECLARED.keys() if re.search(rf'"{name.removeprefix("orders_")}"', SOURCES)
    }

    assert shown.keys() - DECLARED.keys() - from_database == {"orders_build_info", "orders_database_up"}
    assert {name: labels for name, labels in shown.items() if name in DECLARED} == {
        name: labels for name, labels in DECLARED.items() if name in shown
    }
    assert {name for name, labels in DECLARED.items() if labels == SCRAPE} <= shown.keys()


@pytest.mark.parametrize("where", WHERE)
def test_each_query_names_metrics_and_labels_that_exist(where, shown):
    there = known(shown)
    for query in queries()[where]:
        parsed = promql.parse(query.text)
        asked = list(selectors(parsed))
        assert asked, query.text
        for selector in asked:
            assert selector.name in there, query.text
            assert {matcher.name for matcher in selector.matchers.matchers} <= there[selector.name], query.text
        for part, label in labels_asked_of(parsed):
            assert any(label in there[one.name] for one in selectors(part)), f"{label} in {query.text}"
        assert query.legend <= {label for one in asked for label in there[one.name]}, query.text


@pytest.mark.parametrize("where", WHERE)
def test_each_query_asks_for_values_that_exist(where):
    """Where no table says which there are, the code has them as a literal."""
    asked = {
        (matcher.name, value)
        for query in queries()[where]
        for selector in selectors(promql.parse(query.text))
        for matcher in selector.matchers.matchers
        if matcher.name not in FREE and not (where == "alerts.test.yml" and 'job="something-else"' in query.text)
        for value in values_in(matcher)
    }

    assert len(asked) > 3
    tabled = {(name, value) for name, value in asked if name in VALUES}
    assert not {(name, value) for name, value in tabled if value not in VALUES[name]}
    assert not {value for _, value in asked - tabled if value not in LABELLED and f'"{value}"' not in SOURCES}


def test_each_metric_is_looked_at(shown):
    looked_at = {
        re.sub("_(bucket|sum|count)$", "", one.name)
        for where in ("alerts.yml", "orders-api.json")
        for query in queries()[where]
        for one in selectors(promql.parse(query.text))
    }
    there = {re.sub("_(bucket|sum|count)$", "", name) for name in DECLARED | shown}

    assert there - looked_at == {*UNUSED}


def test_what_can_happen_to_a_payment_is_counted_from_0(samples):
    """Else the first of its kind, of which there may be one a year, is no increase to Prometheus."""
    (selector,) = selectors(promql.parse(ALERTS["PaymentNotApplied"]["expr"]))
    (outcomes,) = [values_in(one) for one in selector.matchers.matchers if one.name == "outcome"]
    counted = {one.labels["outcome"]: one.value for one in samples if one.name == selector.name}

    assert {*outcomes} <= counted.keys()
    assert {*counted.values()} == {0}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_scenario_in_which_it_fires_and_one_in_which_it_is_quiet(name):
    scenarios = [scenario for scenario in SCENARIOS if scenario["name"].startswith(f"{name}: ")]
    checks = [check for scenario in scenarios for check in scenario["promql_expr_test"]]

    assert any(f'alertname="{name}"' in sample["labels"] for check in checks for sample in check.get("exp_samples", ()))
    assert any("exp_samples" not in check for check in checks)


def test_the_panels_lie_side_by_side():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_each_panel_asks_the_source_that_is_provisioned_by_the_instance_that_is_chosen():
    sources = [one["datasource"] for one in (*PANELS, *DASHBOARD["annotations"]["list"])]
    sources += [one["datasource"] for one in DASHBOARD["templating"]["list"] if "datasource" in one]

    assert all(one == {"type": SOURCE["type"], "uid": SOURCE["uid"]} for one in sources)
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            over_all = "ALERTS" in target["expr"] or "job:" in target["expr"]
            selected = target["expr"].count('instance=~"$instance"')
            assert selected == (0 if over_all else len(re.findall(r"\borders_\w+", target["expr"])) or 1), target[
                "expr"
            ]


def test_grafana_and_prometheus_find_each_other_and_their_files_in_the_compose_file():
    mounts = {one: [volume.split(":")[:2] for volume in COMPOSE[one]["volumes"]] for one in ("prometheus", "grafana")}

    assert SOURCE["url"] == "http://prometheus:9090"
    assert ["./conf/grafana", PROVIDER["options"]["path"]] in mounts["grafana"]
    assert ["./conf/prometheus", "/etc/prometheus"] in mounts["prometheus"]
    assert yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["rule_files"] == ["alerts.yml"]
    assert SCRAPED["static_configs"] == [{"targets": ["api:8000"]}]
    assert "api" in COMPOSE
    assert [file.name for file in GRAFANA.glob("*.json")] == ["orders-api.json"]
