"""Requests whose end two servers could see in two places (RFC 9112, 11.2): refused, closed, and never two answers."""

import select
import socket
import time
from typing import Any

import pytest

from tests.client import Client
from tests.web.raw import exchange

# What hides behind a malformed request. Its answer would be the only 200.
SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


def request(
    *lines: bytes, body: bytes = b"", end: bytes = b"\r\n", first: bytes = b"POST /auth/login HTTP/1.1"
) -> bytes:
    return end.join([first, *lines, b"", b""]) + body


HOST = b"Host: a"
JSON = b"Content-Type: application/json"
CHUNKED = b"Transfer-Encoding: chunked"
LAST = b"0\r\n\r\n"

AMBIGUOUS = {
    "CL and TE": request(HOST, b"Content-Length: 5", CHUNKED, body=LAST + SMUGGLED),
    "TE and CL": request(HOST, CHUNKED, b"Content-Length: 5", body=LAST + SMUGGLED),
    "CL twice, different": request(HOST, b"Content-Length: 0", b"Content-Length: 37", body=SMUGGLED),
    "CL twice, equal": request(HOST, b"Content-Length: 2", b"Content-Length: 2", body=b"{}" + SMUGGLED),
    "CL as a list": request(HOST, b"Content-Length: 2, 2", body=b"{}" + SMUGGLED),
    "CL with a plus": request(HOST, b"Content-Length: +2", body=b"{}" + SMUGGLED),
    "CL with a minus": request(HOST, b"Content-Length: -2", body=b"{}" + SMUGGLED),
    "CL with a blank in it": request(HOST, b"Content-Length: 0 2", body=b"{}" + SMUGGLED),
    "CL in hexadecimal": request(HOST, b"Content-Length: 0x2", body=b"{}" + SMUGGLED),
    "CL with an underscore": request(HOST, b"Content-Length: 0_2", body=b"{}" + SMUGGLED),
    "CL with a fraction": request(HOST, b"Content-Length: 2.0", body=b"{}" + SMUGGLED),
    "CL empty": request(HOST, b"Content-Length:", body=SMUGGLED),
    "CL of another script": request(HOST, "Content-Length: ٢".encode(), body=b"{}" + SMUGGLED),
    "TE chunked, identity": request(HOST, b"Transfer-Encoding: chunked, identity", body=LAST + SMUGGLED),
    "TE xchunked": request(HOST, b"Transfer-Encoding: xchunked", body=LAST + SMUGGLED),
    "TE chunked twice": request(HOST, CHUNKED, CHUNKED, body=LAST + SMUGGLED),
    "TE chunked, chunked": request(HOST, b"Transfer-Encoding: chunked, chunked", body=LAST + SMUGGLED),
    "TE gzip": request(HOST, b"Transfer-Encoding: gzip", body=LAST + SMUGGLED),
    "TE in quotes": request(HOST, b'Transfer-Encoding: "chunked"', body=LAST + SMUGGLED),
    "TE with a vertical tab": request(HOST, b"Transfer-Encoding: \x0bchunked", body=LAST + SMUGGLED),
    "TE with a blank before the colon": request(HOST, b"Transfer-Encoding : chunked", body=LAST + SMUGGLED),
    "TE in HTTP/1.0": request(HOST, CHUNKED, body=LAST + SMUGGLED, first=b"POST /auth/login HTTP/1.0"),
    "a blank before the colon": request(HOST, b"Content-Length : 2", body=b"{}" + SMUGGLED),
    "a tab before the colon": request(HOST, b"Content-Length\t: 2", body=b"{}" + SMUGGLED),
    "a folded line": request(HOST, b"X-A: b\r\n Content-Length: 37", body=SMUGGLED),
    "a first line that is folded": request(b" Host: a", body=SMUGGLED),
    "a header without a colon": request(HOST, b"nonsense", body=SMUGGLED),
    "a header without a name": request(HOST, b": x", body=SMUGGLED),
    "a NUL in a header": request(HOST, b"X-A: a\0b", body=SMUGGLED),
    "a CR in a header": request(HOST, b"X-A: a\rContent-Length: 37", body=SMUGGLED),
    "bare line feeds": request(HOST, b"Content-Length: 0", end=b"\n", body=SMUGGLED),
    "no Host": request(b"Content-Length: 0", body=SMUGGLED),
    "Idempotency-Key twice": request(HOST, b"Idempotency-Key: a", b"Idempotency-Key: b", body=SMUGGLED),
    "Idempotency-Key twice, equal": request(HOST, b"Idempotency-Key: a", b"idempotency-key: a", body=SMUGGLED),
    "Host twice": request(HOST, b"Host: b", body=SMUGGLED),
    "Host twice, equal": request(HOST, HOST, body=SMUGGLED),
    "HTTP/1.1 twice": request(HOST, first=b"POST /auth/login HTTP/1.1 HTTP/1.1", body=SMUGGLED),
    "HTTP/9.9": request(HOST, first=b"POST /auth/login HTTP/9.9", body=SMUGGLED),
    "65 headers": request(HOST, *(b"X-%d: 1" % number for number in range(65)), body=SMUGGLED),
    "a header of 9 KB": request(HOST, b"X-A: " + b"a" * 9000, body=SMUGGLED),
    "a path of 9 KB": request(HOST, first=b"POST /" + b"a" * 9000 + b" HTTP/1.1", body=SMUGGLED),
}


