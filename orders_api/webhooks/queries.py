"""Reads of one user's endpoints and deliveries."""

from collections import defaultdict
from uuid import UUID

from orders_api.db import db
from orders_api.errors import Problem
from orders_api.orders.models import OrderEvent
from orders_api.webhooks.models import Delivery, DeliveryAttempt, Endpoint

COUNTED = 10_000  # of what is due, for the metrics: past that it costs, and says nothing more

_OUTBOX = """
    WITH due AS (
        SELECT d.next_attempt_at
        FROM webhook_deliveries d JOIN webhook_endpoints e ON e.user_id = d.user_id AND e.id = d.endpoint_id
        WHERE d.state = 'pending' AND d.next_attempt_at <= now() AND e.disabled_at IS NULL
        ORDER BY d.next_attempt_at LIMIT %(most)s
    ),
    enabled AS (
        SELECT f.last_sequence - e.dispatched_sequence AS behind, e.failing_since
        FROM webhook_endpoints e JOIN feeds f ON f.user_id = e.user_id WHERE e.disabled_at IS NULL
    )
    SELECT
        (SELECT count(*) FROM due),
        (SELECT coalesce(extract(epoch FROM now() - min(next_attempt_at)), 0)::float FROM due),
        (SELECT coalesce(sum(behind), 0)::float FROM enabled),
        (SELECT count(*) FROM enabled),
        (SELECT count(failing_since) FROM enabled)
"""


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


def outbox() -> dict[str, tuple[float, str]]:
    """How far the deliveries are behind, over all users: figures by name, each with what it says."""
    due, overdue_s, undispatched, enabled, failing = db.execute_sql(_OUTBOX, {"most": COUNTED}).fetchone()
    return {
        "outbox_due": (due, f"Deliveries whose time has come, {COUNTED} at the most."),
        "outbox_overdue_seconds": (overdue_s, "How long the oldest of them has been due."),
        "outbox_events_behind": (undispatched, "Events that no delivery was made of yet, summed over the endpoints."),
        "webhook_endpoints": (enabled, "Endpoints that are not disabled."),
        "webhook_endpoints_failing": (failing, "Those of them whose last attempt failed."),
    }
