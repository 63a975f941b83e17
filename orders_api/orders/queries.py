"""Reads. Each names the user whose rows it may see.

Peewee writes the SQL; of the hot reads it writes it once (building a query costs it more than running one), and their
rows stay plain tuples.
"""

import functools
from datetime import datetime
from typing import Any
from uuid import UUID

from peewee import SQL, Tuple, fn

from orders_api.db import db
from orders_api.errors import Problem
from orders_api.orders.models import COLUMNS, ItemRow, Order, OrderEvent, OrderItem, OrderRow

Position = tuple[datetime, UUID]


def find_order(user_id: UUID, order_id: UUID | None, *, items: bool = False) -> OrderRow:
    """The user's order. Raises order_not_found, alike for unknown, malformed (None) and foreign ids."""
    row = db.execute_sql(_one_order(items), {"user_id": user_id, "id": order_id}).fetchone() if order_id else None
    if row is None:
        raise Problem("order_not_found")
    return _read(row)


def owner_of(order_id: UUID) -> UUID | None:
    """Whose order it is: what a payment names is the order alone."""
    return Order.select(Order.user_id).where(Order.id == order_id).scalar()


def lock_order(user_id: UUID, order_id: UUID | None) -> Order:
    """The same, locked until the transaction ends, to be changed."""
    row = db.execute_sql(_locked_order(), {"user_id": user_id, "id": order_id}).fetchone() if order_id else None
    if row is None:
        raise Problem("order_not_found")
    return Order(user_id=user_id, **dict(zip(COLUMNS, row, strict=True)))


def orders_of(
    user_id: UUID, *, limit: int, after: Position | None = None, items: bool = False, **filters: Any
) -> list[OrderRow]:
    """The next `limit` orders, newest first, that come after a keyset position.

    `filters`: those of `status`, `created_after` and `created_before` that apply.
    """
    parameters = {"user_id": user_id, "limit": limit, **filters}
    if after is not None:
        parameters["after_time"], parameters["after_id"] = after
    return [_read(row) for row in db.execute_sql(_page_of_orders(frozenset(parameters), items), parameters).fetchall()]


def items_of(user_id: UUID, order_id: UUID) -> list[ItemRow]:
    """The items of an order that is locked: of another they may be newer than what was read of it before."""
    found = db.execute_sql(_items_of_order(), {"user_id": user_id, "order_id": order_id})
    return [ItemRow._make(item) for item in found.fetchall()]


def _read(row: tuple[Any, ...]) -> OrderRow:
    if len(row) == len(COLUMNS):
        return OrderRow(*row)
    *columns, items = row
    return OrderRow._make((*columns, [ItemRow._make(item) for item in items]))


def _given(name: str) -> SQL:
    """The place of a parameter in a query that is compiled once."""
    return SQL(f"%({name})s")


def _compiled(query: Any) -> str:
    sql, parameters = query.sql()
    assert not parameters, "a value was compiled in"
    return sql


def _orders(items: bool = False) -> Any:
    columns = [getattr(Order, name) for name in COLUMNS]
    return Order.select(*columns, *([_items()] if items else [])).where(Order.user_id == _given("user_id"))


def _items() -> Any:
    """An order's own, as JSON in its row: by a statement of their own they could be those of its next version."""
    item = fn.json_build_array(*(getattr(OrderItem, name) for name in ItemRow._fields))
    items = fn.coalesce(fn.json_agg(item).order_by(OrderItem.position), SQL("'[]'"))
    return OrderItem.select(items).where(OrderItem.user_id == Order.user_id, OrderItem.order_id == Order.id)


@functools.cache
def _one_order(items: bool) -> str:
    return _compiled(_orders(items).where(Order.id == _given("id")))


@functools.cache
def _locked_order() -> str:
    return _compiled(_orders().where(Order.id == _given("id")).for_update())


@functools.cache
def _page_of_orders(given: frozenset[str], items: bool) -> str:
    query = _orders(items)
    if "status" in given:
        query = query.where(Order.status == _given("status"))
    if "created_after" in given:
        query = query.where(Order.created_at > _given("created_after"))
    if "after_id" not in given and "created_before" in given:
        query = query.where(Order.created_at < _given("created_before"))
    # Who stands at a position is past that bound. With both, PostgreSQL would begin at the bound, and read all that
    # is before the position: a page would cost more the deeper it is.
    if "after_id" in given:
        query = query.where(Tuple(Order.created_at, Order.id) < Tuple(_given("after_time"), _given("after_id")))
    return _compiled(query.order_by(Order.created_at.desc(), Order.id.desc()).limit(_given("limit")))


@functools.cache
def _items_of_order() -> str:
    query = OrderItem.select(*(getattr(OrderItem, name) for name in ItemRow._fields))
    query = query.where(OrderItem.user_id == _given("user_id"), OrderItem.order_id == _given("order_id"))
    return _compiled(query.order_by(OrderItem.position))


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
