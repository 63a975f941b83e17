"""What clients send to /auth, and what they get."""

from typing import Any

from orders_api.accounts import emails, passwords
from orders_api.accounts.models import User
from orders_api.accounts.tokens import LIFETIME_S
from orders_api.values import format_time
from orders_api.web.validation import Schema, Text, fault

ANY_LENGTH = 64 * 1024  # of a body; the field itself says what is too long


class Email(Text):
    """An address, trimmed and in NFKC."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(0, ANY_LENGTH, **kwargs)

    def checked(self, value: str) -> str:
        try:
            return emails.normalised(value)
        except ValueError as e:
            raise fault("invalid_format", str(e)) from None


class NewPassword(Text):
    """8 to 256 characters of any kind, but none of the most common passwords."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(passwords.MIN_CHARACTERS, passwords.MAX_CHARACTERS, **kwargs)

    def checked(self, value: str) -> str:
        if passwords.is_common(value):
            raise fault("too_common", "Is one of the most common passwords; choose another.")
        return value


class Registration(Schema):
    email = Email(required=True)
    password = NewPassword(required=True)


class Credentials(Schema):
    """A password of any length: one that could not be registered is simply wrong."""

    email = Email(required=True)
    password = Text(1, passwords.MAX_CHARACTERS, required=True)


class Refreshment(Schema):
    refresh_token = Text(0, ANY_LENGTH, required=True)


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
