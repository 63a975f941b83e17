"""The API's description: complete, true, and compatible with the one that was released last.

That every answer is one that it announces is checked of every answer that any test gets (tests/conforms.py).
"""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openapi_spec_validator
import orjson
import pytest

from orders_api.app import describe
from orders_api.errors import PROBLEMS
from tests import breaking, conforms
from tests.client import Client
from tests.conftest import Server
from tests.web.test_problems import ROUTES

RELEASED = Path(conforms.DESCRIPTION).with_name("openapi-released.json")
# Refused before it is known what was asked for, so no operation announces them.
OF_NO_OPERATION = {"method_not_allowed"}
IDS = {"order_id": "00000000-0000-7000-8000-000000000000", "endpoint_id": "e", "sequence": "1", "key": "k"}


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    """Method, template, operation."""
    paths = conforms.description()["paths"]
    return [(m.upper(), path, o) for path, item in paths.items() for m, o in item.items() if m != "parameters"]


def path_of(template: str) -> str:
    return template.format(**IDS, code="overloaded", asset="docs.js")


def test_the_kept_file_is_what_the_code_says():
    assert describe() == conforms.description(), "run `make openapi`, and look at what changed"


def test_the_service_serves_it_to_everybody(http: httpx.Client):
    answer = http.get("/openapi.json")
    assert answer.json() == conforms.description()
    assert answer.headers["Content-Type"] == "application/json"


def test_it_is_valid_openapi():
    openapi_spec_validator.validate(conforms.description())
    assert conforms.description()["openapi"] == "3.1.0"


def test_it_has_every_route_and_method():
    described = {(method, path_of(template)) for method, template, _ in operations()}
    served = {
        (m, path) for path, allowed in ROUTES.items() for m in allowed.split(", ") if m not in ("HEAD", "OPTIONS")
    }
    assert described - {("GET", "/metrics")} == served


def test_every_problem_is_announced_with_an_example_that_is_true():
    announced = {
        code
        for _, _, operation in operations()
        for answer in operation["responses"].values()
        for code in answer.get("content", {}).get("application/problem+json", {}).get("examples", {})
    }
    assert announced == set(PROBLEMS) - OF_NO_OPERATION
    for code, example in conforms.description()["components"]["examples"].items():
        conforms.validator({"$ref": "#/components/schemas/Problem"}).validate(example["value"])
        assert (example["value"]["code"], example["value"]["status"]) == (code, PROBLEMS[code].status)
        assert example["value"]["title"] == PROBLEMS[code].title


def test_every_example_of_a_body_fits_its_schema():
    seen = 0
    for _, _, operation in operations():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in [content for body in bodies for content in body.get("content", {}).values()]:
            examples = [example["value"] for example in content.get("examples", {}).values() if "value" in example]
            for example in [*examples, *([content["example"]] if "example" in content else [])]:
                conforms.validator(content["schema"]).validate(example)
                seen += 1
    assert seen >= 10


def test_every_operation_that_takes_a_body_shows_one():
    for _, _, operation in operations():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["examples"], operation["operationId"]


def test_the_examples_can_be_sent(serve: Callable[..., Server]):
    server = serve()
    client = Client(server.url)
    examples = {
        operation["operationId"]: [
            example["value"]
            for example in next(iter(operation["requestBody"]["content"].values()))["examples"].values()
        ]
        for _, _, operation in operations()
        if "requestBody" in operation
    }
    for account in examples["register"]:
        assert client.post("/auth/register", json=account).status_code == 201
    for credentials in examples["log_in"]:
        client.access_token = client.post("/auth/login", json=credentials).json()["access_token"]
    for order in examples["place_order"]:
        placed = client.place(order)
        assert placed.status_code == 201
    for change in reversed(examples["change_order"]):
        assert client.patch(placed.headers["Location"], json=change).status_code == 200
    for endpoint in examples["add_endpoint"]:
        assert client.post("/webhook-endpoints", json=endpoint).status_code == 201
    client.close()


VALUES = {"limit": "3", "status": "paid", "include": "items", "created_after": "2026-11-25T10:00:00Z"}
VALUES["created_before"] = VALUES["created_after"]


