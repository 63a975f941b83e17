"""Users, sessions and refresh tokens as Peewee sees them; the tables are made by migrations/0001."""

from peewee import BigIntegerField, BlobField, CompositeKey, ForeignKeyField, TextField, UUIDField
from playhouse.postgres_ext import DateTimeTZField

from orders_api.db import BaseModel


class User(BaseModel):
    """An account. `email` is as it was registered, `email_key` what makes two spellings one address."""

    id = UUIDField(primary_key=True)
    email = TextField()
    email_key = TextField(unique=True)
    password_hash = TextField()
    created_at = DateTimeTZField()

    class Meta:
        table_name = "users"


class Feed(BaseModel):
    """The counter of a user's change feed."""

    user = ForeignKeyField(User, primary_key=True, column_name="user_id")
    last_sequence = BigIntegerField(default=0)

    class Meta:
        table_name = "feeds"


class Session(BaseModel):
    """One login and all that was refreshed from it."""

    user = ForeignKeyField(User, column_name="user_id")
    id = UUIDField()
    created_at = DateTimeTZField()
    revoked_at = DateTimeTZField(null=True)

    class Meta:
        table_name = "sessions"
        primary_key = CompositeKey("user", "id")


class RefreshToken(BaseModel):
    """A single-use token, known by its hash alone."""

    user = ForeignKeyField(User, column_name="user_id")
    token_hash = BlobField()
    session_id = UUIDField()
    created_at = DateTimeTZField()
    expires_at = DateTimeTZField()
    spent_at = DateTimeTZField(null=True)

    class Meta:
        table_name = "refresh_tokens"
        primary_key = CompositeKey("user", "token_hash")
