"""What a responder says of itself for the API's description: `@operation`. What can be derived is not said again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import falcon
import marshmallow
from marshmallow import fields

Responder = TypeVar("Responder", bound=Callable[..., Any])

TRACE_ID_PATTERN = "^[0-9a-f]{32}$"


class Shape(marshmallow.Schema):
    """A document that goes out: made by hand as a plain dict, described by this. Clients should bear new fields."""


class PageShape(Shape):
    """One page; `data` is the subclass's."""

    has_more = fields.Boolean(required=True)
    next_cursor = fields.String(required=True, allow_none=True, metadata={"description": "Null on the last page."})


@dataclass(frozen=True, slots=True)
class Header:
    """A header of a request or an answer, by its JSON Schema."""

    description: str
    schema: Mapping[str, Any]
    required: bool = False


TEXT = {"type": "string"}
SECONDS = {"type": "integer", "minimum": 0}

REQUEST_HEADERS = {
    "Idempotency-Key": Header(
        "Names this request, so that it can be sent again without a second effect: 1 to 255 printable ASCII characters,"
        " bare or as a quoted string. Make a fresh one (a UUID will do) for each order.",
        {**TEXT, "minLength": 1, "maxLength": 512, "examples": ["01a20814-b875-742d-bb03-f50f739fc0a4"]},
        required=True,
    ),
    "If-None-Match": Header("An `ETag` that you have: 304 when it is still the one.", TEXT),
    "If-Match": Header("An `ETag`: the change is refused with 412 when the order has another by now.", TEXT),
    "sentry-trace": Header("Sentry's own, where there is no traceparent.", TEXT),
    "traceparent": Header("W3C Trace Context: its trace id becomes this request's.", TEXT),
    "webhook-id": Header("The event's id: what comes twice has one effect.", {**TEXT, "minLength": 1}, required=True),
    "webhook-timestamp": Header(
        "When it was sent, in Unix seconds; five minutes off at the most.", TEXT, required=True
    ),
    "webhook-signature": Header("`v1,<base64>`, several separated by spaces.", TEXT, required=True),
}
ANSWER_HEADERS = {
    "X-Trace-Id": Header("Finds this request in our logs.", {**TEXT, "pattern": TRACE_ID_PATTERN}, required=True),
    "Cache-Control": Header("What may be kept, and by whom.", TEXT),
    "RateLimit-Policy": Header("The limit with the least share left: its quota and window in seconds.", TEXT),
    "RateLimit": Header("What remains of it, and in how many seconds it starts anew.", TEXT),
    "ETag": Header("The version of this representation (strong).", TEXT, required=True),
    "Location": Header("Where the resource is.", TEXT),
    "Link": Header('`rel="next"`: the next page; on the last one there is none.', TEXT),
    "Idempotent-Replayed": Header("`true` when an earlier request with this key got this answer first.", TEXT),
    "Idempotent-Original-Trace-Id": Header("The trace id of that earlier request.", TEXT),
    "Retry-After": Header("Seconds to wait before another try.", SECONDS),
    "WWW-Authenticate": Header("The challenge (RFC 6750).", TEXT),
    "Content-Security-Policy": Header("What a page may load: nothing from elsewhere.", TEXT),
    "Content-Encoding": Header("`gzip`, to who takes it.", TEXT),
    "Referrer-Policy": Header("Nobody else learns where a reader was.", TEXT),
    "Accept-Patch": Header("The formats of a patch that are understood.", TEXT),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One that is no problem; without a shape and media types it has no body.

    `headers`: those of ANSWER_HEADERS that it carries besides what all carry.
    """

    status: int
    description: str
    shape: type[Shape] | None = None
    example: Any = None
    headers: tuple[str, ...] = ()
    media_types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route. `problems`: those that don't follow from what the resource is."""

    name: str
    summary: str
    description: str
    answers: tuple[Answer, ...]
    body: marshmallow.Schema | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    media_types: tuple[str, ...] = (falcon.MEDIA_JSON,)
    security: str | None = None  # where it is not the bearer token of a user


def operation(
    name: str, summary: str, description: str, *answers: Answer, **more: Any
) -> Callable[[Responder], Responder]:
    """Describes a responder; outside of whatever else decorates it."""

    def decorate(responder: Responder) -> Responder:
        responder.operation = Operation(name, summary, description, answers, **more)  # type: ignore[attr-defined]
        return responder

    return decorate
