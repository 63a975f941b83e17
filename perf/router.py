"""A router before several instances of the service, as a platform has one."""

import contextlib
import random
import socket
import threading
from collections.abc import Sequence
from typing import Protocol


class Target(Protocol):
    @property
    def port(self) -> int: ...


class Router:
    """Forwards TCP connections to any of its targets: no retry, no second thought."""

    def __init__(self) -> None:
        self.targets: Sequence[Target] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            target = random.choice(self.targets)  # noqa: S311  (nobody's secret)
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