@pytest.mark.parametrize("sent", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_proof_17_an_ambiguous_request_is_refused_and_its_connection_closed(server: Any, sent: bytes):
    answers = exchange(server.port, sent, wait_s=3)
    assert answers.status == 400, answers.raw
    assert answers.count == 1
    assert answers.closed


def chunked(body: bytes) -> bytes:
    return request(HOST, JSON, CHUNKED, body=body + SMUGGLED)


BAD_CHUNKS = {
    "a size that is no number": chunked(b"zz\r\n{}\r\n" + LAST),
    "a size with a sign": chunked(b"+2\r\n{}\r\n" + LAST),
    "a negative size": chunked(b"-2\r\n{}\r\n" + LAST),
    "a size with 0x": chunked(b"0x2\r\n{}\r\n" + LAST),
    "a size with an underscore": chunked(b"0_2\r\n{}\r\n" + LAST),
    "an empty size": chunked(b"\r\n{}\r\n" + LAST),
    "a blank before the size": chunked(b" 2\r\n{}\r\n" + LAST),
    "no line break after the chunk": chunked(b"2\r\n{}" + LAST),
    "more than the size says": chunked(b"1\r\n{}\r\n" + LAST),
    "a line feed after the size": chunked(b"2\n{}\r\n" + LAST),
}


@pytest.mark.parametrize("sent", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_proof_17_a_bad_chunk_is_refused_and_its_connection_closed(server: Any, sent: bytes):
    answers = exchange(server.port, sent, wait_s=3)
    assert answers.status in (400, 413), answers.raw
    assert answers.count == 1
    assert answers.closed


def test_proof_17_an_absolute_form_names_no_other_host(server: Any):
    sent = b"GET http://evil.example/orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answers = exchange(server.port, sent)
    assert answers.status in (400, 401, 404)
    assert b"evil" not in answers.raw


def test_proof_17_a_body_that_nobody_read_is_no_request(server: Any):
    """A 404 reads no body; what was in it must not be taken for the next request."""
    sent = request(HOST, b"Content-Length: %d" % len(SMUGGLED), first=b"POST /nowhere HTTP/1.1", body=SMUGGLED)
    answers = exchange(server.port, sent, half_close=True, wait_s=3)
    assert (answers.status, answers.count) == (404, 1)


def test_proof_17_a_chunked_body_that_nobody_read_is_no_request(server: Any):
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    sent = request(HOST, CHUNKED, first=b"POST /nowhere HTTP/1.1", body=body)
    answers = exchange(server.port, sent, half_close=True, wait_s=3)
    assert (answers.status, answers.count) == (404, 1)


def test_two_whole_requests_in_one_packet_get_two_answers(server: Any):
    """The corpus can fail: what stands behind a well-formed request is answered."""
    first = request(HOST, JSON, b"Content-Length: 2", body=b"{}")
    answers = exchange(server.port, first + SMUGGLED, half_close=True, wait_s=3)
    assert (answers.status, answers.count) == (422, 2)


def test_http_1_0_needs_no_host(server: Any):
    """RFC 9112, 3.2, asks it of HTTP/1.1 alone; some load balancers' health checks still speak the older one."""
    assert exchange(server.port, b"GET /healthz HTTP/1.0\r\n\r\n").status == 200


def test_whole_chunks_are_a_body(server: Any):
    sent = request(HOST, JSON, CHUNKED, b"Connection: close", body=b"1;a=b\r\n{\r\n1\r\n}\r\n" + LAST)
    answers = exchange(server.port, sent)
    assert (answers.status, answers.code) == (422, "validation_failed")


def test_proof_18_headers_that_never_end_hold_nobody_up(server: Any):
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
    try:
        for one in slow:
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: ")
        start = time.monotonic()
        for _ in range(10):
            assert (
                exchange(server.port, request(HOST, b"Connection: close", first=b"GET /healthz HTTP/1.1")).status == 200
            )
        assert time.monotonic() - start < 2
    finally:
        for one in slow:
            one.close()


def test_proof_18_headers_that_drip_are_cut(server: Any):
    """However often a byte comes: the whole head has 5 seconds."""
    with socket.create_connection(("127.0.0.1", server.port), 0.25) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: ")
        start = time.monotonic()
        assert dripped_until_closed(slow, patience_s=12)
        assert 3 < time.monotonic() - start < 10


def dripped_until_closed(slow: socket.socket, patience_s: float) -> bool:
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up:
        try:
            slow.sendall(b"a")
            if not slow.recv(1):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_proof_18_bodies_that_never_end_hold_nobody_up(server: Any, alice: Client):
    """More of them than there are places for requests in flight; the honest p99 of 100 stays below half a second."""
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    try:
        for one in slow:
            one.sendall(request(HOST, JSON, b"Content-Length: 60000", body=b"{"))
        times = sorted(alice.get("/orders").elapsed.total_seconds() for _ in range(100))
        assert times[-2] < 0.5
    finally:
        for one in slow:
            one.close()


def test_who_still_sends_when_refused_is_heard_out_and_gets_the_answer(server: Any):
    """Closing on bytes that were never read would reset the connection under a client that is still sending."""
    with socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(b"GET /orders?cursor=" + b"A" * 9_000)
        select.select([client], [], [], 5)
        for _ in range(4):
            client.sendall(b"A" * 10_000)
            time.sleep(0.05)
        assert client.recv(65_536).startswith(b"HTTP/1.1 400 ")
