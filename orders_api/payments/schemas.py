"""What a payment provider sends (CONTRACT 7)."""

from typing import Any

from orders_api.payments.services import STEPS
from orders_api.web.validation import Field, Schema, Text, Time, Whole, fault

MAX_AMOUNT_CENTS = 10**18  # more than any order may have: what differs is kept and reported, not refused


class Payment(Schema):
    payment_id = Text(1, 255, required=True)
    order_id = Text(1, 255, required=True)
    amount_cents = Whole(0, MAX_AMOUNT_CENTS, required=True)
    currency = Text(1, 16, required=True)


class Details(Field):
    """A payment; of a type that we don't know, any object."""

    payment = Payment()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise fault("invalid_type", "Must be an object.")
        known = data.get("type") in list(STEPS)  # it may be anything yet, and then has no hash
        return self.payment.load(value) if known else value

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [Payment, {"type": "object"}]}


class PaymentNotice(Schema):
    type = Text(1, 255, required=True)
    timestamp = Time(required=True)
    data = Details(required=True)
