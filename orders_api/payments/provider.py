"""The payment provider's side of a webhook, for development and tests: `orders-api pay`."""

import json
import time
import urllib.error
import urllib.request
import uuid

from orders_api.payments import signatures
from orders_api.values import format_time, now

TIMEOUT_S = 15


class NotSent(Exception):  # noqa: N818
    """Nobody answered."""


def send(url: str, secret: bytes, kind: str, order_id: str, amount_cents: int, currency: str) -> tuple[int, str]:
    """Signs and sends an event under a fresh id; returns the answer's status and body. Raises NotSent."""
    payment = {
        "payment_id": f"pay_{uuid.uuid4().hex}",
        "order_id": order_id,
        "amount_cents": amount_cents,
        "currency": currency,
    }
    body = json.dumps({"type": kind, "timestamp": format_time(now()), "data": payment}).encode()
    webhook_id, timestamp = f"msg_{uuid.uuid4().hex}", int(time.time())
    headers = {
        "Content-Type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signatures.sign(secret, webhook_id, timestamp, body),
    }
    request = urllib.request.Request(url, body, headers)  # noqa: S310  (an operator's own address)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            return answer.status, ""
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode(errors="replace")
    except OSError as error:
        raise NotSent(str(getattr(error, "reason", error))) from None
