"""A Sentry on loopback: it takes envelopes as the real one does (develop.sentry.dev, "Envelopes"), well or badly."""

import gzip
import importlib
from collections.abc import Callable
from typing import Any

import orjson

from tests.loopback import Loopback


def _unpacked(body: bytes, encoding: str | None) -> bytes:
    """The SDK takes brotli where something else has brought it along."""
    if encoding == "br":
        return importlib.import_module("brotli").decompress(body)
    return gzip.decompress(body) if encoding == "gzip" else body


class Sentry(Loopback):
    """`answer`: the status of each envelope, and it may take its time. `raw`: all that came, uncompressed."""

    def __init__(self, answer: Callable[[], int] = lambda: 200) -> None:
        super().__init__()
        self.answer = answer
        self.items: list[tuple[str, dict[str, Any]]] = []
        self.raw = b""
        self.dsn = f"http://0123456789abcdef@127.0.0.1:{self.port}/42"

    def answered(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        self.take(_unpacked(body, headers.get("content-encoding")))
        status = self.answer()
        return status, {"Retry-After": "60"} if status == 429 else {}

    def take(self, envelope: bytes) -> None:
        self.raw += envelope
        _header, _, rest = envelope.partition(b"\n")
        while rest.strip():
            head, _, rest = rest.partition(b"\n")
            kind = orjson.loads(head)
            length = kind.get("length", rest.find(b"\n"))
            payload, rest = rest[:length], rest[length:].lstrip(b"\n")
            self.items.append((kind["type"], orjson.loads(payload)))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """What came of a kind ("event", "transaction"), in its order."""
        return [item for theirs, item in list(self.items) if theirs == kind]
