"""`/webhook-endpoints` and what is below it."""

import falcon

from orders_api.orders.schemas import PageQuery
from orders_api.values import parse_id
from orders_api.web.bodies import json_of
from orders_api.web.operations import Answer, operation
from orders_api.web.pagination import Cursors
from orders_api.web.resources import PRIVATE, Resource
from orders_api.webhooks import queries, services
from orders_api.webhooks.documents import (
    DeliveryPageShape,
    EndpointShape,
    EndpointsShape,
    EndpointWithSecretShape,
    delivery_document,
    endpoint_document,
)
from orders_api.webhooks.models import Endpoint
from orders_api.webhooks.schemas import NewEndpoint


class Endpoints(Resource):
    """`/webhook-endpoints`: where the calling user wants to be told."""

    def __init__(self, *, allow_private: bool) -> None:
        self.new_endpoint = NewEndpoint(allow_private=allow_private)

    @operation("list_endpoints", "List your endpoints", "Oldest first.", Answer(200, "All of them.", EndpointsShape))
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        endpoints = queries.endpoints_of(req.context.user_id)
        resp.set_headers(PRIVATE)
        resp.media = {"data": [endpoint_document(endpoint) for endpoint in endpoints]}

    @operation(
        "add_endpoint",
        "Add an endpoint",
        "Each event of your orders is then sent there as a signed webhook (Standard Webhooks), at least once, always"
        " under the same `webhook-id`. The URL has to lead to the public internet, by https.",
        Answer(201, "The endpoint, with its secret.", EndpointWithSecretShape, headers=("Location",)),
        body=NewEndpoint(),
        examples={"shop": {"url": "https://shop.example/hooks/orders", "event_types": ["order.paid"]}},
        problems=("endpoint_limit_reached",),
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        endpoint = services.add_endpoint(req.context.user_id, **self.new_endpoint.parse(json_of(req)))
        resp.status = falcon.HTTP_201
        resp.location = f"/webhook-endpoints/{endpoint.id}"
        _show_secret(resp, endpoint)


class EndpointById(Resource):
    """`/webhook-endpoints/{endpoint_id}`"""

    @operation(
        "read_endpoint",
        "Read an endpoint",
        "Its secret is not told again.",
        Answer(200, "The endpoint.", EndpointShape),
        problems=("endpoint_not_found",),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, endpoint_id: str) -> None:
        resp.set_headers(PRIVATE)
        resp.media = endpoint_document(queries.find_endpoint(req.context.user_id, parse_id(endpoint_id)))

    @operation(
        "remove_endpoint",
        "Remove an endpoint",
        "With its deliveries.",
        Answer(204, "It is gone."),
        problems=("endpoint_not_found",),
    )
    def on_delete(self, req: falcon.Request, resp: falcon.Response, endpoint_id: str) -> None:
        services.remove_endpoint(req.context.user_id, parse_id(endpoint_id))
        resp.status = falcon.HTTP_204


class EndpointSecret(Resource):
    """`/webhook-endpoints/{endpoint_id}/rotate`: a new secret; the old one signs along for 24 hours."""

    @operation(
        "rotate_secret",
        "Give an endpoint a new secret",
        "For 24 hours the old one signs along.",
        Answer(200, "The endpoint, with its new secret.", EndpointWithSecretShape),
        problems=("endpoint_not_found",),
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response, endpoint_id: str) -> None:
        _show_secret(resp, services.rotate_secret(req.context.user_id, parse_id(endpoint_id)))


class Deliveries(Resource):
    """`/webhook-endpoints/{endpoint_id}/deliveries`: what was sent there, newest event first, with every attempt."""

    lists = True
    query = PageQuery()

    def __init__(self, cursors: Cursors) -> None:
        self.cursors = cursors

    @operation(
        "list_deliveries",
        "List what was sent to an endpoint",
        "Newest event first, with every attempt.",
        Answer(200, "A page.", DeliveryPageShape, headers=("Link",)),
        problems=("endpoint_not_found",),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, endpoint_id: str) -> None:
        user_id, limit = req.context.user_id, req.context.query["limit"]
        endpoint = queries.find_endpoint(user_id, parse_id(endpoint_id))
        walk = self.cursors.walk(f"deliveries:{user_id}:{endpoint.id}", req.context.query.get("cursor"), {})
        before = walk.number() if walk.position else None
        deliveries = queries.deliveries_of(user_id, endpoint.id, limit=limit + 1, before=before)
        page = walk.page(deliveries, limit, lambda delivery: (delivery.sequence,))
        attempts = queries.attempts_of(user_id, endpoint.id, [delivery.sequence for delivery in page.rows])
        documents = [delivery_document(delivery, attempts[delivery.sequence]) for delivery in page.rows]
        page.represent(req, documents).answer(req, resp)


class Redelivery(Resource):
    """`/webhook-endpoints/{endpoint_id}/deliveries/{sequence}/redeliver`: sends it again, under the same id."""

    @operation(
        "send_again",
        "Send an event again",
        "Under the same `webhook-id`.",
        Answer(202, "It will be."),
        problems=("endpoint_not_found", "delivery_not_found"),
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response, endpoint_id: str, sequence: str) -> None:
        number = int(sequence) if sequence.isascii() and sequence.isdigit() and len(sequence) < 19 else None
        services.redeliver(req.context.user_id, parse_id(endpoint_id), number)
        resp.status = falcon.HTTP_202


def _show_secret(resp: falcon.Response, endpoint: Endpoint) -> None:
    """The only answers with a secret."""
    resp.set_header("Cache-Control", "no-store")
    resp.media = endpoint_document(endpoint, with_secret=True)
