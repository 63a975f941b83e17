"""What the tests here share: services that a test may stop, and databases as somebody else's session sees them."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from orders_api.dev import EmbeddedMemcached
from tests.conftest import Databases, Server


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


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    """Somebody without an account."""
    with httpx.Client(base_url=server.url, timeout=15) as client:
        yield client


@pytest.fixture(scope="module")
def serve_all(databases: Databases, memcached: str) -> Iterator[Callable[..., Server]]:
    """As `serve`, but the server is for all tests of a file, which leave it as they found it."""
    started: list[Server] = []

    def start(*, database_url: str | None = None, **settings: str) -> Server:
        one = Server(settings, database_url or databases.migrated(), settings.get("MEMCACHED_SERVERS", memcached))
        started.append(one)
        one.wait_until_up()
        return one

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="module")
def module_memcached() -> Iterator[str]:
    """Counters of nobody else's."""
    memcached = EmbeddedMemcached()
    try:
        yield memcached.start()
    finally:
        memcached.stop()
