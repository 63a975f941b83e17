"""Endpoints and deliveries as they go out."""

import base64
from typing import Any

from marshmallow import fields, validate

from orders_api.orders.models import EVENT_TYPES
from orders_api.values import format_time
from orders_api.web.operations import PageShape, Shape
from orders_api.webhooks.models import Delivery, DeliveryAttempt, Endpoint


class EndpointShape(Shape):
    id = fields.UUID(required=True)
    url = fields.String(required=True, metadata={"format": "uri"})
    description = fields.String(required=True)
    event_types = fields.List(fields.String(validate=validate.OneOf(EVENT_TYPES)), required=True)
    state = fields.String(required=True, validate=validate.OneOf(["enabled", "disabled"]))
    disabled_reason = fields.String(required=True, allow_none=True, metadata={"description": "gone, or failing."})
    created_at = fields.AwareDateTime(required=True)


class EndpointWithSecretShape(EndpointShape):
    secret = fields.String(required=True, metadata={"description": "`whsec_<base64>`; shown now and never again."})


class EndpointsShape(Shape):
    data = fields.List(fields.Nested(EndpointShape), required=True)


class AttemptShape(Shape):
    number = fields.Integer(required=True)
    at = fields.AwareDateTime(required=True)
    duration_ms = fields.Integer(required=True)
    status = fields.Integer(required=True, allow_none=True, metadata={"description": "Null: no answer."})
    error = fields.String(required=True, allow_none=True)


class DeliveryShape(Shape):
    sequence = fields.Integer(required=True, metadata={"description": "The event's."})
    type = fields.String(required=True, validate=validate.OneOf(EVENT_TYPES))
    state = fields.String(required=True, validate=validate.OneOf(["pending", "delivered", "failed"]))
    next_attempt_at = fields.AwareDateTime(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    attempts = fields.List(fields.Nested(AttemptShape), required=True)


class DeliveryPageShape(PageShape):
    data = fields.List(fields.Nested(DeliveryShape), required=True)


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
