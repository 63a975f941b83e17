"""Endpoints as they come in and go out."""

import base64
from typing import Any

import gevent
import marshmallow
from marshmallow import fields

from orders_api.admission import in_flight
from orders_api.values import format_time
from orders_api.web.validation import REQUIRED, Choice, Schema, Text, fault
from orders_api.webhooks import addresses
from orders_api.webhooks.models import Delivery, DeliveryAttempt, Endpoint
from orders_api.webhooks.services import EVENT_TYPES

RESOLVE_S = 2.0


class Url(Text):
    """Where it leads is asked now, and again before each attempt. A name that means nothing yet may come to."""

    allow_private = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(1, addresses.MAX_URL_CHARACTERS, **kwargs)

    def checked(self, value: str) -> str:
        try:
            url = addresses.parse_url(value, allow_private=self.allow_private)
            with in_flight.aside(), gevent.Timeout(RESOLVE_S, False):
                addresses.resolve(url, allow_private=self.allow_private)
        except addresses.Forbidden as forbidden:
            raise fault("invalid_value", str(forbidden)) from None
        except (OSError, UnicodeError):
            pass
        return value


class EventTypes(fields.Field):
    """Some of the types, each once; all of them where none is named."""

    default_error_messages = REQUIRED
    kind = Choice(EVENT_TYPES)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[str]:
        if not isinstance(value, list):
            raise fault("invalid_type", "Must be a list.")
        if not 1 <= len(value) <= len(EVENT_TYPES):
            raise fault("out_of_range", f"Must have 1 to {len(EVENT_TYPES)} types.")
        errors = {}
        for position, kind in enumerate(value):
            try:
                self.kind.deserialize(kind)
            except marshmallow.ValidationError as e:
                errors[position] = e.normalized_messages()
        if errors:
            raise marshmallow.ValidationError(errors)
        if len(set(value)) < len(value):
            raise fault("invalid_value", "Must name each type once.")
        return value


class NewEndpoint(Schema):
    url = Url(required=True)
    description = Text(0, 200, load_default="")
    event_types = EventTypes(load_default=list(EVENT_TYPES))

    def __init__(self, *, allow_private: bool) -> None:
        super().__init__()
        self.fields["url"].allow_private = allow_private  # type: ignore[attr-defined]


def endpoint_document(endpoint: Endpoint, *, with_secret: bool = False) -> dict[str, Any]:
    document = {
        "id": str(endpoint.id),
        "url": endpoint.url,
        "description": endpoint.description,
        "event_types": endpoint.event_types,
        "state": "disabled" if endpoint.disabled_at else "enabled",
        "disabled_reason": endpoint.disabled_reason,
        "created_at": format_time(endpoint.created_at),
    }
    if with_secret:
        document["secret"] = "whsec_" + base64.b64encode(bytes(endpoint.secret)).decode()
    return document


def delivery_document(delivery: Delivery, attempts: list[DeliveryAttempt]) -> dict[str, Any]:
    return {
        "sequence": delivery.sequence,
        "type": delivery.type,
        "state": delivery.state,
        "next_attempt_at": format_time(delivery.next_attempt_at) if delivery.state == "pending" else None,
        "created_at": format_time(delivery.created_at),
        "attempts": [
            {
                "number": attempt.number,
                "at": format_time(attempt.began_at),
                "duration_ms": attempt.duration_ms,
                "status": attempt.status,
                "error": attempt.error,
            }
            for attempt in attempts
        ],
    }
