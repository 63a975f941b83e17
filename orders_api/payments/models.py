"""Payment events as they are kept, whole and for good; and the audit of every attempt to deliver one."""

from peewee import BlobField, IntegerField, TextField, UUIDField
from playhouse.postgres_ext import DateTimeTZField

from orders_api.db import BaseModel


class PaymentEvent(BaseModel):
    """A verified event and what became of it. `body` is what was signed, byte for byte."""

    webhook_id = TextField(primary_key=True)
    type = TextField()
    order_id = TextField(null=True)
    body = BlobField()
    outcome = TextField()
    trace_id = TextField()
    received_at = DateTimeTZField()

    class Meta:
        table_name = "payment_events"


class WebhookAttempt(BaseModel):
    """An attempt, or in a flood as many as `attempts` says. Of a refused one nothing is known to be true."""

    id = UUIDField(primary_key=True)
    received_at = DateTimeTZField()
    client_ip = TextField()
    outcome = TextField()
    webhook_id = TextField(null=True)
    body_sha256 = BlobField()
    trace_id = TextField()
    attempts = IntegerField(default=1)

    class Meta:
        table_name = "webhook_attempts"
