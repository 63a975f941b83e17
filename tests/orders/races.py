"""What a race needs: everybody at once, and a lock held by a second connection."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import psycopg

from tests.client import Client

T = TypeVar("T")

PATIENCE_S = 10.0


def at_once(count: int, act: Callable[[int], T]) -> list[T]:
    """The results of `act(0)` … `act(count - 1)`, all begun at the same moment, and again after a 503."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> T:
        barrier.wait()
        return insisting(lambda: act(number))

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begin, range(count)))


def insisting(act: Callable[[], T], tries: int = 20) -> T:
    """What a client does that is told to come back: nothing was stored, and on a busy machine it may happen."""
    answer = act()
    while getattr(answer, "status_code", None) == 503 and (tries := tries - 1):
        answer = act()
    return answer


@contextmanager
def second_connection(database_url: str) -> Iterator[psycopg.Connection]:
    """A transaction of somebody else's; ends with the block."""
    with psycopg.connect(database_url) as connection:
        yield connection


def wait_until_blocked(sql: psycopg.Connection, holder: psycopg.Connection, count: int = 1) -> None:
    """Returns as soon as `count` sessions wait for a lock that `holder` has."""
    deadline = time.monotonic() + PATIENCE_S
    query = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
    while sql.execute(query, [holder.info.backend_pid]).fetchone()[0] < count:
        assert time.monotonic() < deadline, "nobody came to wait for the lock"
        time.sleep(0.002)


def hold_key(connection: psycopg.Connection, client: Client, key: str) -> None:
    """Takes the lock of a key, as a request does that has not committed: of any release, for they run side by side."""
    name = f"{client.user_id}|POST /orders|{key}".encode()
    lock = int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True)
    connection.execute("SELECT pg_advisory_xact_lock(%s)", [lock])


def hold_feed(holder: psycopg.Connection, client: Client) -> None:
    """No write of this user's gets to its COMMIT until `holder` lets go: its event needs the row."""
    holder.execute("SELECT 1 FROM feeds WHERE user_id = %s FOR UPDATE", [client.user_id])
