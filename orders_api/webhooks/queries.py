"""Reads of one user's endpoints and deliveries."""

from collections import defaultdict
from uuid import UUID

from orders_api.errors import Problem
from orders_api.orders.models import OrderEvent
from orders_api.webhooks.models import Delivery, DeliveryAttempt, Endpoint


def endpoints_of(user_id: UUID) -> list[Endpoint]:
    """All of a user's endpoints, oldest first."""
    return list(Endpoint.select().where(Endpoint.user_id == user_id).order_by(Endpoint.created_at, Endpoint.id))


def find_endpoint(user_id: UUID, endpoint_id: UUID | None) -> Endpoint:
    """Raises endpoint_not_found, alike for unknown, malformed (None) and foreign ids."""
    query = Endpoint.select().where(Endpoint.user_id == user_id, Endpoint.id == endpoint_id)
    endpoint = query.first() if endpoint_id else None
    if endpoint is None:
        raise Problem("endpoint_not_found")
    return endpoint


def deliveries_of(user_id: UUID, endpoint_id: UUID, *, limit: int, before: int | None = None) -> list[Delivery]:
    """The next `limit` deliveries, newest event first, before a sequence number; each with its event's `type`."""
    event = (OrderEvent.user_id == Delivery.user_id) & (OrderEvent.sequence == Delivery.sequence)
    query = Delivery.select(Delivery, OrderEvent.type.alias("type")).join(OrderEvent, on=event, attr="event")
    query = query.where(Delivery.user_id == user_id, Delivery.endpoint_id == endpoint_id)
    if before is not None:
        query = query.where(Delivery.sequence < before)
    return list(query.order_by(Delivery.sequence.desc()).limit(limit).objects())


def attempts_of(user_id: UUID, endpoint_id: UUID, sequences: list[int]) -> dict[int, list[DeliveryAttempt]]:
    """The attempts of many deliveries in one statement, in their order."""
    attempts: dict[int, list[DeliveryAttempt]] = defaultdict(list)
    if sequences:
        query = DeliveryAttempt.select().where(
            DeliveryAttempt.user_id == user_id,
            DeliveryAttempt.endpoint_id == endpoint_id,
            DeliveryAttempt.sequence.in_(sequences),
        )
        for attempt in query.order_by(DeliveryAttempt.sequence, DeliveryAttempt.number):
            attempts[attempt.sequence].append(attempt)
    return attempts
