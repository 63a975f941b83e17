"""What comes in: `NewOrder`, `OrderChanges` and the queries."""

from typing import Any, ClassVar

import marshmallow

from orders_api.orders.models import MAX_METADATA
from orders_api.orders.states import STATUSES
from orders_api.values import CURRENCIES, MAX_TOTAL_CENTS
from orders_api.web.validation import Choice, Field, QueryWhole, Schema, Text, Time, Whole, fault

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


class Items(Field):
    """1 to 100 items whose sum is within an order's bounds; counted before they are looked at."""

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

    def json_schema(self) -> dict[str, Any]:
        return {"type": "array", "items": NewItem, "minItems": 1, "maxItems": MAX_ITEMS}


class Metadata(Field):
    """At most 20 strings by name; `removing`: null takes a name away, or all of them."""

    def __init__(self, *, removing: bool = False, **kwargs: Any) -> None:
        super().__init__(allow_none=removing, **kwargs)
        self.removing = removing
        self.most = MAX_METADATA * (2 if removing else 1)
        self.name_text, self.value_text = Text(0, 40), Text(0, 500, allow_none=removing)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise fault("invalid_type", "Must be an object.")
        # A merge may remove as many as it adds; what comes of it is counted again.
        if len(value) > self.most:
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

    def json_schema(self) -> dict[str, Any]:
        text = self.value_text.json_schema()
        return {
            "type": "object",
            "propertyNames": self.name_text.json_schema(),
            "additionalProperties": {**text, "type": ["string", "null"]} if self.removing else text,
            "maxProperties": self.most,
        }


class NewOrder(Schema):
    beyond_fields: ClassVar = {"anyOf": [{"required": ["total_cents"]}, {"required": ["items"]}]}

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
    limit = QueryWhole(1, 100, load_default=20, metadata={"description": "How many, at the most."})
    cursor = Text(0, 65536, metadata={"description": "`next_cursor` of the page before, unchanged."})


class OrderQuery(Schema):
    include = Choice(["items"], metadata={"description": "Each order with its items."})


class OrdersQuery(PageQuery, OrderQuery):
    status = Choice(STATUSES, metadata={"description": "Only orders that are."})
    created_after = Time(metadata={"description": "Exclusive; with a UTC offset (write + as %2B)."})
    created_before = Time(metadata={"description": "Exclusive; with a UTC offset (write + as %2B)."})
