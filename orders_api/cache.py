"""memcached, failing open: down, slow, flushed or full, it changes no answer."""

import hashlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from pymemcache.client.base import PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheError

from orders_api.settings import Settings

T = TypeVar("T")

TIMEOUT_S = 0.1
# A dead server costs one timeout, not one a request: for this long after a failure nobody asks it.
BREAKER_S = 1.0
# pymemcache's pool never waits, it raises: as many clients as greenlets can be at it.
MAX_CLIENTS = 1024
KEY_VERSION = "v1"
DOWN = (OSError, MemcacheError, RuntimeError)


class Unavailable(Exception):  # noqa: N818
    """memcached could not be asked."""


class Cache:
    """One client a process, shared by all greenlets, behind a circuit breaker. Without servers everything is a miss."""

    def __init__(self) -> None:
        self._client: Any = None
        self._closed_until = 0.0

    def open(self, settings: Settings) -> None:
        servers = settings.memcached_servers
        options = {
            "connect_timeout": TIMEOUT_S,
            "timeout": TIMEOUT_S,
            "no_delay": True,
            "max_pool_size": MAX_CLIENTS,
        }
        if len(servers) > 1:
            self._client = HashClient(servers, use_pooling=True, retry_attempts=0, dead_timeout=5, **options)
        else:
            self._client = PooledClient(servers[0], **options) if servers else None

    def get(self, key: str) -> bytes | None:
        return self._try(lambda client: client.get(_hashed(key)), None)

    def set(self, key: str, value: bytes, ttl_s: int) -> None:
        self._try(lambda client: client.set(_hashed(key), value, expire=ttl_s, noreply=False), None)

    def delete(self, key: str) -> None:
        self._try(lambda client: client.delete(_hashed(key), noreply=False), None)

    def ping(self) -> bool:
        return self._try(lambda client: client.set(_hashed("ping"), b"1", expire=10, noreply=False), False)

    def count(self, key: str, window_s: int) -> tuple[int, int]:
        """Adds 1 to a counter that lives `window_s` seconds from its first hit.

        Returns the count and the seconds left; exact under parallel requests. Raises Unavailable.
        """
        hashed = _hashed(key)

        def hit(client: Any) -> tuple[int, int]:
            count = client.incr(hashed, 1)
            if count is None:
                if client.add(hashed, b"1", expire=window_s, noreply=False):
                    client.set(hashed + "/ends", str(time.time() + window_s).encode(), expire=window_s, noreply=False)
                    return 1, window_s
                count = client.incr(hashed, 1) or 1
            ends = float(client.get(hashed + "/ends") or time.time() + window_s)
            return int(count), max(1, min(window_s, round(ends - time.time() + 0.5)))

        return self.ask(hit)

    def ask(self, call: Callable[[Any], T]) -> T:
        """Calls with the client; raises Unavailable at once while the breaker is open."""
        if self._client is None or time.monotonic() < self._closed_until:
            raise Unavailable
        try:
            return call(self._client)
        except DOWN as e:
            self._closed_until = time.monotonic() + BREAKER_S
            raise Unavailable from e

    def _try(self, call: Callable[[Any], T], otherwise: T) -> T:
        try:
            return self.ask(call)
        except Unavailable:
            return otherwise


cache = Cache()


def _hashed(key: str) -> str:
    """Keys of one length, whatever a client put into them, that another version of us never reads."""
    return hashlib.sha256(f"{KEY_VERSION}:{key}".encode()).hexdigest()
