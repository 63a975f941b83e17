"""What comes in: strict marshmallow schemas whose errors all come back at once, each with where it stands."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import marshmallow
from marshmallow import fields

from orders_api.errors import FieldError, invalid
from orders_api.values import parse_time


class Fault(str):
    """A marshmallow error message that keeps its code."""

    __slots__ = ("code",)
    code: str

    def __new__(cls, code: str, detail: str) -> "Fault":
        fault = super().__new__(cls, detail)
        fault.code = code
        return fault

    def __deepcopy__(self, _memo: object) -> "Fault":
        return self

    def format(self, *args: object, **kwargs: object) -> "Fault":
        return Fault(self.code, super().format(*args, **kwargs))


def fault(code: str, detail: str, field_name: str = marshmallow.exceptions.SCHEMA) -> marshmallow.ValidationError:
    return marshmallow.ValidationError([Fault(code, detail)], field_name)


REQUIRED: dict[str, Any] = {
    "required": Fault("required", "This field is required."),
    "null": Fault("invalid_type", "This field must not be null."),
}


class Field(fields.Field):
    """What a request may hold. `json_schema` says to machines what the class says to people."""

    default_error_messages = REQUIRED

    def json_schema(self) -> dict[str, Any]:
        raise NotImplementedError


class Text(Field):
    """A string of `low` to `high` characters, without NUL (PostgreSQL stores none)."""

    def __init__(self, low: int, high: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, str):
            raise fault("invalid_type", "Must be a string.")
        if not self.low <= len(value) <= self.high:
            raise fault("out_of_range", f"Must have {self.low} to {self.high} characters.")
        if "\0" in value:
            raise fault("invalid_character", "Must not contain the NUL character.")
        return self.checked(value)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": self.low, "maxLength": self.high, "pattern": r"^[^\x00]*$"}

    def checked(self, value: str) -> Any:
        """For kinds of text that are more than characters."""
        return value


class Whole(Field):
    """An integer; `"1"`, `1.0` and `true` are none."""

    def __init__(self, low: int, high: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if type(value) is not int:
            raise fault("invalid_type", "Must be an integer.")
        if not self.low <= value <= self.high:
            raise fault("out_of_range", f"Must be from {self.low} to {self.high}.")
        return value

    def json_schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


class Choice(Field):
    """One of a few words; `hint` says which."""

    hint: str | None = None

    def __init__(self, choices: Collection[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.choices = choices

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise fault("invalid_type", "Must be a string.")
        if value not in self.choices:
            raise fault("invalid_value", f"Must be {self.hint or 'one of ' + ', '.join(self.choices)}.")
        return value

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": sorted(self.choices)}


class QueryWhole(Whole):
    """An integer in a query string: digits alone."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not isinstance(value, str) or not re.fullmatch(r"-?\d{1,100}", value, re.ASCII):
            raise fault("invalid_type", "Must be one integer.")
        return super()._deserialize(int(value), attr, data)


class Time(Field):
    """An RFC 3339 date-time with a UTC offset."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return parse_time(value)
        except (ValueError, TypeError):
            raise fault(
                "invalid_format",
                "Must be one RFC 3339 date-time with a UTC offset, such as 2026-11-23T10:00:00Z (write + as %2B).",
            ) from None

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "date-time"}


class Schema(marshmallow.Schema):
    """Refuses unknown fields; `parse` and `parse_query` raise one 422 with all that is wrong.

    `beyond_fields`: what JSON Schema can say of the fields together.
    """

    beyond_fields: ClassVar[dict[str, Any]] = {}
    error_messages: dict[str, str] = {
        "unknown": Fault("unknown_field", "There is no such field."),
        "type": Fault("invalid_type", "Must be an object."),
    }

    class Meta:
        unknown = marshmallow.RAISE

    def parse(self, document: Any) -> dict[str, Any]:
        try:
            return self.load(document)
        except marshmallow.ValidationError as e:
            raise invalid(*_pointed(e.normalized_messages())) from None

    def parse_query(self, params: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.load(params, unknown=marshmallow.RAISE)
        except marshmallow.ValidationError as e:
            raise invalid(*_parameters(e.normalized_messages())) from None


class NoParameters(Schema):
    """The query of a route that takes none."""


def _leaves(messages: Any, where: str, below: Callable[[str, str], str]) -> Iterator[tuple[str, str]]:
    """Each message with where it stands; `below` names a member of what stands at a place."""
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            yield from _leaves(
                inner, where if name == marshmallow.exceptions.SCHEMA else below(where, str(name)), below
            )
    elif isinstance(messages, str):
        yield where, messages
    else:
        for message in messages:
            yield from _leaves(message, where, below)


def _code(message: str) -> str:
    return message.code if isinstance(message, Fault) else "invalid_value"


def _pointed(messages: Any) -> list[FieldError]:
    leaves = _leaves(messages, "#", lambda where, name: f"{where}/{_token(name)}")
    return [FieldError(_code(message), str(message), pointer=where) for where, message in leaves]


def _parameters(messages: Any) -> list[FieldError]:
    leaves = _leaves(messages, "", lambda where, name: where or name)
    return [FieldError(_code(message), str(message), parameter=where) for where, message in leaves]


def _token(name: str) -> str:
    """A reference token in URI fragment form (RFC 6901, sections 3 and 6)."""
    if name.isascii() and name.isalnum():
        return name
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~!$&'()*+,;=:@")
