"""Endpoints as they come in."""

from typing import Any

import gevent
import marshmallow

from orders_api.admission import in_flight
from orders_api.orders.models import EVENT_TYPES
from orders_api.web.validation import Choice, Field, Schema, Text, fault
from orders_api.webhooks import addresses

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

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "uri", "maxLength": self.high}


class EventTypes(Field):
    """Some of the types, each once; all of them where none is named."""

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

    def json_schema(self) -> dict[str, Any]:
        most = len(EVENT_TYPES)
        return {"type": "array", "items": self.kind.json_schema(), "minItems": 1, "maxItems": most, "uniqueItems": True}


class NewEndpoint(Schema):
    url = Url(required=True)
    description = Text(0, 200, load_default="")
    event_types = EventTypes(load_default=list(EVENT_TYPES))

    def __init__(self, *, allow_private: bool = False) -> None:
        super().__init__()
        self.fields["url"].allow_private = allow_private  # type: ignore[attr-defined]
