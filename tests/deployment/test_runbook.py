"""The runbook: a section for each alert, statements that run, fields that a log line has."""

import re

import psycopg
import pytest

from tests.client import Client
from tests.conftest import ROOT, Server
from tests.deployment.promql import ALERTS, DASHBOARD, PANELS, runbook

SOURCES = "".join(file.read_text() for file in (ROOT / "orders_api").rglob("*.py"))
SECTIONS = re.findall(r"^## (.*)$", runbook(), re.MULTILINE)
VALUES = {"user_id": "01a20814-59e4-74bc-910e-372d2e4587d7", "trace_id": "0" * 32}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_tells_whoever_it_wakes_what_to_do(name):
    said, rule = ALERTS[name]["annotations"], ALERTS[name]

    assert rule["labels"]["severity"] in ("page", "ticket")
    assert said["summary"][-1] != "."
    assert 60 < len(said["description"]) < 400
    assert said["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", runbook(), re.MULTILINE | re.DOTALL)
    assert section.startswith("Page." if rule["labels"]["severity"] == "page" else "Ticket")
    for part in ("^- Users feel: ", "^- Look", "[Cc]auses", "^- Do", "Over when|The alert ends"):
        assert re.search(part, section, re.MULTILINE), part


def test_the_runbook_has_no_section_of_an_alert_that_is_not():
    assert sorted(SECTIONS) == sorted([*ALERTS, "Where to look", "From a trace id"])
    assert len(runbook().splitlines()) <= 250


def test_the_dashboard_links_to_sections_of_the_runbook():
    anchors = {heading.lower().replace(" ", "-") for heading in SECTIONS}
    links = [link["url"] for panel in PANELS for link in panel.get("links", ())]

    assert len(links) > len(ALERTS)
    assert {link.removeprefix("${runbook:raw}#") for link in links} <= anchors
    assert [link["url"] for link in DASHBOARD["links"]] == ["${runbook:raw}"]
    (variable,) = [one for one in DASHBOARD["templating"]["list"] if one["name"] == "runbook"]
    assert (ROOT / variable["query"]).is_file()


def test_each_statement_in_the_runbook_can_be_run(sql: psycopg.Connection):
    fenced = re.findall(r"```sql\n(.*?)```", runbook(), re.DOTALL)
    inline = re.findall(r"`(SELECT (?!pg_terminate|1).*?)`", runbook())
    statements = [one.strip() for block in fenced for one in block.split(";") if one.strip()] + inline

    assert len(statements) >= 9
    for statement in statements:
        sql.execute(re.sub(r":'(\w+)'", lambda match: f"'{VALUES[match[1]]}'", statement))


def test_the_runbook_reads_the_log_by_fields_that_a_line_has(server: Server, alice: Client):
    asked = {
        field
        for expression in re.findall(r"fromjson\? \|(.*)", runbook())
        for field in re.findall(r"(?<![\w)])\.(\w+)", expression)
    }
    asked |= {field for expression in re.findall(r"\| \{(.*?)\}", runbook()) for field in expression.split(", ")}
    alice.get("/auth/me")
    line = next(line for line in server.log().splitlines() if '"/auth/me"' in line)

    assert len(asked) > 8
    assert {field for field in asked if f'"{field}":' not in line} <= {"error", "sqlstate"}
    assert re.findall(r'\.event == "(?!request)([^"]+)"', runbook()) == ["database problem"]
    assert '"database problem"' in SOURCES
