"""HTTP as bytes on a socket: what no decent client would send."""

import socket
from dataclasses import dataclass
from typing import Any

import orjson

PATIENCE_S = 15


@dataclass
class Answers:
    """Everything that came back, and whether the server then closed the connection."""

    raw: bytes
    closed: bool

    @property
    def count(self) -> int:
        """Status lines: more than one where one request was sent is a smuggled one."""
        return self.raw.count(b"HTTP/1.1 ") + self.raw.count(b"HTTP/1.0 ")

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1]) if self.raw else 0

    @property
    def headers(self) -> dict[str, str]:
        head = self.raw.split(b"\r\n\r\n", 1)[0].decode("latin-1")
        lines = [line.partition(":") for line in head.split("\r\n")[1:]]
        return {name.strip().lower(): value.strip() for name, _, value in lines}

    @property
    def document(self) -> Any:
        return orjson.loads(self.raw.split(b"\r\n\r\n", 1)[1])

    @property
    def code(self) -> str:
        return self.document["code"]


def exchange(port: int, request: bytes, *, half_close: bool = False, wait_s: float = PATIENCE_S) -> Answers:
    """Sends `request` and reads until the server closes, or says nothing for `wait_s`."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait_s) as connection:
        received = b""
        try:
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
        except TimeoutError:
            return Answers(received, closed=False)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return Answers(received, closed=True)


def post(path: str, *headers: str, body: bytes = b"", length: int | None = None) -> bytes:
    """A POST with JSON's media type that asks for the connection to be closed. `length` None: the body's own."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: shop.example",
        "Connection: close",
        "Content-Type: application/json",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
