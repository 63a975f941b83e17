"""Reads. Each names the user whose rows it may see."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from peewee import Tuple

from orders_api.errors import Problem
from orders_api.orders.models import Order, OrderEvent, OrderItem

Position = tuple[datetime, UUID]


def find_order(user_id: UUID, order_id: UUID | None, *, lock: bool = False) -> Order:
    """The user's order. Raises order_not_found, alike for unknown, malformed (None) and foreign ids."""
    if order_id is None:
        raise Problem("order_not_found")
    query = Order.select().where(Order.user_id == user_id, Order.id == order_id)
    order = (query.for_update() if lock else query).first()
    if order is None:
        raise Problem("order_not_found")
    return order


def orders_of(
    user_id: UUID,
    *,
    limit: int,
    after: Position | None = None,
    status: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> list[Order]:
    """The next `limit` orders, newest first, that come after a keyset position."""
    query = Order.select().where(Order.user_id == user_id)
    if status is not None:
        query = query.where(Order.status == status)
    if created_after is not None:
        query = query.where(Order.created_at > created_after)
    if created_before is not None:
        query = query.where(Order.created_at < created_before)
    if after is not None:
        query = query.where(Tuple(Order.created_at, Order.id) < after)
    return list(query.order_by(Order.created_at.desc(), Order.id.desc()).limit(limit))


def items_of(user_id: UUID, order_ids: Sequence[UUID]) -> dict[UUID, list[OrderItem]]:
    """The items of many orders in one statement, in their order."""
    items: dict[UUID, list[OrderItem]] = defaultdict(list)
    if order_ids:
        query = OrderItem.select().where(OrderItem.user_id == user_id, OrderItem.order_id.in_(order_ids))
        for item in query.order_by(OrderItem.order_id, OrderItem.position):
            items[item.order_id].append(item)
    return items


def events_of(user_id: UUID, order_id: UUID, *, limit: int, after: int = 0) -> list[OrderEvent]:
    """The next `limit` events of an order, oldest first, after a sequence number."""
    query = OrderEvent.select().where(
        OrderEvent.user_id == user_id, OrderEvent.order_id == order_id, OrderEvent.sequence > after
    )
    return list(query.order_by(OrderEvent.sequence).limit(limit))
