"""A user's own server: it takes webhooks, as well or as badly as it is told to."""

import base64
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from standardwebhooks import Webhook

from tests.loopback import Loopback


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


class Receiver(Loopback):
    """`answer`: gets what came and says with which status to answer; it may take its time."""

    def __init__(self, answer: Callable[[str], int] = lambda _webhook_id: 204) -> None:
        super().__init__()
        self.answer = answer
        self.received: list[Received] = []

    def answered(self, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str]]:
        status = self.answer(headers["webhook-id"])
        self.received.append(Received(headers["webhook-id"], headers, body, status))
        return status, {"Location": f"{self.url}/elsewhere"}

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
