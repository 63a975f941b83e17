"""The loop under the load generator: what a service does to a connection is told to the script that it was done to."""

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from perf.wire import Answer, Script, Wire

REQUEST = b"GET / HTTP/1.1\r\nHost: perf.example\r\n\r\n"
SOON_S = 10
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Behaviour = Callable[[socket.socket], None]


@pytest.fixture
def listening() -> Iterator[Callable[[Behaviour], int]]:
    """Starts a server that does this with each connection, after its first bytes; gives its port."""
    with ExitStack() as stack:

        def serve(behaviour: Behaviour) -> int:
            class Handler(socketserver.BaseRequestHandler):
                def handle(self) -> None:
                    with suppress(OSError):  # the loop gives a connection up, with bytes unread or still to come
                        while self.request.recv(65536):
                            behaviour(self.request)

            server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler))
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.01,)).start()
            stack.callback(server.shutdown)
            return int(server.server_address[1])

        yield serve


def asked(wire: Wire, count: int = 1) -> list[Answer | Exception]:
    """What `count` scripts of one request each get, in the order in which it comes."""
    got: list[Answer | Exception] = []

    def script() -> Script:
        try:
            got.append((yield REQUEST))
        except (OSError, ValueError, LookupError) as error:
            got.append(error)

    for _ in range(count):
        wire.start(script())
    wire.finish()
    return got


def test_an_answer_in_pieces_is_put_together(listening):
    def in_pieces(connection: socket.socket) -> None:
        for at in range(0, len(ANSWER), 10):
            connection.sendall(ANSWER[at : at + 10])
            time.sleep(0.002)

    assert asked(Wire("127.0.0.1", listening(in_pieces))) == [Answer(200, {b"content-length": b"2"}, b"ok")]


def test_a_connection_is_used_again(listening):
    wire = Wire("127.0.0.1", listening(lambda connection: connection.sendall(ANSWER)))

    for _ in range(3):
        assert [answer.body for answer in asked(wire)] == [b"ok"]

    assert wire.opened == 1


def test_more_than_there_are_connections_wait_for_one(listening):
    wire = Wire("127.0.0.1", listening(lambda connection: connection.sendall(ANSWER)), most=2)

    assert [answer.body for answer in asked(wire, 7)] == [b"ok"] * 7

    assert (wire.opened, wire.waited) == (2, 5)


def test_an_idle_connection_that_the_service_closes_is_not_used_again(listening):
    closed = threading.Event()

    def once(connection: socket.socket) -> None:
        connection.sendall(ANSWER)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    wire = Wire("127.0.0.1", listening(once))

    assert [answer.body for answer in asked(wire)] == [b"ok"]
    assert closed.wait(SOON_S)
    wire.run(time.monotonic())
    assert [answer.body for answer in asked(wire)] == [b"ok"]


def test_a_connection_that_is_to_be_closed_is_not_used_again(listening):
    closes = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    wire = Wire("127.0.0.1", listening(lambda connection: connection.sendall(closes)))

    assert [answer.status for answer in asked(wire) + asked(wire)] == [200, 200]

    assert wire.opened == 2


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (ANSWER[:-1], ConnectionResetError),
        (ANSWER + b"more", ValueError),
        (b"SSH-2.0 hello\r\n\r\n", ValueError),
        (b"HTTP/1.1 200 OK\r\n\r\n", LookupError),
    ],
    ids=["cut off", "too long", "no HTTP", "no length"],
)
def test_what_is_no_answer_is_an_error(listening, sent, error):
    def broken(connection: socket.socket) -> None:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)

    (got,) = asked(Wire("127.0.0.1", listening(broken)))

    assert isinstance(got, error)


def test_where_nobody_listens_is_an_error():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]

    assert [type(got) for got in asked(Wire("127.0.0.1", port), 2)] == [ConnectionRefusedError] * 2


def test_silence_ends_with_a_timeout_and_the_connection(listening):
    wire = Wire("127.0.0.1", listening(lambda _: None), most=1, timeout_s=0.2)

    assert [type(got) for got in asked(wire, 2)] == [TimeoutError] * 2

    assert wire.opened == 2


def test_what_one_script_meets_is_nothing_to_the_others(listening):
    def by_turns(connection: socket.socket, turns: list[bytes] = [ANSWER, b"", ANSWER]) -> None:  # noqa: B006
        connection.sendall(turns.pop())
        connection.shutdown(socket.SHUT_WR)

    got = asked(Wire("127.0.0.1", listening(by_turns)), 3)

    assert sorted(type(each).__name__ for each in got) == ["Answer", "Answer", "ConnectionResetError"]


def test_what_nobody_asked_for_ends_an_idle_connection(listening):
    received, said_more = threading.Event(), threading.Event()

    def once_more(connection: socket.socket) -> None:
        connection.sendall(ANSWER)
        if received.wait(SOON_S) and not said_more.is_set():
            connection.sendall(ANSWER)
            said_more.set()

    wire = Wire("127.0.0.1", listening(once_more))

    assert [answer.body for answer in asked(wire)] == [b"ok"]
    received.set()
    assert said_more.wait(SOON_S)
    wire.run(time.monotonic())
    assert [answer.body for answer in asked(wire)] == [b"ok"]
    assert wire.opened == 2
