"""What comes in (`NewOrder`, `OrderChanges`, the queries) and what goes out (`OrderDocument`, `EventDocument`)."""

from collections.abc import Sequence
from typing import Any

import marshmallow
from marshmallow import fields

from orders_api.orders.models import MAX_METADATA, ItemRow, Order, OrderEvent, OrderItem, OrderRow
from orders_api.orders.states import STATUSES
from orders_api.values import CURRENCIES, MAX_TOTAL_CENTS, format_time
from orders_api.web.validation import REQUIRED, Choice, QueryTime, QueryWhole, Schema, Text, Whole, fault

MAX_ITEMS = 100
MAX_QUANTITY = 10_000
MAX_UNIT_PRICE_CENTS = 10**10


class Currency(Choice):
    """An ISO 4217 code in use today, in upper case."""

    hint = "an ISO 4217 currency code in use today, in upper case"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(CURRENCIES, **kwargs)


class NewItem(Schema):
    sku = Text(1, 64, required=True)
    name = Text(0, 200, load_default="")
    quantity = Whole(1, MAX_QUANTITY, required=True)
    unit_price_cents = Whole(0, MAX_UNIT_PRICE_CENTS, required=True)


class Items(fields.Field):
    """1 to 100 items whose sum is within an order's bounds; counted before they are looked at."""

    default_error_messages = REQUIRED
    item = NewItem()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list):
            raise fault("invalid_type", "Must be a list.")
        if not 1 <= len(value) <= MAX_ITEMS:
            raise fault("out_of_range", f"Must have 1 to {MAX_ITEMS} items.")
        errors, items = {}, []
        for position, entry in enumerate(value):
            try:
                items.append(self.item.load(entry))
            except marshmallow.ValidationError as e:
                errors[position] = e.normalized_messages()
        if errors:
            raise marshmallow.ValidationError(errors)
        if not 1 <= total_of(items) <= MAX_TOTAL_CENTS:
            raise fault("out_of_range", f"Must add up to 1 to {MAX_TOTAL_CENTS}.")
        return items


class Metadata(fields.Field):
    """At most 20 strings by name; `removing`: null takes a name away, or all of them."""

    default_error_messages = REQUIRED

    def __init__(self, *, removing: bool = False, **kwargs: Any) -> None:
        super().__init__(allow_none=removing, **kwargs)
        self.removing = removing
        self.name_text, self.value_text = Text(0, 40), Text(0, 500, allow_none=removing)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise fault("invalid_type", "Must be an object.")
        # A merge may remove as many as it adds; what comes of it is counted again.
        if len(value) > MAX_METADATA * (2 if self.removing else 1):
            raise fault("out_of_range", f"Must have at most {MAX_METADATA} entries.")
        errors = {}
        for name, text in value.items():
            try:
                self.name_text.deserialize(name)
                self.value_text.deserialize(text)
            except marshmallow.ValidationError as e:
                errors[name] = e.messages
        if errors:
            raise marshmallow.ValidationError(errors)
        return value


class NewOrder(Schema):
    currency = Currency(required=True)
    total_cents = Whole(1, MAX_TOTAL_CENTS)
    items = Items()
    metadata = Metadata(load_default=dict)

    @marshmallow.validates_schema(skip_on_field_errors=False, pass_original=True)
    def needs_total_or_items(self, data: Any, original: Any, **_: Any) -> None:
        if isinstance(original, dict) and not {"total_cents", "items"} & original.keys():
            raise fault("required", "Give total_cents, or items, or both.", "total_cents")

    @marshmallow.validates_schema(skip_on_field_errors=True)
    def total_matches(self, data: dict[str, Any], **_: Any) -> None:
        check_total(data)

    @marshmallow.post_load
    def with_total(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {"total_cents": total_of(data.get("items", [])), **data}


class OrderChanges(Schema):
    status = Choice(STATUSES)
    currency = Currency()
    total_cents = Whole(1, MAX_TOTAL_CENTS)
    items = Items()
    metadata = Metadata(removing=True)

    @marshmallow.validates_schema(skip_on_field_errors=True)
    def total_matches(self, data: dict[str, Any], **_: Any) -> None:
        check_total(data)


def total_of(items: list[dict[str, Any]]) -> int:
    return sum(item["quantity"] * item["unit_price_cents"] for item in items)


def check_total(data: dict[str, Any]) -> None:
    if "items" in data and data.get("total_cents", total_of(data["items"])) != total_of(data["items"]):
        raise fault("sum_mismatch", f"The items add up to {total_of(data['items'])}.", "total_cents")


class PageQuery(Schema):
    limit = QueryWhole(1, 100, load_default=20)
    cursor = Text(0, 65536)


class OrderQuery(Schema):
    include = Choice(["items"])


class OrdersQuery(PageQuery, OrderQuery):
    status = Choice(STATUSES)
    created_after = QueryTime()
    created_before = QueryTime()


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
