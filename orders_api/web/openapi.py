"""The API described for machines (OpenAPI 3.1): from the routes, what responders say of themselves, and the schemas."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import falcon
import orjson
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.field_converter import FieldConverterMixin

import orders_api
from orders_api.admission import Priority
from orders_api.errors import PROBLEMS
from orders_api.web import problems
from orders_api.web.operations import ANSWER_HEADERS, REQUEST_HEADERS, Answer, Operation, operation
from orders_api.web.resources import METHODS, NO_PARAMETERS, Resource
from orders_api.web.validation import Field

DESCRIPTION = """\
Orders that other people's money passes through.

**Log in** at `POST /auth/login` and send `Authorization: Bearer <access_token>`. **Create** with a fresh
`Idempotency-Key`, the same one on every retry: there is never a second order. **Page** with `next_cursor` until it is
null. **Errors** are problem documents (RFC 9457): `code` says which, `errors` names all that is wrong, `retry` whether
the request may be sent again, `type` leads to an explanation, and the `trace_id` finds it in our logs.
Money is in minor units; times are RFC 3339 in UTC. HEAD works wherever GET does; every answer carries an `X-Trace-Id`.
"""
TAGS = {
    "accounts": "Accounts and sessions.",
    "orders": "Orders, their history, and the feed of all changes.",
    "payments": "What the payment provider tells us.",
    "webhooks": "What we tell others.",
    "service": "How the service is, and what its errors mean.",
}
SECURITY = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "From `POST /auth/login`."},
    "metrics": {"type": "http", "scheme": "bearer", "description": "The setting `METRICS_TOKEN`."},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "webhook-signature",
        "description": "HMAC-SHA256 over `id.timestamp.body` (Standard Webhooks).",
    },
}
PATH_PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "order_id": ("The order's id.", {"type": "string", "format": "uuid"}),
    "endpoint_id": ("The endpoint's id.", {"type": "string", "format": "uuid"}),
    "sequence": ("The event's number.", {"type": "integer", "minimum": 1, "maximum": 10**18}),
    "key": ("The key, percent-encoded.", {"type": "string", "minLength": 1, "maxLength": 255}),
    "code": ("The problem's code.", {"type": "string", "enum": list(PROBLEMS)}),
}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"  # of the examples in W3C Trace Context
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


def document(routes: Mapping[str, Resource]) -> dict[str, Any]:
    """The whole description, by route template."""
    plugin = MarshmallowPlugin(schema_name_resolver=_name_of)
    spec = APISpec(
        title="Orders API",
        version=orders_api.__version__,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={
            "description": DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
            "contact": {"name": "The team that runs this service", "url": "/docs"},
        },
        servers=[{"url": "/", "description": "This service"}],
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    converter = plugin.converter
    assert converter is not None, "APISpec makes it"
    converter.add_attribute_function(_our_schema)
    for name, scheme in SECURITY.items():
        spec.components.security_scheme(name, scheme)
    for name, header in ANSWER_HEADERS.items():
        described = {"description": header.description, "schema": dict(header.schema), "required": header.required}
        spec.components.header(name, described)
    for code in PROBLEMS:
        spec.components.example(code, {"summary": PROBLEMS[code].title, "value": problems.example(code, TRACE_ID)})
    for template, resource in routes.items():
        operations = dict(_operations(resource))
        spec.path(path=template.replace(":path}", "}"), operations=operations, parameters=_path_parameters(template))
    found = spec.to_dict()
    for key, name in converter.refs.items():
        found["components"]["schemas"][name].update(getattr(key[0], "beyond_fields", {}))
    return found


def _name_of(schema: Any) -> str:
    kind = schema if isinstance(schema, type) else type(schema)
    return kind.__name__.removesuffix("Shape")


def _our_schema(converter: FieldConverterMixin, field: Any, **_: Any) -> dict[str, Any]:
    if not isinstance(field, Field):
        return {}
    schema = _resolved(converter, field.json_schema())
    return {**schema, "type": [schema["type"], "null"]} if field.allow_none else schema


def _resolved(converter: Any, schema: Any) -> Any:
    """With references in place of the schemas that a field's JSON Schema holds."""
    if isinstance(schema, dict):
        return {name: _resolved(converter, value) for name, value in schema.items()}
    if isinstance(schema, list):
        return [_resolved(converter, value) for value in schema]
    return converter.resolve_nested_schema(schema) if isinstance(schema, type) else schema


def _operations(resource: Resource) -> Iterator[tuple[str, dict[str, Any]]]:
    for method in METHODS:
        described = getattr(getattr(resource, f"on_{method.lower()}", None), "operation", None)
        if described and method != "HEAD":  # it is GET's
            yield method.lower(), _operation(resource, method, described)


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
    named = {name: REQUEST_HEADERS[name] for name in (*described.headers, "traceparent")}
    return [
        {
            "in": "header",
            "name": name,
            "required": header.required,
            "description": header.description,
            "schema": dict(header.schema),
        }
        for name, header in named.items()
        if name.lower() != "webhook-signature"  # it is the operation's security
    ]


def _path_parameters(template: str) -> list[dict[str, Any]]:
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
    limited = ("RateLimit-Policy", "RateLimit") if resource.limits else ()
    return {name: name for name in ("X-Trace-Id", *names, *limited)}


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


class OpenApi(Resource):
    """`/openapi.json`: the description, the same for everybody."""

    authenticated = False
    limits: ClassVar[tuple[str, ...]] = ("ip",)

    def __init__(self) -> None:
        self.body = b""

    def describe(self, routes: Mapping[str, Resource]) -> None:
        """Call once, when all routes are known: this one is among them."""
        self.body = orjson.dumps(document(routes))

    @operation(
        "openapi",
        "This description",
        "OpenAPI 3.1.",
        Answer(200, "It.", media_types=(falcon.MEDIA_JSON,)),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.set_header("Cache-Control", "public, max-age=300")
        resp.content_type = falcon.MEDIA_JSON
        resp.data = self.body
