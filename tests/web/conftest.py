"""What the tests here share: services that a test may stop, and databases as somebody else's session sees them."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from orders_api.dev import EmbeddedMemcached
from tests.client import plain_http
from tests.conftest import Databases, Server, running_memcached, serving


@pytest.fixture
def own_memcached() -> Iterator[tuple[EmbeddedMemcached, str]]:
    """A memcached of the test's own, and its `host:port`: counters of nobody else, and one that may be stopped."""
    yield from running_memcached()


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    """Somebody without an account."""
    with plain_http(base_url=server.url) as client:
        yield client


@pytest.fixture(scope="module")
def serve_all(databases: Databases, memcached: str) -> Iterator[Callable[..., Server]]:
    """As `serve`, but the server is for all tests of a file, which leave it as they found it."""
    yield from serving(databases, memcached)


@pytest.fixture(scope="module")
def module_memcached() -> Iterator[str]:
    """Counters of nobody else's."""
    for _, address in running_memcached():
        yield address
