"""`/webhooks/payments`: where the payment provider tells us."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import falcon

from orders_api.admission import Priority, caller
from orders_api.errors import Problem
from orders_api.payments import services, signatures
from orders_api.payments.schemas import PaymentNotice
from orders_api.payments.services import Delivery
from orders_api.web import bodies
from orders_api.web.operations import Answer, operation
from orders_api.web.rate_limits import Failures
from orders_api.web.resources import Resource

FAULT_OF_OURS = 500  # and above

payment_notice = PaymentNotice()
EXAMPLE = {
    "type": "payment.succeeded",
    "timestamp": "2026-11-25T10:00:00Z",
    "data": {
        "payment_id": "pay_17",
        "order_id": "01a20814-b875-742d-bb03-f50f739fc0a4",
        "amount_cents": 1250,
        "currency": "EUR",
    },
}


class PaymentWebhook(Resource):
    """`/webhooks/payments`: authenticated by its signature, limited only where that fails."""

    authenticated = False
    limits: ClassVar[tuple[str, ...]] = ()
    limits_failures = True
    priority = Priority.WEBHOOK

    def __init__(self, secrets: tuple[bytes, ...], failures: Failures) -> None:
        self.secrets = secrets
        self.failures = failures

    @operation(
        "receive_payment",
        "Tell of a payment",
        "For the payment provider, signed (Standard Webhooks). 204 says that the event is kept, together with its"
        " effect on the order: also where it comes again, or does not fit the order and so changes nothing."
        " Anything else: send it again.",
        Answer(204, "It is kept."),
        body=payment_notice,
        examples={"paid": EXAMPLE},
        headers=("webhook-id", "webhook-timestamp", "webhook-signature"),
        problems=("signature_invalid", "rate_limited"),
        security="signature",
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        delivery = Delivery(None, b"", req.context.client_ip, req.context.trace_id)
        with self._failure_counted(req, delivery):
            delivery = replace(delivery, body=bodies.raw_of(req))
        with self._failure_counted(req, delivery):
            delivery = replace(delivery, webhook_id=self._verified_id(req, delivery.body))
        # At the door it was perhaps not taken for one, from an address that had failed too often.
        caller.set(caller.get()._replace(priority=Priority.WEBHOOK))
        with _audited(delivery):
            bodies.check_media_type(req)
            notice = payment_notice.parse(bodies.parsed(delivery.body))
        req.context.order_id = notice["data"].get("order_id")
        services.receive(delivery, notice)
        resp.status = falcon.HTTP_204

    def _verified_id(self, req: falcon.Request, body: bytes) -> str:
        """The webhook-id, if one of our secrets signed it with this body. Raises signature_invalid."""
        webhook_id = req.get_header("webhook-id")
        timestamp, signature = req.get_header("webhook-timestamp"), req.get_header("webhook-signature")
        now = time.time()
        if webhook_id is None or not signatures.is_signed(self.secrets, webhook_id, timestamp, signature, body, now):
            raise Problem("signature_invalid")
        return webhook_id

    @contextmanager
    def _failure_counted(self, req: falcon.Request, delivery: Delivery) -> Iterator[None]:
        """Counts who can't show to be the provider, and writes the attempt down. Raises rate_limited at too many."""
        try:
            yield
        except Problem as problem:
            if problem.type.status >= FAULT_OF_OURS:
                raise
            # From here on it is nobody of importance.
            caller.set(caller.get()._replace(priority=Priority.LIST))
            verdict, of_client, of_all = self.failures.add(req)
            services.audit(delivery, problem.code, services.row_stands_for(of_client, of_all))
            verdict.check()
            raise


@contextmanager
def _audited(delivery: Delivery) -> Iterator[None]:
    """Writes down what the provider signed and we could not read."""
    try:
        yield
    except Problem as problem:
        services.audit(delivery, problem.code)
        raise
