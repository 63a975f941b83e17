"""Scopes that memcached could not be told about, known to all workers of this host.

gunicorn's configuration imports this before it forks: the table is memory that the workers share.
"""

import mmap
import time
import zlib

SLOTS = 1 << 15


class Bypasses:
    """End times by hash. Two names in one slot share the longer bypass: that costs hits, and is never wrong."""

    def __init__(self) -> None:
        self._ends = memoryview(mmap.mmap(-1, SLOTS * 8)).cast("d")

    def add(self, name: str, lasts_s: float) -> None:
        slot = _slot(name)
        self._ends[slot] = max(self._ends[slot], time.monotonic() + lasts_s)

    def covers(self, name: str) -> bool:
        return self._ends[_slot(name)] > time.monotonic()


def _slot(name: str) -> int:
    return zlib.crc32(name.encode()) % SLOTS  # not hash(): it is salted differently in each process


bypasses = Bypasses()
