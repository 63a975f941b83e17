"""Who sends or reads next to nothing is cut off, and gains nothing by it."""

import select
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.web.impatient import DEADLINE_S
from tests.web.raw import get, read

ASK = get("/docs/swagger-ui-bundle.js").replace(b"Connection: close\r\n", b"")  # 1.7 MB
CHUNKED = (
    b"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
WAIT_S = 4 * DEADLINE_S


@pytest.fixture(scope="module")
def impatient_server(serve_all: Callable[..., Any]) -> Any:
    return serve_all(GUNICORN_CMD_ARGS="--worker-class tests.web.impatient.Worker", WEB_CONCURRENCY="1")


def asked_by(server: Any) -> socket.socket:
    """Of a client whose kernel takes little on its behalf, in segments as of a network: those of the loopback are so
    large that the server's kernel would take the whole answer."""
    client = socket.socket()
    client.settimeout(WAIT_S)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    client.connect(("127.0.0.1", server.port))
    client.sendall(ASK)
    return client


def is_cut_off(client: socket.socket) -> bool:
    """Whether the connection was reset: a mere end would wait behind what nobody reads."""
    poller = select.poll()
    poller.register(client, 0)
    return bool(poller.poll(0))


@pytest.mark.parametrize("bytes_at_a_time", [0, 1], ids=["nothing", "a byte now and then"])
def test_who_does_not_read_the_answer_is_cut_off(impatient_server: Any, bytes_at_a_time: int):
    began = time.monotonic()
    with asked_by(impatient_server) as client:
        while not is_cut_off(client) and time.monotonic() < began + WAIT_S:
            client.recv(bytes_at_a_time)
            time.sleep(0.05)
        took_s = time.monotonic() - began

    assert 0.9 * DEADLINE_S < took_s < WAIT_S
    assert "did not read its answer" in impatient_server.log()


def test_who_takes_its_time_between_two_requests_is_not(impatient_server: Any):
    with socket.create_connection(("127.0.0.1", impatient_server.port), WAIT_S) as client:
        client.sendall(ASK)
        assert taken_whole(client)
        time.sleep(1.2 * DEADLINE_S)
        client.sendall(ASK)
        assert taken_whole(client)


def taken_whole(client: socket.socket) -> bool:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    missing = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) - len(body)
    while missing > 0 and (received := client.recv(65536)):
        missing -= len(received)
    return missing == 0


def test_proof_17_what_comes_after_the_deadline_of_a_body_is_no_request(impatient_server: Any):
    with socket.create_connection(("127.0.0.1", impatient_server.port), WAIT_S) as client:
        client.sendall(CHUNKED + b"40\r\n{")
        select.select([client], [], [], WAIT_S)
        client.sendall(SMUGGLED)
        answers = read(client)

    assert (answers.status, answers.count, answers.closed) == (400, 1, True)
    assert "/healthz" not in impatient_server.log()[impatient_server.log().index("malformed_json") :]
