"""Writes: each a verb, each one transaction with its event in it."""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from orders_api.cache import fenced
from orders_api.db import db, retried
from orders_api.errors import FieldError, Problem, invalid
from orders_api.orders.models import COLUMNS, MAX_METADATA, ORDERS, ItemRow, Order, OrderItem, etag_of
from orders_api.orders.queries import find_order, items_of, lock_order
from orders_api.orders.statements import PLACE, STORE, STORE_WITH_ITEMS
from orders_api.orders.states import EDITABLE, check_owner_step
from orders_api.values import new_id, now

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
    parameters = {**parameters, **order.__data__, "items": _listed(items), "event_trace_id": trace_id}
    parameters |= {"metadata": Jsonb(order.metadata), "event": Jsonb(_event_data(order, []))}
    claimed, recorded = db.execute_sql(PLACE.format(claim=sql), parameters).fetchone()
    if claimed and not recorded:
        raise RuntimeError(NO_COUNTER)
    return order if claimed else None


def _listed(items: Stored) -> Jsonb:
    """All of them as one parameter: an array for each column costs psycopg 40 µs more."""
    return Jsonb([_plain(item) for item in items])


@fenced(ORDERS)
@retried
def change_order(
    user_id: UUID, order_id: UUID | None, changes: dict[str, Any], trace_id: str, versions: set[int] | None = None
) -> tuple[Order, Stored]:
    """Merges `changes` into an order, all or nothing; what changes nothing leaves the version alone.

    `versions`: those the client accepts (If-Match), None for any. Raises order_not_found, version_conflict,
    transition_forbidden, transition_invalid, order_not_editable and validation_failed.
    """
    row = find_order(user_id, order_id, items=True)
    order = Order(user_id=user_id, **{name: getattr(row, name) for name in COLUMNS})
    changed = _change(order, row.items or [], changes, trace_id, versions)
    if changed is None:  # somebody was quicker: under a lock nobody is
        with db.atomic():
            order = lock_order(user_id, order_id)
            changed = _change(order, items_of(user_id, order.id), changes, trace_id, versions)
    if changed is None:
        raise RuntimeError(NO_COUNTER)
    return changed


def _change(
    order: Order, items: Stored, changes: dict[str, Any], trace_id: str, versions: set[int] | None
) -> tuple[Order, Stored] | None:
    """None when it could not be stored: the order is no longer what was read."""
    if versions is not None and order.version not in versions:
        raise Problem("version_conflict", headers={"ETag": etag_of(order, items=True)})
    before, status = order.status, changes.get("status", order.status)
    if status != before:
        check_owner_step(before, status)
    changed, items = _edit(order, items, changes)
    order.status = status
    told = {"order.updated": changed, "order.cancelled": ["status"] if status != before else []}
    told = {kind: names for kind, names in told.items() if names}
    if told and not _store(order, before, told, trace_id, items if "items" in changed else None):
        return None
    return order, items


def settle_order(order: Order, status: str, kind: str, trace_id: str) -> None:
    """Takes a locked order where a verified payment takes it, and tells so by an event of this kind.

    The transaction and the fence are the caller's; this is the last statement before its COMMIT.
    """
    before, order.status = order.status, status
    if not _store(order, before, {kind: ["status"]}, trace_id):
        raise RuntimeError(NO_COUNTER)


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


def _store(order: Order, before: str, told: dict[str, list[str]], trace_id: str, items: Stored | None = None) -> bool:
    """The order's next version, and its events: `told` maps the type of each to the names of what changed.

    `before`: the status that it had; `items`: those that take the place of the old ones. False, and nothing is stored,
    when it has another version or status by now, or the user no counter.
    """
    order.version += 1
    order.updated_at = max(now(), order.updated_at)
    own = {"metadata": Jsonb(order.metadata), "trace_id": trace_id, "count": len(told), "types": list(told)}
    own |= {"before": before, "data": [Jsonb(_event_data(order, names)) for names in told.values()]}
    statement = STORE
    if items is not None:
        statement, own = STORE_WITH_ITEMS, own | {"items": _listed(items)}
    return db.execute_sql(statement, {**order.__data__, **own}).rowcount == len(told)


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


def _event_data(order: Order, changed: list[str]) -> dict[str, Any]:
    return {
        "version": order.version,
        "status": order.status,
        "currency": order.currency,
        "total_cents": order.total_cents,
        "changed": changed,
    }
