"""What the tests here share: services that a test may stop, and databases as somebody else's session sees them."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from orders_api.dev import EmbeddedMemcached


@pytest.fixture
def own_memcached() -> Iterator[tuple[EmbeddedMemcached, str]]:
    """A memcached of the test's own, and its `host:port`: counters of nobody else, and one that may be stopped."""
    memcached = EmbeddedMemcached()
    try:
        yield memcached, memcached.start()
    finally:
        memcached.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., psycopg.Connection]]:
    """Opens connections that end with the test: `connect(server)` commits each statement."""
    opened: list[psycopg.Connection] = []

    def connection(server: Any, *, autocommit: bool = True) -> psycopg.Connection:
        opened.append(psycopg.connect(server.database_url, autocommit=autocommit))
        return opened[-1]

    yield connection
    for one in opened:
        one.close()
