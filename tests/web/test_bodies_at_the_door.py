"""Who waits for the rest of its body leaves its place in the worker to others; who has all of it keeps the place."""

import socket
import threading
from collections.abc import Iterator

import falcon
import pytest
from falcon.testing import create_environ
from gunicorn.config import Config
from gunicorn.http.parser import RequestParser

from orders_api import admission
from orders_api.admission import Caller, Priority, in_flight
from orders_api.web.bodies import raw_of
from tests.web.raw import wait_until

HEAD = b"POST /orders HTTP/1.1\r\nHost: here\r\nContent-Length: 11\r\n\r\n"
BODY = b'{"a": "bc"}'


@pytest.fixture
def client() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Its end of a connection, and the worker's."""
    ours, the_workers = socket.socketpair()
    with ours, the_workers:
        yield ours, the_workers


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The worker's one place is ours, and another waits for it, patiently; set when it has had it."""
    monkeypatch.setattr(admission, "DEADLINE_S", 30)
    monkeypatch.setitem(admission.PATIENCE_S, Priority.WRITE, 30)
    had = threading.Event()

    def run() -> None:
        in_flight.enter(Caller())
        had.set()
        in_flight.leave()

    in_flight.open(1)
    in_flight.enter(Caller())
    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: in_flight.admission.waiting == 1)
    yield had
    in_flight.leave()
    thread.join()
    in_flight.open(0)


def request_on(connection: socket.socket) -> falcon.Request:
    """As gunicorn reads it."""
    read = next(RequestParser(Config(), connection, ("127.0.0.1", 1)))
    headers = dict(read.headers)
    return falcon.Request(create_environ("/orders", method="POST", headers=headers) | {"wsgi.input": read.body})


def test_a_body_that_came_with_its_head_keeps_its_place(client, other):
    ours, the_workers = client
    ours.sendall(HEAD + BODY)

    assert raw_of(request_on(the_workers)) == BODY

    assert not other.is_set()
    assert in_flight.admission.waiting == 1


def test_who_waits_for_the_rest_of_a_body_leaves_its_place(client, other):
    ours, the_workers = client
    ours.sendall(HEAD + BODY[:5])

    def send_the_rest() -> None:
        other.wait(5)
        ours.sendall(BODY[5:])

    sender = threading.Thread(target=send_the_rest)
    sender.start()

    assert raw_of(request_on(the_workers)) == BODY

    sender.join()
    assert other.is_set()
