"""A server whose users may name loopback, and workers that deliver for it."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.client import Client
from tests.conftest import ROOT, Databases, Server, serving
from tests.webhooks.receiver import Receiver

Worker = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def server(databases: Databases, memcached: str) -> Iterator[Server]:
    """In place of the shared one."""
    for serve in serving(databases, memcached):
        yield serve(WEBHOOK_ALLOW_PRIVATE="1")


@pytest.fixture
def deliver() -> Iterator[Callable[[Server], Worker]]:
    """Starts `orders-api deliver` for a server; it ends with the test, however many were killed before."""
    started: list[Worker] = []

    def start(server: Server) -> Worker:
        command = [sys.executable, "-m", "orders_api", "deliver"]
        started.append(subprocess.Popen(command, cwd=ROOT, env=server.env, stdout=subprocess.DEVNULL))
        return started[-1]

    yield start
    for worker in started:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    for worker in started:
        # By SIGTERM where the test was over before the worker had begun.
        assert worker.wait(25) in (0, -signal.SIGKILL, -signal.SIGTERM)


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
