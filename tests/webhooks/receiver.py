"""A user's own server: it takes webhooks, as well or as badly as it is told to."""

import base64
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import orjson
from standardwebhooks import Webhook


@dataclass(frozen=True)
class Received:
    webhook_id: str
    headers: dict[str, str]
    body: bytes
    answered: int

    @property
    def document(self) -> Any:
        return orjson.loads(self.body)

    def is_signed_by(self, secret: str) -> bool:
        """By the specification's own library. Raises what that raises."""
        return bool(Webhook(secret).verify(self.body.decode(), self.headers))


class Receiver:
    """Listens on loopback. `answer`: gets what came and says with which status to answer; it may take its time."""

    def __init__(self, answer: Callable[[str], int] = lambda _webhook_id: 204) -> None:
        self.answer = answer
        self.received: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers["content-length"]))
                status = receiver.answer(headers["webhook-id"])
                receiver.received.append(Received(headers["webhook-id"], headers, body, status))
                self.send_response(status)
                self.send_header("Location", f"{receiver.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def taken(self) -> Counter[str]:
        """How often each id was answered with 2xx: what a receiver has that does not look for doubles."""
        return Counter(one.webhook_id for one in list(self.received) if one.answered < 300)

    def wait_for(self, count: int, patience_s: float = 20) -> list[Received]:
        deadline = time.monotonic() + patience_s
        while len(self.received) < count:
            assert time.monotonic() < deadline, f"only {len(self.received)} of {count} came"
            time.sleep(0.01)
        return self.received[:count]


def secret_bytes(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))
