"""A server that knows the provider's secret, and the two."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.client import Client
from tests.conftest import Databases, Server, serving
from tests.payments.provider import SECRET, Provider


def whsec(secret: bytes) -> str:
    return "whsec_" + base64.b64encode(secret).decode()


@pytest.fixture(scope="module")
def server(databases: Databases, memcached: str) -> Iterator[Server]:
    """In place of the shared one: here webhooks can be signed."""
    for serve in serving(databases, memcached):
        yield serve(WEBHOOK_SECRETS=whsec(SECRET))


@pytest.fixture
def provider_of() -> Iterator[Callable[..., Provider]]:
    """A provider of another server than the module's, or with another secret."""
    providers: list[Provider] = []

    def sign_up(*given: Any) -> Provider:
        providers.append(Provider(*given))
        return providers[-1]

    yield sign_up
    for one in providers:
        one.close()


@pytest.fixture
def provider(server: Server, provider_of: Callable[..., Provider]) -> Provider:
    return provider_of(server.url)


@pytest.fixture
def order(alice: Client) -> dict[str, Any]:
    return alice.place().json()


@pytest.fixture
def outcome_of(sql: psycopg.Connection) -> Callable[[str], list[str]]:
    """The outcomes that are kept of an order's events, first to last."""

    def outcomes(order_id: str) -> list[str]:
        query = "SELECT outcome FROM payment_events WHERE order_id = %s ORDER BY received_at"
        return [outcome for (outcome,) in sql.execute(query, [order_id])]

    return outcomes
