"""One resource in terms of OpenAPI: from its responders' `@operation`, its schemas, and what it is."""

from collections.abc import Iterable, Mapping
from typing import Any

import falcon

from orders_api.admission import Priority
from orders_api.errors import PROBLEMS
from orders_api.web import docs, problems
from orders_api.web.operations import REQUEST_HEADERS, Answer, Header, Operation
from orders_api.web.resources import METHODS, NO_PARAMETERS, Resource

PATH_PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "order_id": ("The order's id.", {"type": "string", "format": "uuid"}),
    "endpoint_id": ("The endpoint's id.", {"type": "string", "format": "uuid"}),
    "sequence": ("The event's number.", {"type": "integer", "minimum": 1, "maximum": 10**18}),
    "key": ("The key, percent-encoded.", {"type": "string", "minLength": 1, "maxLength": 255}),
    "asset": ("The file's name.", {"type": "string", "enum": list(docs.TYPES)}),
    "code": ("The problem's code.", {"type": "string", "enum": list(PROBLEMS)}),
}
ALWAYS = ("validation_failed", "internal_error", "overloaded", "database_unavailable")
OF_BODIES = ("malformed_json", "body_too_large", "media_type_unsupported")
OF_TOKENS = ("token_missing", "token_invalid", "token_expired")
HEADERS_OF = {
    401: ("WWW-Authenticate",),
    409: ("Retry-After", "Link", "Location"),
    412: ("ETag",),
    415: ("Accept-Patch",),
    429: ("Retry-After",),
    500: ("Retry-After",),
    503: ("Retry-After",),
}


def header(described: Header) -> dict[str, Any]:
    return {"description": described.description, "required": described.required, "schema": dict(described.schema)}


def operations(resource: Resource) -> dict[str, Any]:
    """What can be done with a resource, by the method in lower case."""
    found = {}
    for method in METHODS:
        described = getattr(getattr(resource, f"on_{method.lower()}", None), "operation", None)
        if described and method != "HEAD":  # it is GET's
            found[method.lower()] = _operation(resource, method, described)
    return found


def _operation(resource: Resource, method: str, described: Operation) -> dict[str, Any]:
    tag = type(resource).__module__.split(".")[1]
    security = described.security or ("token" if resource.authenticated else None)
    found: dict[str, Any] = {
        "operationId": described.name,
        "summary": described.summary,
        "description": described.description,
        "tags": ["service" if tag == "web" else tag],
        "security": [{security: []}] if security else [],
        "parameters": [*_query(resource, method), *_headers(described)],
        "responses": {**_answers(resource, described), **_problems(resource, method, described)},
    }
    if described.body is not None:
        content = {"schema": described.body, **_examples(described.examples)}
        found["requestBody"] = {"required": True, "content": dict.fromkeys(described.media_types, content)}
    return found


def _query(resource: Resource, method: str) -> list[dict[str, Any]]:
    if method != "GET" or resource.query is NO_PARAMETERS:
        return []
    return [{"in": "query", "schema": resource.query}]


def _headers(described: Operation) -> list[dict[str, Any]]:
    return [
        {"in": "header", "name": name, **header(REQUEST_HEADERS[name])}
        for name in (*described.headers, "traceparent", "sentry-trace")
        if name.lower() != "webhook-signature"  # it is the operation's security
    ]


def path_parameters(template: str) -> list[dict[str, Any]]:
    names = [part.strip("{}").partition(":")[0] for part in template.split("/") if part.startswith("{")]
    return [
        {"in": "path", "name": name, "required": True, "description": text, "schema": schema}
        for name in names
        for text, schema in [PATH_PARAMETERS[name]]
    ]


def _answers(resource: Resource, described: Operation) -> dict[str, Any]:
    return {str(answer.status): _answer(resource, answer) for answer in described.answers}


def _answer(resource: Resource, answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.description, "headers": _header_refs(resource, answer.headers)}
    content: dict[str, Any] = {media_type: {"schema": _plain(media_type)} for media_type in answer.media_types}
    if answer.shape:
        example = {"example": answer.example} if answer.example else {}
        content[falcon.MEDIA_JSON] = {"schema": answer.shape, **example}
    return {**found, "content": content} if content else found


def _plain(media_type: str) -> dict[str, str]:
    """What nobody has described any closer."""
    return {"type": "object" if media_type == falcon.MEDIA_JSON else "string"}


def _header_refs(resource: Resource, names: Iterable[str]) -> dict[str, Any]:
    limited = ("RateLimit-Policy", "RateLimit") if resource.limits or resource.limits_failures else ()
    return {name: name for name in ("X-Trace-Id", "Cache-Control", *names, *limited)}


def codes_of(resource: Resource, method: str, described: Operation) -> list[str]:
    """All problems that an operation may answer."""
    query = resource.query.fields if method == "GET" else {}
    found = {*described.problems, "validation_failed"}
    if resource.priority is not Priority.HEALTH:
        found.update(ALWAYS)
    if described.body is not None:
        found.update(OF_BODIES)
    if resource.limits:
        found.add("rate_limited")
    if resource.authenticated:
        found.update(OF_TOKENS)
    if "cursor" in query:
        found.add("cursor_invalid")
    return [code for code in PROBLEMS if code in found]


def _problems(resource: Resource, method: str, described: Operation) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in codes_of(resource, method, described):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {str(status): _problem(resource, status, codes) for status, codes in by_status.items()}


def _problem(resource: Resource, status: int, codes: list[str]) -> dict[str, Any]:
    only_these = {"properties": {"code": {"enum": codes}, "status": {"const": status}}}
    return {
        "description": "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in codes) + ".",
        "headers": _header_refs(resource, HEADERS_OF.get(status, ())),
        "content": {
            problems.MEDIA_TYPE: {
                "schema": {"allOf": [problems.ProblemShape, only_these]},
                "examples": {code: code for code in codes},
            }
        },
    }


def _examples(examples: Mapping[str, Any]) -> dict[str, Any]:
    return {"examples": {name: {"value": value} for name, value in examples.items()}} if examples else {}
