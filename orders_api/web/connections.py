"""WSGI wrapper: whatever happens to a request, its place and its database connection go back."""

from collections.abc import Callable, Iterable
from typing import Any

from orders_api.admission import in_flight
from orders_api.db import db

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Connections:
    def __init__(self, application: Wsgi) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # Falcon's pseudo-method would fail before any middleware runs; sent by a client it is an unknown one.
        if environ["REQUEST_METHOD"] == "WEBSOCKET":
            environ["REQUEST_METHOD"] = "UNKNOWN"
        try:
            return self.application(environ, start_response)
        finally:
            in_flight.leave()
            db.close()
