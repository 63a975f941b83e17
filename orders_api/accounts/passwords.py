"""Passwords: which are refused, and bcrypt on a few threads behind a bounded queue.

bcrypt releases the GIL but blocks gevent's hub, so it runs on threads of its own.
"""

import base64
import hashlib
import unicodedata
from collections.abc import Callable
from importlib.resources import files
from typing import TypeVar

import bcrypt
from gevent.threadpool import ThreadPool

from orders_api.admission import Admission, Priority, caller, in_flight
from orders_api.reporting import span
from orders_api.scheduling import give_way

T = TypeVar("T")

MIN_CHARACTERS, MAX_CHARACTERS = 8, 256
DEFAULT_ROUNDS = 12
# A hash gets what the worker leaves. It takes long when there is much to do, and with two threads alone those who come
# after it would be refused.
THREADS = 4
PATIENCE_S = 0.6  # in a queue that stands: some three hashes


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _load_common() -> frozenset[str]:
    text = files(__package__).joinpath("common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("# "))


_COMMON = _load_common()


def is_common(password: str) -> bool:
    """Whether the password is on the list of the 3,000 most common ones, in whatever case or Unicode form."""
    return _nfkc(_nfkc(password).casefold()) in _COMMON


class Passwords:
    """Hashes and verifies. Raises Problem `overloaded` when its turn does not come within a second.

    Never hold a database connection while calling: a login would cost a pool slot for a quarter of a second.
    """

    def __init__(self, rounds: int = DEFAULT_ROUNDS) -> None:
        self.rounds = rounds
        # A salt of the same cost and a digest of nothing: an unknown email costs what a wrong password costs.
        self._dummy = bcrypt.gensalt(rounds) + b"." * 31
        self._threads = ThreadPool(THREADS)
        self._admission = Admission(THREADS, dict.fromkeys(Priority, PATIENCE_S), name="hashing")

    def hash(self, password: str) -> str:
        return self._run(lambda: bcrypt.hashpw(_digest(password), bcrypt.gensalt(self.rounds))).decode()

    def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password made this hash; without one False, in the same time."""
        against = stored.encode() if stored else self._dummy
        return self._run(lambda: bcrypt.checkpw(_digest(password), against)) and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether the hash was made at another cost than today's."""
        return int(stored[4:6]) != self.rounds

    def _run(self, work: Callable[[], T]) -> T:
        who = caller.get()
        try:
            self._admission.enter(who)
        finally:
            # The statements that follow are not shed, and have a wait of their own: undone, they would count as a wrong
            # guess, or waste a hash.
            caller.set(who._replace(priority=Priority.RETURN, waited_s=0.0))
        try:
            with span("hash", "bcrypt"), in_flight.aside():
                return self._threads.apply(_giving_way, (work,))
        finally:
            self._admission.leave(who)


def _digest(password: str) -> bytes:
    """44 bytes of any password: bcrypt takes at most 72, and stops at NUL."""
    return base64.b64encode(hashlib.sha256(_nfkc(password).encode()).digest())


def _giving_way(work: Callable[[], T]) -> T:
    give_way()
    return work()
