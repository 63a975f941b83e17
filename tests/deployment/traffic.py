"""What a rolling restart needs: a router before the instances, and clients that never pause and forgive nothing."""

import contextlib
import operator
import random
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import httpx

from tests.conftest import Server
from tests.web.raw import wait_until

PATIENCE_S = 30


class Router:
    """Forwards TCP connections to any of its targets, as a platform's router does: no retry, no second thought."""

    def __init__(self) -> None:
        self.targets: list[Server] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            target = random.choice(self.targets)
            threading.Thread(target=_forward, args=(client, target.port), daemon=True).start()


def _forward(client: socket.socket, port: int) -> None:
    with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        _pump(client, server)
        back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while received := source.recv(65536):
            sink.sendall(received)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class Traffic:
    """Rounds of requests, a thread for each kind. `failures`: answers that are no success, and lost connections."""

    def __init__(self) -> None:
        self.rounds: list[int] = []
        self.failures: list[str] = []

    def some_more(self, count: int = 8) -> None:
        """Returns when each thread has gone that many more rounds."""
        wanted = [rounds + count for rounds in self.rounds]
        wait_until(lambda: all(map(operator.ge, self.rounds, wanted)) or self.failures, PATIENCE_S)

    @contextmanager
    def flowing(self, kinds: Sequence[Callable[[], Iterable[httpx.Response]]]) -> Iterator["Traffic"]:
        over = threading.Event()
        self.rounds = [0] * len(kinds)
        threads = [threading.Thread(target=self._repeat, args=(*each, over)) for each in enumerate(kinds)]
        for thread in threads:
            thread.start()
        try:
            self.some_more()
            yield self
            self.some_more()
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _repeat(self, number: int, act: Callable[[], Iterable[httpx.Response]], over: threading.Event) -> None:
        while not over.is_set() and not self.failures:
            try:
                bad = [f"{one.request.url}: {one.status_code} {one.text}" for one in act() if not one.is_success]
            except httpx.TransportError as error:
                bad = [f"{error.request.url}: {error!r}"]
            self.failures += bad
            self.rounds[number] += 1
