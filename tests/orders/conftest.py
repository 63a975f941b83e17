"""What tests of orders need besides Alice, Bob and rows."""

import re

import pytest

from tests.client import Client


@pytest.fixture
def statements_of():
    """How many statements a response cost, from its Server-Timing."""

    def count(response) -> int:
        return int(re.search(r'desc="(\d+) statements"', response.headers["Server-Timing"])[1])

    return count


@pytest.fixture
def client_of():
    """A user of another server than the shared one."""
    clients = []

    def log_in(server) -> Client:
        clients.append(Client(server.url).register().login())
        return clients[-1]

    yield log_in
    for client in clients:
        client.close()
