"""What clients ask for."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from orders_api.payments.signatures import sign

JSON = {"Content-Type": "application/json"}
KINDS = {"pay": "payment.succeeded", "refund": "payment.refunded"}


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest() if self.body else ""


def read(token: str, path: str) -> Request:
    return Request("GET", path, _bearer(token))


def place(token: str, key: str, body: bytes) -> Request:
    return Request("POST", "/orders", {**_bearer(token), **JSON, "Idempotency-Key": key}, body)


def change(token: str, order_id: str, changes: Any) -> Request:
    return Request("PATCH", f"/orders/{order_id}", {**_bearer(token), **JSON}, orjson.dumps(changes))


def notify(secret: bytes, webhook_id: str, operation: str, order: Mapping[str, Any]) -> Request:
    """What a payment provider tells of an order: of its payment, or its refund."""
    payment = {"payment_id": f"p-{order['id']}", "order_id": order["id"], "amount_cents": order["total_cents"]}
    data = {**payment, "currency": order["currency"]}
    body = orjson.dumps({"type": KINDS[operation], "timestamp": "2026-11-25T10:00:00Z", "data": data})
    at = int(time.time())
    signed = {"webhook-signature": sign(secret, webhook_id, at, body), "webhook-timestamp": str(at)}
    return Request("POST", "/webhooks/payments", {**JSON, **signed, "webhook-id": webhook_id}, body)


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