@pytest.mark.parametrize("method_path", [f"{m} {p}" for m, p, o in operations() if m == "GET" and p != "/metrics"])
def test_every_parameter_is_taken_and_no_other(alice: Client, method_path: str):
    method, template = method_path.split()
    operation = conforms.description()["paths"][template]["get"]
    names = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"]
    query = {name: VALUES[name] for name in names if name != "cursor"}
    assert alice.request(method, path_of(template), params=query).status_code in (200, 404)
    assert alice.request(method, path_of(template), params={"surely_unknown": "1"}).status_code == 422


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p, o in operations() if o["security"] == [{"token": []}]])
def test_who_needs_a_token_is_refused_without_one(http: httpx.Client, method: str, path: str):
    assert http.request(method, path_of(path)).status_code == 401


def test_required_headers_are_required(alice: Client):
    for method, path, operation in operations():
        required = [p["name"] for p in operation["parameters"] if p["in"] == "header" and p["required"]]
        if required and operation["security"] == [{"token": []}]:
            answer = alice.request(method, path_of(path), json={"currency": "EUR", "total_cents": 1})
            assert answer.status_code == 400, operation["operationId"]


# Compatibility


def test_nothing_breaks_clients_of_the_last_release():
    assert breaking.changes(orjson.loads(RELEASED.read_bytes()), conforms.description()) == []


ORDER = ("components", "schemas", "Order")
NEW_ORDER = ("components", "schemas", "NewOrder")
LIST = ("paths", "/orders", "get")
PLANTED: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "a path removed": (("paths",), lambda paths: paths.pop("/events")),
    "a method removed": (("paths", "/orders"), lambda item: item.pop("post")),
    "an operation renamed": (LIST, lambda operation: operation.update(operationId="orders")),
    "a parameter removed": (LIST, lambda operation: operation["parameters"].pop(1)),
    "a parameter that is required now": (LIST, lambda operation: operation["parameters"][1].update(required=True)),
    "a parameter's bound narrowed": (LIST, lambda operation: operation["parameters"][1]["schema"].update(maximum=50)),
    "credentials where none were needed": (("paths", "/healthz", "get"), lambda o: o.update(security=[{"token": []}])),
    "a status removed": (("paths", "/orders/{order_id}", "get", "responses"), lambda answers: answers.pop("304")),
    "a header removed": (("paths", "/orders", "post", "responses", "201", "headers"), lambda h: h.pop("Location")),
    "a property that answers lack": (ORDER, lambda schema: schema["properties"].pop("version")),
    "a property that answers may lack": (ORDER, lambda schema: schema["required"].remove("version")),
    "a property of another type": (ORDER, lambda schema: schema["properties"]["version"].update(type="string")),
    "a property that may be null": (ORDER, lambda s: s["properties"]["version"].update(type=["integer", "null"])),
    "a new status of an order": (ORDER, lambda schema: schema["properties"]["status"]["enum"].append("lost")),
    "a field that is required now": (NEW_ORDER, lambda schema: schema["required"].append("metadata")),
    "a field that is unknown now": (NEW_ORDER, lambda schema: schema["properties"].pop("metadata")),
    "a value that is refused now": (NEW_ORDER, lambda schema: schema["properties"]["currency"]["enum"].remove("EUR")),
    "fewer items": (NEW_ORDER, lambda schema: schema["properties"]["items"].update(maxItems=10)),
    "a media type that is not taken": (
        ("paths", "/orders/{order_id}", "patch", "requestBody", "content"),
        lambda content: content.pop("application/merge-patch+json"),
    ),
}


def changed(where: tuple[str, ...], change: Callable[[Any], Any]) -> dict[str, Any]:
    """The description with one change at a place."""
    new = copy.deepcopy(conforms.description())
    change(functools.reduce(lambda place, name: place[name], where, new))
    return new


@pytest.mark.parametrize("planted", PLANTED)
def test_a_breaking_change_is_seen(planted: str):
    assert breaking.changes(conforms.description(), changed(*PLANTED[planted]))


ADDED: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "a path": (("paths",), lambda paths: paths.update({"/new": paths["/events"]})),
    "an optional field": (NEW_ORDER, lambda schema: schema["properties"].update(note={"type": "string"})),
    "a property of answers": (ORDER, lambda schema: schema["properties"].update(note={"type": "string"})),
    "a wider bound": (NEW_ORDER, lambda schema: schema["properties"]["items"].update(maxItems=1000)),
    "a problem": (("paths", "/events", "get", "responses"), lambda answers: answers.update({"402": answers["401"]})),
    "words": (LIST, lambda operation: operation.update(description="other words")),
}


@pytest.mark.parametrize("added", ADDED)
def test_what_is_added_breaks_nothing(added: str):
    assert breaking.changes(conforms.description(), changed(*ADDED[added])) == []
