"""Writes: each a verb, each one transaction with its event in it."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from orders_api.cache import fenced
from orders_api.db import db, retried, transactional
from orders_api.errors import FieldError, Problem, invalid
from orders_api.orders.models import MAX_METADATA, ORDERS, ItemRow, Order, OrderItem, etag_of
from orders_api.orders.queries import items_of, lock_order
from orders_api.orders.states import EDITABLE, check_owner_step
from orders_api.values import new_id, now

# The numbers are taken from the user's counter row, whose lock is held from here to COMMIT: no gap, no inversion.
# Without a counter row nothing is changed.
_STORE = """
    WITH counter AS (
        UPDATE feeds SET last_sequence = last_sequence + %(count)s WHERE user_id = %(user_id)s
        RETURNING last_sequence - %(count)s AS before
    ),
    changed AS (
        UPDATE orders SET status = %(status)s::order_status, currency = %(currency)s, total_cents = %(total_cents)s,
            metadata = %(metadata)s, version = %(version)s, updated_at = %(updated_at)s
        FROM counter WHERE user_id = %(user_id)s AND id = %(id)s
    )
    INSERT INTO order_events (user_id, sequence, order_id, type, data, trace_id, created_at)
    SELECT %(user_id)s, before + number, %(id)s, type, data, %(trace_id)s, %(updated_at)s
    FROM counter, unnest(%(types)s::text[], %(data)s::jsonb[]) WITH ORDINALITY AS event (type, data, number)
"""

# One statement, so one transaction, one round trip. The claim decides whether anything happens at all. The counter's
# lock is held to the statement's end; without the counter no order is placed, and the claim's foreign key refuses it.
_PLACE = """
    WITH claim AS ({claim}),
    counter AS (
        UPDATE feeds SET last_sequence = last_sequence + 1 FROM claim WHERE user_id = %(user_id)s
        RETURNING last_sequence
    ),
    placed AS (
        INSERT INTO orders (user_id, id, status, currency, total_cents, metadata, version, created_at, updated_at)
        SELECT %(user_id)s, %(id)s, %(status)s::order_status, %(currency)s, %(total_cents)s, %(metadata)s, %(version)s,
            %(created_at)s, %(updated_at)s
        FROM counter
    ),
    listed AS (
        INSERT INTO order_items (user_id, order_id, position, sku, name, quantity, unit_price_cents)
        SELECT %(user_id)s, %(id)s, item.number - 1, item.sku, item.name, item.quantity, item.unit_price_cents
        FROM counter, unnest(%(skus)s::text[], %(names)s::text[], %(quantities)s::int[], %(unit_prices)s::bigint[])
            WITH ORDINALITY AS item (sku, name, quantity, unit_price_cents, number)
    ),
    recorded AS (
        INSERT INTO order_events (user_id, sequence, order_id, type, data, trace_id, created_at)
        SELECT %(user_id)s, last_sequence, %(id)s, 'order.created', %(event)s, %(event_trace_id)s, %(created_at)s
        FROM counter RETURNING 1
    )
    SELECT (SELECT count(*) FROM claim), (SELECT count(*) FROM recorded)
