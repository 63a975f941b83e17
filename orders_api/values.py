"""Ids, time, currencies and strict JSON: the values that everything else speaks in."""

import hashlib
import json
import re
import uuid
from datetime import UTC, datetime
from typing import Any, NoReturn

import iso4217
import uuid_utils.compat

# ISO 4217 lists metals, testing codes and XXX as well; what has minor units can be paid in.
CURRENCIES = frozenset(currency.code for currency in iso4217.Currency if currency.exponent is not None)

MAX_TOTAL_CENTS = 10**12
MAX_DEPTH = 32
MAX_INTEGER_DIGITS = 19

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
# A string that never ends matches too: looking for its end again from each quote in it takes the square of its length.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def new_id() -> uuid.UUID:
    """A UUIDv7 (RFC 9562): unique anywhere, sorted by the time it was made."""
    return uuid_utils.compat.uuid7()


def parse_id(text: str) -> uuid.UUID | None:
    """The id written with its hyphens, in any case (RFC 9562, section 4), else None."""
    return uuid.UUID(text) if _UUID.fullmatch(text) else None


def now() -> datetime:
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_time(text: str) -> datetime:
    """An RFC 3339 date-time with its offset, in UTC. Raises ValueError."""
    if not _DATE_TIME.fullmatch(text):
        raise ValueError("not an RFC 3339 date-time")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as e:
        raise ValueError("out of range") from e


def canonical_json(document: Any) -> bytes:
    """The same bytes for the same JSON value, however it was spelled."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(document: Any) -> bytes:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(document)).digest()


def parse_json(raw: bytes) -> Any:
    """Strict JSON (RFC 8259). Raises ValueError with a sentence a person can act on.

    Refused besides what the grammar refuses: NaN and Infinity, duplicate keys, lone surrogates, a byte order mark,
    nesting deeper than 32, integers of more than 19 digits.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("The body is not valid UTF-8.") from None
    _check_depth(text)
    try:
        document = json.loads(
            text, parse_constant=_refuse_constant, object_pairs_hook=_unique, parse_int=_short_integer
        )
        if _SURROGATE_ESCAPE.search(text):
            canonical_json(document)
    except json.JSONDecodeError as e:
        raise ValueError(f"{e.msg} at line {e.lineno}, column {e.colno}.") from None
    except UnicodeEncodeError:
        raise ValueError("A string holds a lone surrogate.") from None
    return document


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        bracket = token[0]
        if bracket in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"The body nests deeper than {MAX_DEPTH} levels.")
        elif bracket in "]}":
            depth -= 1


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("An object holds the same key twice.")
    return members


def _short_integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_INTEGER_DIGITS:
        raise ValueError(f"An integer has more than {MAX_INTEGER_DIGITS} digits.")
    return int(digits)
