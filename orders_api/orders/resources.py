"""`/orders` and what is below it; `/idempotency-keys/{key}`."""

from typing import Any
from uuid import UUID

import falcon
import orjson

from orders_api.orders import queries, services
from orders_api.orders.documents import (
    EXAMPLE_ITEMS,
    EXAMPLE_ORDER,
    EXAMPLE_PAGE,
    EXAMPLE_WITH_ITEMS,
    EventDocument,
    EventPageShape,
    FeedPageShape,
    IdempotencyKeyShape,
    OrderDocument,
    OrderPageShape,
    OrderShape,
)
from orders_api.orders.models import ORDERS, Order, OrderItem, etag_of, version_of
from orders_api.orders.schemas import NewOrder, OrderChanges, OrderQuery, OrdersQuery, PageQuery
from orders_api.values import format_time, parse_id
from orders_api.web import bodies, conditional
from orders_api.web.caching import Representation, cached
from orders_api.web.idempotency import Claim, StoredAnswer, idempotent, look_up
from orders_api.web.operations import Answer, operation
from orders_api.web.pagination import Cursors
from orders_api.web.resources import PRIVATE, Resource

new_order = NewOrder()
order_changes = OrderChanges()


class Orders(Resource):
    """`/orders`: the orders of the calling user."""

    lists = True
    query = OrdersQuery()

    def __init__(self, cursors: Cursors) -> None:
        self.cursors = cursors

    @operation(
        "list_orders",
        "List orders",
        "Newest first. Every order that was there when the walk began is seen exactly once, whatever is added"
        " meanwhile. `created_after` and `created_before` are exclusive. A walk keeps its filters; `limit` and"
        " `include` may change.",
        Answer(200, "A page.", OrderPageShape, EXAMPLE_PAGE, headers=("Link",)),
        problems=("cursor_mismatch",),
    )
    @cached(ORDERS)
    def on_get(self, req: falcon.Request) -> Representation:
        query, user_id = dict(req.context.query), req.context.user_id
        limit, include = query.pop("limit"), query.pop("include", None) is not None
        walk = self.cursors.walk(f"orders:{user_id}", query.pop("cursor", None), query)
        orders = queries.orders_of(user_id, limit=limit + 1, after=walk.time_and_id(), items=include, **query)
        page = walk.page(orders, limit, lambda order: (order.created_at, order.id))
        return page.represent(req, [OrderDocument.of(order, order.items) for order in page.rows])

    @operation(
        "place_order",
        "Place an order",
        "With `total_cents`, or `items`, or both; with both the sum must match. Sent again with the same key and the"
        " same body it gets the first answer again, byte for byte, for 72 hours.",
        Answer(
            201,
            "The order, or what an earlier request with this key had got.",
            OrderShape,
            EXAMPLE_WITH_ITEMS,
            headers=("Location", "ETag", "Idempotent-Replayed", "Idempotent-Original-Trace-Id"),
        ),
        body=new_order,
        examples={
            "items": {"currency": "EUR", "items": EXAMPLE_ITEMS},
            "total": {"currency": "JPY", "total_cents": 4200, "metadata": {"basket": "17"}},
        },
        headers=("Idempotency-Key",),
        problems=(
            "idempotency_key_missing",
            "idempotency_key_invalid",
            "idempotency_key_reused",
            "idempotency_key_in_progress",
            "idempotency_key_expired",
        ),
    )
    @idempotent
    def on_post(self, req: falcon.Request, resp: falcon.Response, claim: Claim) -> None:
        draft = new_order.parse(claim.document)

        def claimed(order: Order, items: list[OrderItem]) -> tuple[str, dict[str, Any]]:
            req.context.order_id = order.id
            return claim.sql(order.id, created(order, items))

        placed = services.place_order(claim.user_id, draft, claim.trace_id, claimed)
        claim.check_taken(placed is not None)


