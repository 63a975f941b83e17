"""The worker's own way to accept connections."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from orders_api import admission
from orders_api.admission import CROWD_PER_PLACE, Caller, Priority, in_flight
from orders_api.web.edge import ACCEPTED_BY_THE_CROWDED, Server
from tests.web.raw import wait_until


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        for _ in range(2 * ACCEPTED_BY_THE_CROWDED):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        yield listener


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One place, taken, and more who wait for it than a worker can serve soon; patiently."""
    monkeypatch.setattr(admission, "DEADLINE_S", 30)
    monkeypatch.setitem(admission.PATIENCE_S, Priority.WEBHOOK, 30)
    in_flight.open(1)
    in_flight.enter(Caller(Priority.WEBHOOK))
    waiting = [threading.Thread(target=come_and_go) for _ in range(CROWD_PER_PLACE + 1)]
    for thread in waiting:
        thread.start()
    wait_until(lambda: in_flight.admission.waiting == len(waiting))
    yield
    in_flight.leave()
    for thread in waiting:
        thread.join()
    in_flight.open(0)


def come_and_go() -> None:
    in_flight.enter(Caller(Priority.WEBHOOK))
    in_flight.leave()


def accepted_in_one_round(listener: socket.socket) -> int:
    accepted: list[object] = []
    server = Server(listener, handle=lambda client, _: accepted.append(client), spawn=None)
    server.init_socket()
    server._do_read()
    return len(accepted)


def test_a_worker_accepts_one_connection_a_round_so_that_all_get_alike(listener: socket.socket):
    assert accepted_in_one_round(listener) == 1


@pytest.mark.usefixtures("crowd")
def test_a_crowded_worker_accepts_many_whom_it_could_not_tell_anything_otherwise(listener: socket.socket):
    assert accepted_in_one_round(listener) == ACCEPTED_BY_THE_CROWDED
