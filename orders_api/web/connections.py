"""WSGI wrapper: whatever happens to a request, its database connection goes back."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent

from orders_api.admission import Door
from orders_api.db import db

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Connections:
    def __init__(self, application: Wsgi, door: Door) -> None:
        self.application = application
        self.door = door

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # A busy keep-alive client would otherwise keep a worker to itself.
        ready = time.monotonic()
        gevent.sleep(0)
        self.door.arrived(time.monotonic() - ready)
        # Falcon's pseudo-method would fail before any middleware runs; sent by a client it is an unknown one.
        if environ["REQUEST_METHOD"] == "WEBSOCKET":
            environ["REQUEST_METHOD"] = "UNKNOWN"
        try:
            return self.application(environ, start_response)
        finally:
            self.door.left()
            db.close()
