"""What goes out: orders and events as CONTRACT 4 shows them, and the shapes that describe them."""

from collections.abc import Sequence
from typing import Any

from marshmallow import fields, validate

from orders_api.orders.models import EVENT_TYPES, ItemRow, Order, OrderEvent, OrderItem, OrderRow
from orders_api.orders.states import STATUSES
from orders_api.values import format_time
from orders_api.web.operations import TRACE_ID_PATTERN, PageShape, Shape

EXAMPLE_ITEMS = [{"sku": "lamp-1", "name": "Desk lamp", "quantity": 2, "unit_price_cents": 625}]
EXAMPLE_ORDER = {
    "id": "01a20814-b875-742d-bb03-f50f739fc0a4",
    "status": "pending",
    "currency": "EUR",
    "total_cents": 1250,
    "metadata": {},
    "version": 1,
    "created_at": "2026-11-25T10:00:00.000000Z",
    "updated_at": "2026-11-25T10:00:00.000000Z",
}
EXAMPLE_WITH_ITEMS = {**EXAMPLE_ORDER, "items": EXAMPLE_ITEMS}
EXAMPLE_PAGE = {"data": [EXAMPLE_ORDER], "has_more": False, "next_cursor": None}


class ItemShape(Shape):
    sku = fields.String(required=True)
    name = fields.String(required=True)
    quantity = fields.Integer(required=True)
    unit_price_cents = fields.Integer(required=True)


class OrderShape(Shape):
    id = fields.UUID(required=True, metadata={"description": "UUIDv7."})
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    currency = fields.String(required=True, metadata={"description": "ISO 4217."})
    total_cents = fields.Integer(required=True, metadata={"description": "In minor units of the currency."})
    metadata = fields.Dict(required=True, keys=fields.String(), values=fields.String())
    version = fields.Integer(required=True, metadata={"description": "Goes up with each change."})
    created_at = fields.AwareDateTime(required=True)
    updated_at = fields.AwareDateTime(required=True)
    items = fields.List(fields.Nested(ItemShape), metadata={"description": "With `include=items`, and after a write."})


class OrderPageShape(PageShape):
    data = fields.List(fields.Nested(OrderShape), required=True)


class EventShape(Shape):
    sequence = fields.Integer(required=True, metadata={"description": "Counts all events of a user: 1, 2, 3 …"})
    type = fields.String(required=True, validate=validate.OneOf(EVENT_TYPES))
    data = fields.Dict(required=True, metadata={"description": "The order as it was then, or what changed."})
    created_at = fields.AwareDateTime(required=True)
    trace_id = fields.String(required=True, validate=validate.Regexp(TRACE_ID_PATTERN))


class EventPageShape(PageShape):
    data = fields.List(fields.Nested(EventShape), required=True)


class FeedEventShape(EventShape):
    order_id = fields.UUID(required=True)


class FeedPageShape(PageShape):
    data = fields.List(fields.Nested(FeedEventShape), required=True)
    next_cursor = fields.String(required=True, metadata={"description": "Never null: ask with it again later."})


class IdempotencyKeyShape(Shape):
    key = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf(["completed", "expired"]))
    order_id = fields.UUID(required=True)
    created_at = fields.AwareDateTime(required=True)
    expires_at = fields.AwareDateTime(required=True, metadata={"description": "Until then the answer is replayed."})
    trace_id = fields.String(required=True, validate=validate.Regexp(TRACE_ID_PATTERN))


class OrderDocument:
    """An order as CONTRACT 4 shows it."""

    @staticmethod
    def of(order: Order | OrderRow, items: Sequence[OrderItem | ItemRow] | None = None) -> dict[str, Any]:
        document = {
            "id": str(order.id),
            "status": order.status,
            "currency": order.currency,
            "total_cents": order.total_cents,
            "metadata": order.metadata,
            "version": order.version,
            "created_at": format_time(order.created_at),
            "updated_at": format_time(order.updated_at),
        }
        if items is not None:
            document["items"] = [
                {
                    "sku": item.sku,
                    "name": item.name,
                    "quantity": item.quantity,
                    "unit_price_cents": item.unit_price_cents,
                }
                for item in items
            ]
        return document


class EventDocument:
    """An event: in an order's history, or with its `order_id` in the feed over all of them."""

    @classmethod
    def in_feed(cls, event: OrderEvent) -> dict[str, Any]:
        return {**cls.of(event), "order_id": str(event.order_id)}

    @staticmethod
    def of(event: OrderEvent) -> dict[str, Any]:
        return {
            "sequence": event.sequence,
            "type": event.type,
            "data": event.data,
            "created_at": format_time(event.created_at),
            "trace_id": event.trace_id,
        }
