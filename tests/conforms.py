"""Whether an answer is one that the API's description announces: every answer to a `Client` of the tests is checked."""

import functools
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import orjson
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

DESCRIPTION = Path(__file__).parent.parent / "docs" / "openapi.json"
# Of HTTP, of gunicorn and of every answer: no operation names them.
EVERYWHERE = {"server", "date", "connection", "content-type", "content-length", "transfer-encoding", "vary", "allow"}
EVERYWHERE |= {"x-content-type-options", "server-timing"}
# Of no operation: what isn't described is refused with one of these.
UNDESCRIBED = {"route_not_found", "method_not_allowed", "rate_limited"}


def check(response: httpx.Response) -> None:
    """Raises AssertionError, for httpx's event hooks."""
    response.read()
    if response.status_code == 400 and response.headers["Content-Type"] == "text/html":
        return  # so broken that gunicorn refused it before the application
    request = response.request
    method = "GET" if request.method == "HEAD" else request.method
    operation = operation_of(method, request.url.raw_path.decode().partition("?")[0])
    where = f"{request.method} {request.url.path} → {response.status_code}: {response.text[:300]}"
    if operation is None:
        described = method == "OPTIONS" or response.json()["code"] in UNDESCRIBED
        assert described, where
        return
    answer = operation["responses"].get(str(response.status_code))
    assert answer, f"not announced: {where}"
    _check_headers(answer, response, where)
    if request.method != "HEAD":
        _check_body(answer, response, where)


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    """The operation of the first template that matches; those without parameters are first."""
    for pattern, operations in _patterns():
        if pattern.fullmatch(path):
            return operations.get(method.lower())
    return None


def _check_headers(answer: dict[str, Any], response: httpx.Response, where: str) -> None:
    announced = {name.lower() for name in answer.get("headers", {})}
    unannounced = set(response.headers) - announced - EVERYWHERE
    assert not {name for name in unannounced if not name.startswith("access-control-")}, f"{unannounced}: {where}"
    for name, reference in answer.get("headers", {}).items():
        header = description()["components"]["headers"][reference["$ref"].rpartition("/")[2]]
        assert name in response.headers or not header["required"], f"without {name}: {where}"
        if name in response.headers and "pattern" in header["schema"]:
            assert re.search(header["schema"]["pattern"], response.headers[name]), f"{name}: {where}"


def _check_body(answer: dict[str, Any], response: httpx.Response, where: str) -> None:
    if "content" not in answer:
        assert not response.content, f"a body: {where}"
        return
    media_type = response.headers["Content-Type"].partition(";")[0]
    assert media_type in answer["content"], f"as {media_type}: {where}"
    if media_type.endswith("json"):
        errors = sorted(validator(answer["content"][media_type]["schema"]).iter_errors(response.json()), key=str)
        assert not errors, f"{errors[0].message[:300]} at {errors[0].json_path}: {where}"


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """Of a schema in the description, its references resolved, formats checked."""
    return jsonschema.Draft202012Validator(
        _absolute(schema), registry=_registry(), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


@functools.cache
def description() -> dict[str, Any]:
    return orjson.loads(DESCRIPTION.read_bytes())


@functools.cache
def _registry() -> Registry:
    return Registry().with_resource("urn:api", Resource(description(), DRAFT202012))


def _absolute(schema: Any) -> Any:
    """Its references lead into the whole description."""
    return orjson.loads(orjson.dumps(schema).replace(b'"#/components', b'"urn:api#/components'))


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    paths = sorted(description()["paths"].items(), key=lambda item: "{" in item[0])
    return [(_pattern(template), operations) for template, operations in paths]


def _pattern(template: str) -> re.Pattern[str]:
    """A key may hold a slash, percent-encoded or not."""
    parts = re.split(r"\{(\w+)\}", template)
    text = [re.escape(part) if n % 2 == 0 else ".+" if part == "key" else "[^/]+" for n, part in enumerate(parts)]
    return re.compile("".join(text))
