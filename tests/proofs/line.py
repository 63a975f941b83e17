"""A client's line to the service: plain HTTP on a socket, where whatever can go wrong has a name."""

import contextlib
import hashlib
import http.client
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.proofs.history import FAIL, OK, UNKNOWN
from tests.proofs.requests import Request

TIMEOUT_S = 2.5
LOST = (OSError, http.client.HTTPException)  # timeouts are OSErrors


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` None: there was none, and nobody knows what came of the request."""

    start: int
    end: int
    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        if self.status is None or self.status >= 500:
            return UNKNOWN
        return OK if self.status < 300 else FAIL

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest() if self.body else ""

    @property
    def document(self) -> dict[str, Any]:
        return orjson.loads(self.body) if "json" in self.headers.get("content-type", "") else {}

    @property
    def cache(self) -> str:
        """What the cache said, by Server-Timing."""
        return self.headers.get("server-timing", "").rpartition("cache;desc=")[2].strip('"')


class Line:
    """One connection at a time. Not for two threads."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, request: Request) -> Answer:
        """On the connection that is open, or on a new one."""
        start = time.monotonic_ns()
        try:
            got = self._exchange(request)
        except LOST:
            self.hang_up()
            return Answer(start, time.monotonic_ns())
        return Answer(start, time.monotonic_ns(), *got)

    def leave(self, request: Request) -> Answer:
        """Sends a whole request, and is gone before the answer."""
        start = time.monotonic_ns()
        lines = [f"{request.method} {request.path} HTTP/1.1", "Host: orders", f"Content-Length: {len(request.body)}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        with contextlib.suppress(OSError), socket.create_connection(self._address, TIMEOUT_S) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + request.body)
        return Answer(start, time.monotonic_ns())

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, request: Request) -> tuple[int, bytes, dict[str, str]]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._address, timeout=TIMEOUT_S)
        self._connection.request(request.method, request.path, request.body or None, dict(request.headers))
        response = self._connection.getresponse()
        return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
