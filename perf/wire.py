"""Many HTTP exchanges at once over keep-alive connections, in one loop: as cheap as Python can send them.

What is asked comes as scripts: generators that yield each request's bytes and get its Answer, or what went wrong, at
that place. A greenlet for each would cost several times as much, and the service is measured on the same processors.
"""

import selectors
import socket
import time
from collections import deque
from collections.abc import Generator
from typing import Any, NamedTuple

REQUEST_TIMEOUT_S = 12  # the service gives up after 10: whatever takes longer hangs
IDLE_S = 3  # the service closes idle connections after 5; a client that uses one then meets the closing
MAX_CONNECTIONS = 1000  # by then it is the client that queues: `waited` says how often
SWEEP_S = 0.5  # between two looks for what timed out


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


Script = Generator[bytes, Answer, Any]


class _Connection:
    """One socket, with the script whose answer it waits for; without a script it is idle."""

    __slots__ = ("connected", "received", "script", "since", "socket", "unsent")

    def __init__(self, family: int, address: Any) -> None:
        self.script: Script | None = None
        self.connected = False
        self.received = self.unsent = b""
        self.since = 0.0  # by time.monotonic(): when it was asked, or became idle
        self.socket = socket.socket(family)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(address)  # how that goes, the first `send` is told

    def send(self) -> None:
        request, self.unsent = self.unsent, b""
        if self.socket.send(request) != len(request):
            raise OSError("the connection takes no more")

    def receive(self) -> Answer | None:
        """The answer, when all of it is there. Raises OSError, ValueError or LookupError if none can come of it."""
        more = self.socket.recv(65536)
        if not more:
            raise ConnectionResetError("closed before the answer was complete")
        if self.script is None:
            raise ValueError("an answer that nobody asked for")
        self.received += more
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        status_line, *lines = self.received[:end].split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        status, body = int(status_line.split(b" ", 2)[1]), self.received[end + 4 :]
        length = 0 if status in (204, 304) else int(headers[b"content-length"])
        if len(body) > length:
            raise ValueError("more bytes than Content-Length says")
        if len(body) < length:
            return None
        self.received = b""
        return Answer(status, headers, body)


class Wire:
    """Runs scripts. The connection that was used last is used first; nothing is retried: what fails is a failure."""

    def __init__(self, host: str, port: int, most: int = MAX_CONNECTIONS, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.opened = self.waited = self.running = 0
        self._family, _, _, _, self._address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._most = most
        self._timeout_s = timeout_s
        self._selector = selectors.DefaultSelector()
        self._busy: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._waiting: deque[tuple[Script, bytes]] = deque()
        self._swept = 0.0

    def start(self, script: Script) -> None:
        """Sends the script's first request.

        In place of an answer it may get OSError, TimeoutError among them, ValueError or LookupError, and catches it.
        """
        self.running += 1
        self._resume(script, None)

    def run(self, until: float) -> None:
        """Handles what is there, and what comes until then (time.monotonic())."""
        while True:
            for key, _ in self._selector.select(max(0.0, min(until - time.monotonic(), SWEEP_S))):
                self._handle(key.data)
            now = time.monotonic()
            if now > self._swept + SWEEP_S:
                self._sweep(now)
            if now >= until:
                return

    def finish(self) -> None:
        """Returns when every script has ended."""
        while self.running:
            self.run(time.monotonic() + SWEEP_S / 10)

    def _resume(self, script: Script, got: Answer | Exception | None) -> None:
        try:
            request = script.throw(got) if isinstance(got, Exception) else script.send(got)  # type: ignore[arg-type]
        except StopIteration:
            self.running -= 1
            return
        if len(self._busy) < self._most:
            self._ask(script, request)
        else:
            self.waited += 1
            self._waiting.append((script, request))

    def _ask(self, script: Script, request: bytes) -> None:
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if now - connection.since < IDLE_S:
                break
            self._close(connection)
        else:
            connection = self._open()
        connection.script, connection.unsent, connection.since = script, request, now
        self._busy.add(connection)
        if connection.connected:
            self._handle(connection)

    def _open(self) -> _Connection:
        self.opened += 1
        connection = _Connection(self._family, self._address)
        self._selector.register(connection.socket, selectors.EVENT_WRITE, connection)
        return connection

    def _handle(self, connection: _Connection) -> None:
        """Sends what is to be sent, or else receives."""
        if connection.socket.fileno() < 0:
            return  # closed since the selector told of it
        answer = None
        try:
            if connection.unsent:
                connection.send()
                if not connection.connected:
                    connection.connected = True
                    self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            else:
                answer = connection.receive()
        except (OSError, ValueError, LookupError) as error:
            self._lose(connection, error)
        if answer:
            self._answered(connection, answer)

    def _answered(self, connection: _Connection, answer: Answer) -> None:
        script, connection.script = connection.script, None
        self._busy.remove(connection)
        if answer.headers.get(b"connection", b"").lower() == b"close":
            self._close(connection)
        else:
            connection.since = time.monotonic()
            self._idle.append(connection)
        self._next()
        self._resume(script, answer)

    def _lose(self, connection: _Connection, error: Exception) -> None:
        """An idle one is closed by the service, or says what nobody asked for."""
        self._close(connection)
        if connection.script is None:
            self._idle.remove(connection)
            return
        self._busy.remove(connection)
        self._next()
        self._resume(connection.script, error)

    def _next(self) -> None:
        if self._waiting:
            self._ask(*self._waiting.popleft())

    def _close(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _sweep(self, now: float) -> None:
        self._swept = now
        for connection in [busy for busy in self._busy if now - busy.since > self._timeout_s]:
            self._lose(connection, TimeoutError("timeout"))
