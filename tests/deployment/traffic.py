"""What a rolling restart has to stand: clients that never pause and forgive nothing."""

import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import httpx

from tests.web.raw import wait_until

PATIENCE_S = 30


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
