"""Writes to a user's endpoints."""

import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

from orders_api.db import db, transactional
from orders_api.errors import Problem
from orders_api.values import new_id, now
from orders_api.webhooks.models import Delivery, Endpoint
from orders_api.webhooks.queries import find_endpoint

MAX_ENDPOINTS = 10
SECRET_BYTES = 32
# After a rotation both secrets sign for so long: time to tell the receiver the new one.
OVERLAP = timedelta(hours=24)
DELIVERIES_KEPT = timedelta(days=30)
PRUNE_BATCH = 1000


@transactional
def add_endpoint(user_id: UUID, url: str, description: str, event_types: list[str]) -> Endpoint:
    """A new endpoint, which is told of what happens from now on. Raises endpoint_limit_reached."""
    # The counter's row lock makes one after the other of those who come at once, and its number is where to begin.
    row = db.execute_sql("SELECT last_sequence FROM feeds WHERE user_id = %s FOR UPDATE", (user_id,)).fetchone()
    if Endpoint.select().where(Endpoint.user_id == user_id).count() >= MAX_ENDPOINTS:
        raise Problem("endpoint_limit_reached")
    fields: dict[str, Any] = {
        "user_id": user_id,
        "id": new_id(),
        "url": url,
        "description": description,
        "event_types": event_types,
        "secret": secrets.token_bytes(SECRET_BYTES),
        "dispatched_sequence": row[0],
        "created_at": now(),
    }
    Endpoint.insert(**fields).execute()
    return Endpoint(**fields)


def remove_endpoint(user_id: UUID, endpoint_id: UUID | None) -> None:
    """With all that was still to be delivered. Raises endpoint_not_found."""
    gone = Endpoint.delete().where(Endpoint.user_id == user_id, Endpoint.id == endpoint_id)
    if not endpoint_id or not gone.execute():
        raise Problem("endpoint_not_found")


@transactional
def rotate_secret(user_id: UUID, endpoint_id: UUID | None) -> Endpoint:
    """Makes a new secret; the old one signs along for 24 hours. Raises endpoint_not_found."""
    endpoint = find_endpoint(user_id, endpoint_id)
    endpoint.previous_secret, endpoint.previous_until = endpoint.secret, now() + OVERLAP
    endpoint.secret = secrets.token_bytes(SECRET_BYTES)
    names = ("secret", "previous_secret", "previous_until")
    Endpoint.update({getattr(Endpoint, name): getattr(endpoint, name) for name in names}).where(
        Endpoint.user_id == user_id, Endpoint.id == endpoint.id
    ).execute()
    return endpoint


def redeliver(user_id: UUID, endpoint_id: UUID | None, sequence: int | None) -> None:
    """Sends once more, under the same id, with the schedule from its beginning. Raises …_not_found."""
    endpoint = find_endpoint(user_id, endpoint_id)
    again = Delivery.update(state="pending", step=0, next_attempt_at=now()).where(
        Delivery.user_id == user_id, Delivery.endpoint_id == endpoint.id, Delivery.sequence == sequence
    )
    if sequence is None or not again.execute():
        raise Problem("delivery_not_found")


def prune_deliveries() -> int:
    """Deletes deliveries, with their attempts, that ended 30 days ago or earlier, in batches; returns how many."""
    total = 0
    sql = """
        DELETE FROM webhook_deliveries WHERE (user_id, endpoint_id, sequence) IN (
            SELECT user_id, endpoint_id, sequence FROM webhook_deliveries
            WHERE state <> 'pending' AND created_at < %s ORDER BY created_at LIMIT %s
        )
    """
    while count := db.execute_sql(sql, (now() - DELIVERIES_KEPT, PRUNE_BATCH)).rowcount:
        total += count
    return total
