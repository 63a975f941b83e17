"""HTTP as bytes on a socket: what no decent client would send."""

import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import psycopg

PATIENCE_S = 15


@dataclass
class Answers:
    """Everything that came back, and whether the server then closed the connection."""

    raw: bytes
    closed: bool

    @property
    def count(self) -> int:
        """Status lines: more than one where one request was sent is a smuggled one."""
        return len(re.findall(rb"HTTP/1\.[01] \d{3} ", self.raw))

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
        try:
            connection.sendall(request)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return read(connection)


def read(connection: socket.socket) -> Answers:
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except TimeoutError:
        return Answers(received, closed=False)
    except ConnectionResetError:
        pass
    return Answers(received, closed=True)


@contextmanager
def sent(port: int, requests: Iterable[bytes]) -> Iterator[list[socket.socket]]:
    """Connects for each request, then sends all of them at the same moment; their answers are still to be read."""
    with ExitStack() as stack:
        everything = list(requests)
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)) for _ in everything
        ]
        for connection, request in zip(connections, everything, strict=True):
            connection.sendall(request)
        yield connections


def at_once(port: int, requests: Iterable[bytes]) -> list[Answers]:
    with sent(port, requests) as connections:
        return [read(connection) for connection in connections]


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: shop.example", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def patch(path: str, *headers: str, body: bytes) -> bytes:
    return post(path, *headers, body=body).replace(b"POST", b"PATCH", 1)


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


def wait_until(fact: Any, patience_s: float = 10.0) -> None:
    """Returns as soon as `fact()` is true."""
    deadline = time.monotonic() + patience_s
    while not fact():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def blocked_by(sql: psycopg.Connection, holder: psycopg.Connection) -> int:
    """How many sessions wait for a lock that `holder` has, or for one of those who wait."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND cardinality(pg_blocking_pids(pid)) > 0"
    )
    assert holder.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS
    row = sql.execute(query).fetchone()
    return row[0] if row else 0
