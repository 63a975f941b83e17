"""Orders, items and events as they are stored. Money is in minor units; every key begins with user_id."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from peewee import BigIntegerField, CompositeKey, IntegerField, SmallIntegerField, TextField, UUIDField
from playhouse.postgres_ext import BinaryJSONField, DateTimeTZField

from orders_api.cache import Kind
from orders_api.db import BaseModel

# A change of the document's shape changes every strong ETag.
REPRESENTATION = 1
MAX_METADATA = 20  # entries, also of what a merge leaves
EVENT_TYPES = ("order.created", "order.updated", "order.paid", "order.cancelled", "order.refunded")
# How long a user's orders, one by one and in pages, may be remembered; each write of that user ends it at once.
ORDERS = Kind("orders", soft_s=30, hard_s=60)


class Order(BaseModel):
    user_id = UUIDField()
    id = UUIDField()
    status = TextField()
    currency = TextField()
    total_cents = BigIntegerField()
    metadata = BinaryJSONField()
    version = IntegerField()
    created_at = DateTimeTZField()
    updated_at = DateTimeTZField()

    class Meta:
        table_name = "orders"
        primary_key = CompositeKey("user_id", "id")


class ItemRow(NamedTuple):
    """An item as it is read."""

    sku: str
    name: str
    quantity: int
    unit_price_cents: int


class OrderRow(NamedTuple):
    """An order as it is read: a model's bookkeeping costs more than the row. `items`: None if nobody asked for them."""

    id: UUID
    status: str
    currency: str
    total_cents: int
    metadata: dict[str, str]
    version: int
    created_at: datetime
    updated_at: datetime
    items: list[ItemRow] | None = None


COLUMNS = OrderRow._fields[:-1]


class OrderItem(BaseModel):
    user_id = UUIDField()
    order_id = UUIDField()
    position = SmallIntegerField()
    sku = TextField()
    name = TextField()
    quantity = IntegerField()
    unit_price_cents = BigIntegerField()

    class Meta:
        table_name = "order_items"
        primary_key = CompositeKey("user_id", "order_id", "position")


class OrderEvent(BaseModel):
    user_id = UUIDField()
    sequence = BigIntegerField()
    order_id = UUIDField()
    type = TextField()
    data = BinaryJSONField()
    trace_id = TextField()
    created_at = DateTimeTZField()

    class Meta:
        table_name = "order_events"
        primary_key = CompositeKey("user_id", "sequence")


def etag_of(order: Order | OrderRow, *, items: bool) -> str:
    """The strong entity tag of this version, as it is with or without its items."""
    return f'"{REPRESENTATION}.{order.version}{".items" if items else ""}"'


def version_of(etag: str) -> int | None:
    """The version that a tag of either representation names."""
    representation, _, rest = etag.partition(".")
    version = rest.removesuffix(".items")
    known = representation == str(REPRESENTATION) and version.isascii() and version.isdigit() and len(version) < 10
    return int(version) if known else None
