"""What /auth answers."""

from typing import Any

from marshmallow import fields, validate

from orders_api.accounts.models import User
from orders_api.accounts.tokens import LIFETIME_S
from orders_api.values import format_time
from orders_api.web.operations import Shape


class UserShape(Shape):
    id = fields.UUID(required=True)
    email = fields.String(required=True, metadata={"format": "email"})
    created_at = fields.AwareDateTime(required=True)


class TokensShape(Shape):
    access_token = fields.String(required=True, metadata={"description": "A JWT: send it as `Authorization: Bearer`."})
    token_type = fields.String(required=True, validate=validate.OneOf(["Bearer"]))
    expires_in = fields.Integer(required=True, metadata={"description": "Seconds."})
    refresh_token = fields.String(required=True, metadata={"description": "Good once, for 30 days."})


def user_document(user: User) -> dict[str, Any]:
    return {"id": str(user.id), "email": user.email, "created_at": format_time(user.created_at)}


def token_document(access_token: str, refresh_token: str) -> dict[str, Any]:
    """RFC 6749, 5.1."""
    return {
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": LIFETIME_S,
        "refresh_token": refresh_token,
    }
