"""What clients send to /auth."""

from typing import Any

from orders_api.accounts import emails, passwords
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

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "email", "maxLength": emails.MAX_CHARACTERS}


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