class OrderById(Resource):
    """`/orders/{order_id}`: one order of the calling user."""

    query = OrderQuery()
    accept_patch = ", ".join(bodies.PATCH_TYPES)

    @operation(
        "read_order",
        "Read an order",
        "Somebody else's order, an unknown id and a malformed one get the same 404.",
        Answer(200, "The order.", OrderShape, EXAMPLE_ORDER, headers=("ETag",)),
        Answer(304, "You have it already.", headers=("ETag",)),
        headers=("If-None-Match",),
        problems=("order_not_found",),
    )
    @cached(ORDERS)
    def on_get(self, req: falcon.Request, order_id: str) -> Representation:
        user_id, include = req.context.user_id, "include" in req.context.query
        order = queries.find_order(user_id, parse_id(order_id), items=include)
        return Representation(orjson.dumps(OrderDocument.of(order, order.items)), etag_of(order, items=include))

    @operation(
        "change_order",
        "Change an order",
        "A merge patch (RFC 7396). While it is pending: `currency`, `total_cents`, `items` (replaced whole), and"
        " `status` to cancel it. Always: `metadata`, where null removes a name. What changes nothing keeps the"
        " version.",
        Answer(200, "The order as it is now.", OrderShape, EXAMPLE_WITH_ITEMS, headers=("ETag",)),
        body=order_changes,
        examples={"cancel": {"status": "cancelled"}, "note": {"metadata": {"note": "leave it at the door"}}},
        media_types=bodies.PATCH_TYPES,
        headers=("If-Match",),
        problems=(
            "order_not_found",
            "order_not_editable",
            "transition_forbidden",
            "transition_invalid",
            "version_conflict",
        ),
    )
    def on_patch(self, req: falcon.Request, resp: falcon.Response, order_id: str) -> None:
        changes = order_changes.parse(bodies.json_of(req, bodies.PATCH_TYPES))
        versions = conditional.versions(req, version_of)
        order, items = services.change_order(
            req.context.user_id, parse_id(order_id), changes, req.context.trace_id, versions
        )
        resp.set_headers(PRIVATE)
        resp.set_header("ETag", etag_of(order, items=True))
        resp.media = OrderDocument.of(order, items)


class OrderEvents(Resource):
    """`/orders/{order_id}/events`: the history of one order, oldest first."""

    lists = True
    query = PageQuery()

    def __init__(self, cursors: Cursors) -> None:
        self.cursors = cursors

    @operation(
        "list_order_events",
        "List the history of an order",
        "Oldest first.",
        Answer(200, "A page.", EventPageShape, headers=("Link",)),
        problems=("order_not_found",),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, order_id: str) -> None:
        user_id, limit = req.context.user_id, req.context.query["limit"]
        order = queries.find_order(user_id, parse_id(order_id))
        walk = self.cursors.walk(f"events:{user_id}:{order.id}", req.context.query.get("cursor"), {})
        events = queries.events_of(user_id, order.id, limit=limit + 1, after=walk.number())
        page = walk.page(events, limit, lambda event: (event.sequence,))
        page.represent(req, [EventDocument.of(event) for event in page.rows]).answer(req, resp)


class Events(Resource):
    """`/events`: the change feed over all orders of the calling user, oldest first, without an end."""

    lists = True
    query = PageQuery()

    def __init__(self, cursors: Cursors) -> None:
        self.cursors = cursors

    @operation(
        "follow_events",
        "Follow all orders",
        "The change feed, oldest first, without an end: keep `next_cursor` and ask again. Nothing is missed, nothing"
        " comes twice.",
        Answer(200, "A page.", FeedPageShape, headers=("Link",)),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        user_id, limit = req.context.user_id, req.context.query["limit"]
        walk = self.cursors.walk(f"feed:{user_id}", req.context.query.get("cursor"), {})
        events = queries.feed_of(user_id, limit=limit + 1, after=walk.number())
        page = walk.feed_page(events, limit, lambda event: (event.sequence,))
        page.represent(req, [EventDocument.in_feed(event) for event in page.rows]).answer(req, resp)


class IdempotencyKeyByName(Resource):
    """`/idempotency-keys/{key}`: did the request that timed out succeed?"""

    @operation(
        "look_up_key",
        "Did the request that timed out succeed?",
        "What was committed under an Idempotency-Key; percent-encode what a path can't hold.",
        Answer(200, "It did.", IdempotencyKeyShape),
        problems=("idempotency_key_not_found",),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, key: str) -> None:
        stored = look_up(req.context.user_id, "POST /orders", key)
        resp.set_headers(PRIVATE)
        resp.media = {
            "key": stored.key,
            "state": stored.state,
            "order_id": str(stored.order_id),
            "created_at": format_time(stored.created_at),
            "expires_at": format_time(stored.expires_at),
            "trace_id": stored.trace_id,
        }


def created(order: Order, items: list[OrderItem]) -> StoredAnswer:
    body = orjson.dumps(OrderDocument.of(order, items))
    return StoredAnswer(201, location_of(order.id), etag_of(order, items=True), body)


def location_of(order_id: UUID) -> str:
    return f"/orders/{order_id}"
