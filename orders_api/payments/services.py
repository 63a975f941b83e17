"""What becomes of a verified payment event: kept with its effect and the order's event in one transaction, or nothing.

An event that doesn't fit is kept too, with why, and changes nothing: the provider has done its part, a person looks.
"""

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog

from orders_api import metrics
from orders_api.admission import caller
from orders_api.cache import fenced
from orders_api.db import db, transactional
from orders_api.errors import Problem
from orders_api.orders.models import ORDERS, Order
from orders_api.orders.queries import lock_order, owner_of
from orders_api.orders.services import settle_order
from orders_api.payments.models import WebhookAttempt
from orders_api.reporting import reporter
from orders_api.values import new_id, now, parse_id

log = structlog.get_logger("orders_api.payments")

# Each refused attempt of a client has a row of its own up to here, a window of its limit; all clients' together to
# there. Past that a row stands for as many attempts as came before it: a flood of a million adds a dozen rows.
AUDITED_EACH, AUDITED_EACH_OF_ALL = 60, 6_000
PRUNE_BATCH = 1000

APPLIED, REPEATED, UNKNOWN_ORDER, UNKNOWN_TYPE = "applied", "repeated", "order_unknown", "type_unknown"
AMOUNT_DIFFERS, CURRENCY_DIFFERS, STEP_ILLEGAL = "amount_differs", "currency_differs", "step_illegal"
OUTCOMES = (APPLIED, REPEATED, AMOUNT_DIFFERS, CURRENCY_DIFFERS, STEP_ILLEGAL, UNKNOWN_ORDER, UNKNOWN_TYPE)

# Counted from 0: a series that begins with 1 is no increase to Prometheus, and of some there may be one a year.
for _outcome in OUTCOMES:
    metrics.payment_webhooks.labels(_outcome)

_KEEP = """
    WITH kept AS (
        INSERT INTO payment_events (webhook_id, type, order_id, body, outcome, trace_id, received_at)
        VALUES (%(webhook_id)s, %(type)s, %(order_id)s, %(body)s, %(outcome)s, %(trace_id)s, %(received_at)s)
        ON CONFLICT (webhook_id) DO NOTHING RETURNING outcome
    ),
    audited AS (
        INSERT INTO webhook_attempts (id, received_at, client_ip, outcome, webhook_id, body_sha256, trace_id)
        SELECT %(id)s, %(received_at)s, %(client_ip)s, coalesce((SELECT outcome FROM kept), %(repeated)s),
            %(webhook_id)s, %(body_sha256)s, %(trace_id)s
    )
    SELECT outcome FROM kept
"""


@dataclass(frozen=True, slots=True)
class Step:
    """What a payment does: from which status to which, and the event that tells of it."""

    before: str
    after: str
    event: str


STEPS = {
    "payment.succeeded": Step("pending", "paid", "order.paid"),
    "payment.refunded": Step("paid", "cancelled", "order.refunded"),
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request of somebody who may be the provider. `webhook_id` is None where none could be stored."""

    webhook_id: str | None
    body: bytes
    client_ip: str
    trace_id: str

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.body).digest()


def receive(delivery: Delivery, notice: dict[str, Any]) -> str:
    """Applies a verified notice once, whatever is repeated, doubled or out of order; returns its outcome.

    Nothing is kept when it raises: the provider sends it again.
    """
    order_id = parse_id(str(notice["data"].get("order_id")))
    known = notice["type"] in STEPS
    owner = owner_of(order_id) if known and order_id else None
    db.release()
    if owner is None:
        outcome = _keep(delivery, notice, UNKNOWN_ORDER if known else UNKNOWN_TYPE)
    else:
        caller.set(caller.get()._replace(user_id=owner))  # whose locks it may wait for: it claims the owner's places
        outcome = _apply(owner, order_id, delivery, notice)
    metrics.payment_webhooks.labels(outcome).inc()
    if outcome not in (APPLIED, REPEATED):
        log.warning("payment event not applied", outcome=outcome, webhook_id=delivery.webhook_id)
        reporter.warn(f"Payment event not applied: {outcome}", outcome, delivery.trace_id, order_id=order_id)
    return outcome


@fenced(ORDERS)
@transactional
def _apply(user_id: UUID, order_id: UUID, delivery: Delivery, notice: dict[str, Any]) -> str:
    order = lock_order(user_id, order_id)
    step = STEPS[notice["type"]]
    outcome = _keep(delivery, notice, _judged(order, step, notice["data"]))
    if outcome == APPLIED:
        settle_order(order, step.after, step.event, delivery.trace_id)
    return outcome


def _judged(order: Order, step: Step, payment: dict[str, Any]) -> str:
    if payment["currency"] != order.currency:
        return CURRENCY_DIFFERS
    if payment["amount_cents"] != order.total_cents:
        return AMOUNT_DIFFERS
    return APPLIED if order.status == step.before else STEP_ILLEGAL


def _keep(delivery: Delivery, notice: dict[str, Any], outcome: str) -> str:
    """Stores the event with its outcome, unless it is here already; the attempt either way."""
    row = {
        "webhook_id": delivery.webhook_id,
        "type": notice["type"],
        "order_id": notice["data"].get("order_id") if notice["type"] in STEPS else None,
        "body": delivery.body,
        "outcome": outcome,
        "repeated": REPEATED,
        "trace_id": delivery.trace_id,
        "received_at": now(),
        "id": new_id(),
        "client_ip": delivery.client_ip,
        "body_sha256": delivery.sha256,
    }
    return outcome if db.execute_sql(_KEEP, row).fetchone() else REPEATED


def audit(delivery: Delivery, outcome: str, attempts: int = 1) -> None:
    """Writes down an attempt that left no event. `attempts`: how many this row stands for; of none there is no row."""
    metrics.payment_webhooks.labels(outcome).inc()
    if attempts:
        WebhookAttempt.insert(
            id=new_id(),
            received_at=now(),
            client_ip=delivery.client_ip,
            outcome=outcome,
            webhook_id=delivery.webhook_id,
            body_sha256=delivery.sha256,
            trace_id=delivery.trace_id,
            attempts=attempts,
        ).execute()


def row_stands_for(of_client: int, of_all: int) -> int:
    """How many attempts the row of this one stands for, when it is a client's n-th of a window and the n-th of all."""
    if of_all > AUDITED_EACH_OF_ALL:
        return _since_last_power_of_two(of_all)
    return 1 if of_client <= AUDITED_EACH else _since_last_power_of_two(of_client)


def _since_last_power_of_two(number: int) -> int:
    return number // 2 if number & (number - 1) == 0 else 0


def prune_attempts() -> int:
    """Deletes audit rows that are older than 90 days, in batches; returns how many. Younger ones nobody can delete."""
    total = 0
    while pruned := db.execute_sql("SELECT prune_webhook_attempts(%s)", (PRUNE_BATCH,)).fetchone()[0]:
        total += pruned
    return total


def find_amount(order_id: UUID) -> tuple[int, str]:
    """What is to be paid, and in which currency. Raises order_not_found."""
    row = Order.select(Order.total_cents, Order.currency).where(Order.id == order_id).tuples().first()
    if row is None:
        raise Problem("order_not_found")
    return row
