"""Reads. Each names the user whose rows it may see.

Peewee writes the SQL; of the hot reads it writes it once (building a query costs it more than running one), and their
rows stay plain tuples.
"""

import functools
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from peewee import SQL, Tuple, fn

from orders_api.db import db
from orders_api.errors import Problem
from orders_api.orders.models import ItemRow, Order, OrderEvent, OrderItem, OrderRow

Position = tuple[datetime, UUID]


def find_order(user_id: UUID, order_id: UUID | None) -> OrderRow:
    """The user's order. Raises order_not_found, alike for unknown, malformed (None) and foreign ids."""
    row = db.execute_sql(_one_order(), {"user_id": user_id, "id": order_id}).fetchone() if order_id else None
    if row is None:
        raise Problem("order_not_found")
    return OrderRow._make(row)


def owner_of(order_id: UUID) -> UUID | None:
    """Whose order it is: what a payment names is the order alone."""
    return Order.select(Order.user_id).where(Order.id == order_id).scalar()


def lock_order(user_id: UUID, order_id: UUID | None) -> Order:
    """The same, locked until the transaction ends, to be changed."""
    row = db.execute_sql(_locked_order(), {"user_id": user_id, "id": order_id}).fetchone() if order_id else None
    if row is None:
        raise Problem("order_not_found")
    return Order(user_id=user_id, **OrderRow._make(row)._asdict())


def orders_of(user_id: UUID, *, limit: int, after: Position | None = None, **filters: Any) -> list[OrderRow]:
    """The next `limit` orders, newest first, that come after a keyset position.

    `filters`: those of `status`, `created_after` and `created_before` that apply.
    """
    parameters = {"user_id": user_id, "limit": limit, **filters}
    if after is not None:
        parameters["after_time"], parameters["after_id"] = after
    rows = db.execute_sql(_page_of_orders(frozenset(parameters)), parameters).fetchall()
    return [OrderRow._make(row) for row in rows]


def items_of(user_id: UUID, order_ids: Sequence[UUID]) -> dict[UUID, list[ItemRow]]:
    """The items of many orders in one statement, in their order."""
    items: dict[UUID, list[ItemRow]] = defaultdict(list)
    if order_ids:
        found = db.execute_sql(_items_of_orders(), {"user_id": user_id, "order_ids": list(order_ids)})
        for order_id, *item in found.fetchall():
            items[order_id].append(ItemRow._make(item))
    return items


def _given(name: str) -> SQL:
    """The place of a parameter in a query that is compiled once."""
    return SQL(f"%({name})s")


def _compiled(query: Any) -> str:
    sql, parameters = query.sql()
    assert not parameters, "a value was compiled in"
    return sql


def _orders() -> Any:
    return Order.select(*(getattr(Order, name) for name in OrderRow._fields)).where(Order.user_id == _given("user_id"))


@functools.cache
def _one_order() -> str:
    return _compiled(_orders().where(Order.id == _given("id")))


@functools.cache
def _locked_order() -> str:
    return _compiled(_orders().where(Order.id == _given("id")).for_update())


@functools.cache
def _page_of_orders(given: frozenset[str]) -> str:
    query = _orders()
    if "status" in given:
        query = query.where(Order.status == _given("status"))
    if "created_after" in given:
        query = query.where(Order.created_at > _given("created_after"))
    if "created_before" in given:
        query = query.where(Order.created_at < _given("created_before"))
    if "after_id" in given:
        query = query.where(Tuple(Order.created_at, Order.id) < Tuple(_given("after_time"), _given("after_id")))
    return _compiled(query.order_by(Order.created_at.desc(), Order.id.desc()).limit(_given("limit")))


@functools.cache
def _items_of_orders() -> str:
    query = OrderItem.select(OrderItem.order_id, *(getattr(OrderItem, name) for name in ItemRow._fields))
    query = query.where(OrderItem.user_id == _given("user_id"), OrderItem.order_id == fn.ANY(_given("order_ids")))
    return _compiled(query.order_by(OrderItem.order_id, OrderItem.position))


def events_of(user_id: UUID, order_id: UUID, *, limit: int, after: int = 0) -> list[OrderEvent]:
    """The next `limit` events of an order, oldest first, after a sequence number."""
    query = OrderEvent.select().where(
        OrderEvent.user_id == user_id, OrderEvent.order_id == order_id, OrderEvent.sequence > after
    )
    return list(query.order_by(OrderEvent.sequence).limit(limit))


def feed_of(user_id: UUID, *, limit: int, after: int = 0) -> list[OrderEvent]:
    """The next `limit` events of all orders of a user, oldest first, after a sequence number."""
    query = OrderEvent.select().where(OrderEvent.user_id == user_id, OrderEvent.sequence > after)
    return list(query.order_by(OrderEvent.sequence).limit(limit))
