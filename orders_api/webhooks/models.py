"""Endpoints, and what is delivered to them."""

from peewee import BigIntegerField, BlobField, CompositeKey, IntegerField, SmallIntegerField, TextField, UUIDField
from playhouse.postgres_ext import ArrayField, DateTimeTZField

from orders_api.db import BaseModel


class Endpoint(BaseModel):
    """Where a user wants to be told. `dispatched_sequence`: up to which event its deliveries were made."""

    user_id = UUIDField()
    id = UUIDField()
    url = TextField()
    description = TextField()
    event_types = ArrayField(TextField, index=False)
    secret = BlobField()
    previous_secret = BlobField(null=True)
    previous_until = DateTimeTZField(null=True)
    dispatched_sequence = BigIntegerField()
    failing_since = DateTimeTZField(null=True)
    disabled_at = DateTimeTZField(null=True)
    disabled_reason = TextField(null=True)
    created_at = DateTimeTZField()

    class Meta:
        table_name = "webhook_endpoints"
        primary_key = CompositeKey("user_id", "id")


class Delivery(BaseModel):
    """One event for one endpoint."""

    user_id = UUIDField()
    endpoint_id = UUIDField()
    sequence = BigIntegerField()
    state = TextField()
    attempts = IntegerField()
    step = IntegerField()
    next_attempt_at = DateTimeTZField()
    created_at = DateTimeTZField()
    type: str  # of its event, where that was asked for

    class Meta:
        table_name = "webhook_deliveries"
        primary_key = CompositeKey("user_id", "endpoint_id", "sequence")


class DeliveryAttempt(BaseModel):
    """What came of one attempt: an HTTP status, or an error where there was no answer."""

    user_id = UUIDField()
    endpoint_id = UUIDField()
    sequence = BigIntegerField()
    number = IntegerField()
    began_at = DateTimeTZField()
    duration_ms = IntegerField()
    status = SmallIntegerField(null=True)
    error = TextField(null=True)

    class Meta:
        table_name = "webhook_delivery_attempts"
        primary_key = CompositeKey("user_id", "endpoint_id", "sequence", "number")
