"""A payment provider that signs what it is told to, well or badly."""

import json
import secrets
import time
import uuid
from typing import Any

import httpx

from orders_api.payments.signatures import sign
from tests.client import plain_http

SECRET = b"0123456789abcdefghijklmnopqrstuv"


class Provider:
    """Sends webhooks to a server. Every one has a fresh id and the present time, unless it is told otherwise.

    Each sends from an address of its own: of one that is refused often not every refusal is audited.
    """

    def __init__(self, url: str, secret: bytes = SECRET) -> None:
        self.address = f"127.{secrets.randbelow(255)}.{secrets.randbelow(255)}.{1 + secrets.randbelow(254)}"
        self.http = plain_http(base_url=url, transport=httpx.HTTPTransport(verify=False, local_address=self.address))
        self.secret = secret

    def succeeded(self, order: dict[str, Any], **changes: Any) -> httpx.Response:
        return self.send(event("payment.succeeded", order, **changes))

    def refunded(self, order: dict[str, Any], **changes: Any) -> httpx.Response:
        return self.send(event("payment.refunded", order, **changes))

    def send(self, notice: Any, **options: Any) -> httpx.Response:
        return self.send_raw(json.dumps(notice).encode(), **options)

    def send_raw(
        self,
        body: bytes,
        *,
        webhook_id: str | None = None,
        off_s: int = 0,
        signature: str | None = None,
        **headers: str | None,
    ) -> httpx.Response:
        """`off_s`: how far the clock is off. `headers`: others, None for one that is to be missing; _ becomes -."""
        sent = {
            "content-type": "application/json",
            **signed(body, self.secret, webhook_id, off_s),
            **({} if signature is None else {"webhook-signature": signature}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        given = [(name.encode(), value.encode("latin-1")) for name, value in sent.items() if value is not None]
        return self.http.post("/webhooks/payments", content=body, headers=given)

    def close(self) -> None:
        self.http.close()


def signed(body: bytes, secret: bytes = SECRET, webhook_id: str | None = None, off_s: int = 0) -> dict[str, str]:
    """The headers that Standard Webhooks wants."""
    webhook_id = f"msg_{uuid.uuid4().hex}" if webhook_id is None else webhook_id
    timestamp = int(time.time()) + off_s
    signature = sign(secret, webhook_id, timestamp, body)
    return {"webhook-id": webhook_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def event(kind: str, order: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """An event about an order, as the API shows it; `changes` to the payment."""
    payment = {
        "payment_id": "pay_1",
        "order_id": order["id"],
        "amount_cents": order["total_cents"],
        "currency": order["currency"],
    }
    return {"type": kind, "timestamp": "2026-11-25T10:00:00Z", "data": {**payment, **changes}}
