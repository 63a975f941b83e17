"""The API described for machines (OpenAPI 3.1): from the routes, what responders say of themselves, and the schemas."""

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import falcon
import orjson
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.field_converter import FieldConverterMixin

import orders_api
from orders_api.errors import PROBLEMS
from orders_api.web import describing, problems
from orders_api.web.operations import ANSWER_HEADERS, Answer, operation
from orders_api.web.resources import Resource
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
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"  # of the examples in W3C Trace Context


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
            "contact": {"name": "The team that runs this service"},
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
        spec.components.header(name, describing.header(header), lazy=True)
    for code in PROBLEMS:
        example = {"summary": PROBLEMS[code].title, "value": problems.example(code, TRACE_ID)}
        spec.components.example(code, example, lazy=True)
    for template, resource in routes.items():
        spec.path(
            path=template.replace(":path}", "}"),
            operations=describing.operations(resource),
            parameters=describing.path_parameters(template),
        )
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


class OpenApi(Resource):
    """`/openapi.json`: the description, the same for everybody."""

    authenticated = False
    limits: ClassVar[tuple[str, ...]] = ("ip",)

    def __init__(self, routes: Mapping[str, Resource]) -> None:
        """`routes`: may still grow; this one is among them."""
        self.routes = routes

    @functools.cached_property
    def body(self) -> bytes:
        """Made when somebody first asks for it: most workers never tell."""
        return orjson.dumps(document(self.routes))

    @operation(
        "openapi",
        "This description",
        "OpenAPI 3.1.",
        Answer(200, "It.", media_types=(falcon.MEDIA_JSON,)),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.set_header("Cache-Control", "public, max-age=300")
        resp.data = self.body
