"""A server whose users may name loopback, and workers that deliver for it."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.client import Client
from tests.conftest import Databases, Server, serving
from tests.webhooks.receiver import Receiver

Worker = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def server(databases: Databases, memcached: str) -> Iterator[Server]:
    """In place of the shared one."""
    for serve in serving(databases, memcached):
        yield serve(WEBHOOK_ALLOW_PRIVATE="1")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


@pytest.fixture
def endpoint(alice: Client, receiver: Receiver) -> dict[str, Any]:
    """Alice's, on the receiver; with its secret."""
    answer = alice.post("/webhook-endpoints", json={"url": receiver.url + "/hook?a=b"})
    assert answer.status_code == 201, answer.text
    return answer.json()
