"""Keyset cursors: opaque, signed, bound to one user's walk and its filters. They hold values, not a row."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import falcon
import orjson

from orders_api.errors import FieldError, Problem
from orders_api.settings import Ring
from orders_api.web.caching import Representation

Row = TypeVar("Row")

VERSION = 1
MAX_CHARACTERS = 512
MAC_BYTES = 16
FILTERS = ("status", "created_after", "created_before")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Cursors:
    """Makes and reads cursors. The ring's first key signs, all verify."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring

    def walk(self, scope: str, cursor: str | None, filters: dict[str, Any]) -> "Walk":
        """Continues a walk from a cursor, or begins one. Raises cursor_invalid and cursor_mismatch."""
        hashes = [_hash(filters.get(name)) for name in FILTERS]
        if cursor is None:
            return Walk(self, scope, hashes, None)
        position, theirs = self._read(scope, cursor)
        changed = [name for name, a, b in zip(FILTERS, hashes, theirs, strict=True) if a != b]
        if changed:
            raise Problem(
                "cursor_mismatch",
                f"The walk began with another {' and '.join(changed)}.",
                errors=[FieldError("changed", "Must stay as it was.", parameter=name) for name in changed],
            )
        return Walk(self, scope, hashes, position)

    def write(self, scope: str, hashes: list[str], position: Sequence[Any]) -> str:
        payload = orjson.dumps([VERSION, [_plain(value) for value in position], hashes])
        return base64.urlsafe_b64encode(payload + _mac(self.ring[0].secret, scope, payload)).rstrip(b"=").decode()

    def _read(self, scope: str, cursor: str) -> tuple[list[Any], list[str]]:
        if len(cursor) > MAX_CHARACTERS:
            raise Problem("cursor_invalid")
        try:
            raw = base64.urlsafe_b64decode(cursor + "==")
        except ValueError:
            raise Problem("cursor_invalid") from None
        payload, mac = raw[:-MAC_BYTES], raw[-MAC_BYTES:]
        # Base64 can spell the same bytes in many ways, and the decoder is lenient; a cursor has one spelling.
        canonical = base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == cursor
        if not canonical or not any(hmac.compare_digest(mac, _mac(key.secret, scope, payload)) for key in self.ring):
            raise Problem("cursor_invalid")
        version, position, hashes = orjson.loads(payload)
        if version != VERSION:
            raise Problem("cursor_invalid")
        return position, hashes


@dataclass(frozen=True)
class Walk:
    """One user's way through one list, as far as it has come."""

    cursors: Cursors
    scope: str
    hashes: list[str]
    position: list[Any] | None

    def time_and_id(self) -> tuple[datetime, UUID] | None:
        if self.position is None:
            return None
        microseconds, hex_id = self.position
        return _EPOCH + microseconds * _MICROSECOND, UUID(hex_id)

    def number(self) -> int:
        (number,) = self.position or (0,)
        return number

    def page(self, rows: list[Row], limit: int, position_of: Callable[[Row], Sequence[Any]]) -> "Page[Row]":
        """`rows` holds one more than the page when there are more."""
        more = len(rows) > limit
        shown = rows[:limit]
        return Page(shown, self._cursor(position_of(shown[-1])) if more else None, more)

    def feed_page(self, rows: list[Row], limit: int, position_of: Callable[[Row], Sequence[Any]]) -> "Page[Row]":
        """A page of what is never at its end: its cursor waits behind the last row for those that are yet to come."""
        shown = rows[:limit]
        position = position_of(shown[-1]) if shown else (self.number(),)
        return Page(shown, self._cursor(position), len(rows) > limit)

    def _cursor(self, position: Sequence[Any]) -> str:
        return self.cursors.write(self.scope, self.hashes, position)


@dataclass(frozen=True)
class Page(Generic[Row]):
    rows: list[Row]
    next_cursor: str | None
    has_more: bool

    def represent(self, req: falcon.Request, documents: list[dict[str, Any]]) -> Representation:
        body = {"data": documents, "has_more": self.has_more, "next_cursor": self.next_cursor}
        if not self.has_more:
            return Representation(orjson.dumps(body))
        query = urlencode({**req.params, "cursor": self.next_cursor})
        return Representation(orjson.dumps(body), link=f'<{req.path}?{query}>; rel="next"')


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    return value.hex if isinstance(value, UUID) else value


def _hash(value: Any) -> str:
    if value is None:
        return ""
    text = str(_plain(value))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _mac(key: bytes, scope: str, payload: bytes) -> bytes:
    return hmac.digest(key, scope.encode() + b"\n" + payload, "sha256")[:MAC_BYTES]