"""
NO_CLAIM: tuple[str, dict[str, Any]] = ("SELECT 1", {})
NO_COUNTER = "the user has no counter row: without its event the order must not change either"

Items = list[dict[str, Any]]
Stored = Sequence[OrderItem | ItemRow]
Claim = Callable[[Order, list[OrderItem]], tuple[str, dict[str, Any]]]


@fenced(ORDERS)
@retried
def place_order(user_id: UUID, draft: dict[str, Any], trace_id: str, claim: Claim | None = None) -> Order | None:
    """Stores a validated draft with its items and its event, all or nothing.

    `claim` is called with the order as it will be: it gives a statement, and its parameters, that takes the
    idempotency key and stores the answer. When that gives no row nothing is stored, and None returned.
    """
    moment = now()
    order = Order(
        user_id=user_id,
        id=new_id(),
        status="pending",
        currency=draft["currency"],
        total_cents=draft["total_cents"],
        metadata=draft.get("metadata", {}),
        version=1,
        created_at=moment,
        updated_at=moment,
    )
    items = _drafted(order, draft.get("items", []))
    sql, parameters = claim(order, items) if claim else NO_CLAIM
    parameters = {**parameters, **order.__data__, **_columns(items), "event_trace_id": trace_id}
    parameters |= {"metadata": Jsonb(order.metadata), "event": Jsonb(_event_data(order, []))}
    claimed, recorded = db.execute_sql(_PLACE.format(claim=sql), parameters).fetchone()
    if claimed and not recorded:
        raise RuntimeError(NO_COUNTER)
    return order if claimed else None


def _columns(items: list[OrderItem]) -> dict[str, list[Any]]:
    return {
        "skus": [item.sku for item in items],
        "names": [item.name for item in items],
        "quantities": [item.quantity for item in items],
        "unit_prices": [item.unit_price_cents for item in items],
    }


@fenced(ORDERS)
@transactional
def change_order(
    user_id: UUID, order_id: UUID | None, changes: dict[str, Any], trace_id: str, versions: set[int] | None = None
) -> tuple[Order, Stored]:
    """Merges `changes` into an order under its row lock; what changes nothing leaves the version alone.

    `versions`: those the client accepts (If-Match), None for any. Raises order_not_found, version_conflict,
    transition_forbidden, transition_invalid, order_not_editable and validation_failed.
    """
    order = lock_order(user_id, order_id)
    if versions is not None and order.version not in versions:
        raise Problem("version_conflict", headers={"ETag": etag_of(order, items=True)})
    items: Stored = items_of(user_id, order.id)
    before, status = order.status, changes.get("status", order.status)
    if status != before:
        check_owner_step(before, status)
    changed, items = _edit(order, items, changes)
    order.status = status
    told = {"order.updated": changed, "order.cancelled": ["status"] if status != before else []}
    told = {kind: names for kind, names in told.items() if names}
    if told:
        _store(order, told, trace_id, items if "items" in changed else None)
    return order, items


def settle_order(order: Order, status: str, kind: str, trace_id: str) -> None:
    """Takes a locked order where a verified payment takes it, and tells so by an event of this kind.

    The transaction and the fence are the caller's; this is the last statement before its COMMIT.
    """
    order.status = status
    _store(order, {kind: ["status"]}, trace_id)


def _edit(order: Order, items: Stored, changes: dict[str, Any]) -> tuple[list[str], Stored]:
    """Applies all but the status to `order`; returns the names of what changed, and the items as they are now."""
    wanted: dict[str, Any] = {"metadata": _merged(order.metadata, changes["metadata"])} if "metadata" in changes else {}
    if "currency" in changes:
        wanted["currency"] = changes["currency"]
    if "items" in changes and changes["items"] != [_plain(item) for item in items]:
        items = _drafted(order, changes["items"])
        wanted["items"] = items
    if "items" in changes:
        wanted["total_cents"] = sum(item.quantity * item.unit_price_cents for item in items)
    elif "total_cents" in changes:
        wanted["total_cents"] = _matching(changes["total_cents"], items)
    changed = [name for name, value in wanted.items() if name == "items" or getattr(order, name) != value]
    if order.status != EDITABLE and set(changed) - {"metadata"}:
        raise Problem("order_not_editable", f"The order is {order.status}: only its metadata can change.")
    for name in changed:
        if name != "items":
            setattr(order, name, wanted[name])
    return changed, items


def _store(order: Order, told: dict[str, list[str]], trace_id: str, items: Stored | None = None) -> None:
    """The order's next version, and its events: `told` maps the type of each to the names of what changed.

    `items`: those that take the place of the old ones.
    """
    order.version += 1
    order.updated_at = max(now(), order.updated_at)
    if items is not None:
        OrderItem.delete().where(OrderItem.user_id == order.user_id, OrderItem.order_id == order.id).execute()
        _insert(items)
    own = {"metadata": Jsonb(order.metadata), "trace_id": trace_id, "count": len(told), "types": list(told)}
    data = [Jsonb(_event_data(order, names)) for names in told.values()]
    if db.execute_sql(_STORE, {**order.__data__, **own, "data": data}).rowcount != len(told):
        raise RuntimeError(NO_COUNTER)


def _merged(metadata: dict[str, str], changes: dict[str, str | None] | None) -> dict[str, str]:
    """RFC 7396, one level deep; null in place of the whole empties it."""
    if changes is None:
        return {}
    merged = {key: value for key, value in {**metadata, **changes}.items() if value is not None}
    if len(merged) > MAX_METADATA:
        raise invalid(FieldError("out_of_range", f"Must have at most {MAX_METADATA} entries.", "#/metadata"))
    return merged


def _matching(total_cents: int, items: Stored) -> int:
    total = sum(item.quantity * item.unit_price_cents for item in items)
    if items and total_cents != total:
        raise invalid(FieldError("sum_mismatch", f"The items add up to {total}.", "#/total_cents"))
    return total_cents


def _drafted(order: Order, items: Items) -> list[OrderItem]:
    return [
        OrderItem(user_id=order.user_id, order_id=order.id, position=position, **item)
        for position, item in enumerate(items)
    ]


def _plain(item: OrderItem | ItemRow) -> dict[str, Any]:
    return {name: getattr(item, name) for name in ("sku", "name", "quantity", "unit_price_cents")}


def _insert(items: Stored) -> None:
    drafted = [item.__data__ for item in items if isinstance(item, OrderItem)]
    if drafted:
        OrderItem.insert_many(drafted).execute()


def _event_data(order: Order, changed: list[str]) -> dict[str, Any]:
    return {
        "version": order.version,
        "status": order.status,
        "currency": order.currency,
        "total_cents": order.total_cents,
        "changed": changed,
    }
