"""A Sentry on loopback: it takes envelopes as the real one does (develop.sentry.dev, "Envelopes"), well or badly."""

import gzip
import importlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import orjson


def _unpacked(body: bytes, encoding: str | None) -> bytes:
    """The SDK takes brotli where something else has brought it along."""
    if encoding == "br":
        return importlib.import_module("brotli").decompress(body)
    return gzip.decompress(body) if encoding == "gzip" else body


class Sentry:
    """`answer`: the status of each envelope, and it may take its time. `raw`: all that came, uncompressed."""

    def __init__(self, answer: Callable[[], int] = lambda: 200) -> None:
        self.answer = answer
        self.items: list[tuple[str, dict[str, Any]]] = []
        self.raw = b""
        sentry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sentry.take(_unpacked(body, self.headers.get("content-encoding")))
                status = sentry.answer()
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "60")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.dsn = f"http://0123456789abcdef@127.0.0.1:{self._http.server_port}/42"
        self._thread = threading.Thread(target=self._http.serve_forever)

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

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
