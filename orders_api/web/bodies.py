"""Request bodies: the right media type, at most 64 KiB, all there within a deadline, strict JSON."""

from typing import Any

import falcon
import gevent
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import ParseException

from orders_api.admission import in_flight
from orders_api.errors import Problem
from orders_api.values import parse_json

MAX_BYTES = 64 * 1024
# gunicorn never cuts a slow body. Only reading the socket stands below this timeout: around a database or
# memcached call it would leak their slots.
READ_DEADLINE_S = 10
JSON_TYPES = ("application/json",)
PATCH_TYPES = (*JSON_TYPES, "application/merge-patch+json")


class _TooSlow(Exception):  # noqa: N818  (of a body, not of ours)
    """An Exception, unlike gevent's own Timeout: by it gunicorn knows that the body failed, and ends the connection.

    Else what still comes of a chunked one would be the next request: a way to smuggle one in.
    """


def json_of(req: falcon.Request, media_types: tuple[str, ...] = JSON_TYPES) -> Any:
    """The parsed body. Raises 415, 413 and 400 problems, in this order."""
    empty = not req.content_length and not req.get_header("Transfer-Encoding")
    if not (empty and req.content_type is None):
        check_media_type(req, media_types)
    return parsed(raw_of(req))


def parsed(raw: bytes) -> Any:
    """The document in a body. Raises malformed_json."""
    if not raw:
        raise Problem("malformed_json", "The body is empty; this request needs a JSON document.")
    try:
        return parse_json(raw)
    except (ValueError, RecursionError) as e:
        raise Problem("malformed_json", str(e) or None) from None


def raw_of(req: falcon.Request) -> bytes:
    """The body's bytes. Raises 413 over 64 KiB, 400 when it is cut short, badly chunked or too slow."""
    if (req.content_length or 0) > MAX_BYTES:
        raise Problem("body_too_large")
    try:
        raw = _read(req.stream)
    except _TooSlow:
        raise Problem("malformed_json", f"The body did not arrive within {READ_DEADLINE_S} seconds.") from None
    except (ParseException, OSError):
        raise Problem("malformed_json", "The body is cut short, or its chunks are malformed.") from None
    if len(raw) > MAX_BYTES:
        raise Problem("body_too_large")
    if len(raw) < (req.content_length or 0):
        raise Problem("malformed_json", "The body is shorter than its Content-Length.")
    return raw


def _read(stream: Any) -> bytes:
    """Whose body came along with the head, as most do, waits for nothing and keeps its place in the worker."""
    reader = getattr(stream, "reader", None)  # gunicorn's
    if isinstance(reader, LengthReader) and reader.unreader.buf.tell() >= reader.length:
        return stream.read(MAX_BYTES + 1)
    with in_flight.aside(), gevent.Timeout(READ_DEADLINE_S, _TooSlow):
        return stream.read(MAX_BYTES + 1)


def check_media_type(req: falcon.Request, media_types: tuple[str, ...] = JSON_TYPES) -> None:
    """Raises media_type_unsupported."""
    media_type, parameters = falcon.parse_header((req.content_type or "").lower())
    if media_type not in media_types or parameters.get("charset", "utf-8") not in ("utf-8", "utf8"):
        raise _unsupported(media_types)
    if req.get_header("Content-Encoding", default="identity").strip().lower() != "identity":
        raise _unsupported(media_types)


def _unsupported(media_types: tuple[str, ...]) -> Problem:
    headers = {"Accept-Patch": ", ".join(media_types)} if media_types is PATCH_TYPES else {}
    return Problem("media_type_unsupported", headers=headers)
