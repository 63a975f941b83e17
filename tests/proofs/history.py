"""What the clients did and what they were told: one JSON line an attempt.

Times are `time.monotonic_ns()`, which all processes of a machine share.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"
WRITES = ("place", "edit", "cancel", "pay", "refund")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request and what came of it.

    `outcome`: ok (2xx); fail (a definite 4xx); unknown (timeout, reset, 5xx, or the client left): perhaps it was done.
    `key`: what makes its repetition the same: the idempotency key, the webhook-id, the name of the edit.
    `body`, `answer`: SHA-256 of what was sent and of what came back. `seen`: order ids, or numbers of events. `torn`:
    the orders among them whose items do not add up.
    """

    process: str
    operation: str
    user: str
    start: int
    end: int
    outcome: str
    status: int | None = None
    code: str = ""
    key: str = ""
    body: str = ""
    answer: str = ""
    id: str = ""
    version: int | None = None
    cache: str = ""
    seen: list[Any] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.outcome == OK


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to the service. It can work again from `end` on, and not before."""

    kind: str
    start: int
    end: int


class Recorder:
    """Appends to a file, from many threads; what is written survives the end of the process."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def write(self, line: Attempt | Fault) -> None:
        shown = {name: value for name, value in asdict(line).items() if value not in ("", None, [])}
        with self._lock:
            self._file.write(orjson.dumps(shown) + b"\n")


def attempts_in(paths: Iterable[Path]) -> list[Attempt]:
    """All attempts of all clients, in the order in which they began."""
    return sorted((Attempt(**line) for line in _lines(paths)), key=lambda attempt: attempt.start)


def faults_in(path: Path) -> list[Fault]:
    return [Fault(**line) for line in _lines([path])]


def _lines(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with path.open("rb") as file:
            yield from map(orjson.loads, file)
