"""One trace id for a request, its errors and its log line; nothing of what a client sends gets out unescaped."""

import json
import re
import secrets
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.client import LAMP, Client
from tests.web.raw import exchange

NEW = re.compile(r"[0-9a-f]{32}")
PARENT = "00f067aa0ba902b7"


def traced(http: httpx.Client, traceparent: str | bytes | None, path: str = "/healthz") -> str:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    return http.get(path, headers=headers).headers["X-Trace-Id"]


def log_lines(server: Any, trace_id: str) -> list[dict]:
    """The lines of a trace; every line of the log has to be one JSON object for this."""
    lines = [json.loads(line) for line in server.log().splitlines()]
    return [line for line in lines if line.get("trace_id") == trace_id]


@pytest.mark.parametrize("flags", ["00", "01", "ff"])
def test_a_valid_traceparent_gives_the_trace_id(http: httpx.Client, flags: str):
    trace_id = secrets.token_hex(16)
    assert traced(http, f"00-{trace_id}-{PARENT}-{flags}") == trace_id


def test_a_later_version_of_traceparent_may_say_more(http: httpx.Client):
    trace_id = secrets.token_hex(16)
    assert traced(http, f"01-{trace_id}-{PARENT}-01-what-comes") == trace_id


def test_without_traceparent_each_request_has_an_id_of_its_own(http: httpx.Client):
    ids = {traced(http, None) for _ in range(10)}
    assert len(ids) == 10
    assert all(NEW.fullmatch(trace_id) for trace_id in ids)


A = "4bf92f3577b34da6a3ce929d0e0e4736"
INVALID = {
    "empty": "",
    "version ff": f"ff-{A}-{PARENT}-01",
    "a trace id of zeros": f"00-{'0' * 32}-{PARENT}-01",
    "a parent of zeros": f"00-{A}-{'0' * 16}-01",
    "upper case": f"00-{A.upper()}-{PARENT}-01",
    "version 00 that says more": f"00-{A}-{PARENT}-01-more",
    "a later version with more but no hyphen": f"01-{A}-{PARENT}-01more",
    "31 digits": f"00-{A[:31]}-{PARENT}-01",
    "33 digits": f"00-{A}a-{PARENT}-01",
    "no flags": f"00-{A}-{PARENT}",
    "no hex": f"00-{'g' * 32}-{PARENT}-01",
    "something else": "../../etc/passwd",
    "markup": f"00-<script>{A[:24]}-{PARENT}-01",
    "an encoded line break": f"00-{A}-{PARENT}-01%0d%0aSet-Cookie: a=b",
    "digits of another script": f"00-{'٣' * 32}-{PARENT}-01".encode(),
    "8 KB": f"00-{A}-{PARENT}-01" + "0" * 8000,
    "two of them": f"00-{A}-{PARENT}-01,00-{A}-{PARENT}-01",
}


@pytest.mark.parametrize("traceparent", INVALID.values(), ids=INVALID)
def test_proof_16_an_invalid_traceparent_gives_a_fresh_id(http: httpx.Client, traceparent: str | bytes):
    trace_id = traced(http, traceparent)
    assert NEW.fullmatch(trace_id)
    assert trace_id != A


@pytest.mark.parametrize("separator", [b"\r\n", b"\n", b"\r", b"\0"], ids=["CRLF", "LF", "CR", "NUL"])
def test_proof_16_a_trace_id_can_not_bring_a_header_in(server: Any, separator: bytes):
    injected = f"00-{A}-{PARENT}-01".encode() + separator + b"X-Evil: 1"
    request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\ntraceparent: " + injected + b"\r\n\r\n"
    answers = exchange(server.port, request)
    assert answers.status in (200, 400)
    assert b"evil" not in answers.raw.lower()


def test_an_error_carries_its_trace_id(http: httpx.Client):
    trace_id = secrets.token_hex(16)
    answer = http.get("/nowhere", headers={"traceparent": f"00-{trace_id}-{PARENT}-01"})
    assert answer.headers["X-Trace-Id"] == answer.json()["trace_id"] == trace_id


def test_the_log_line_of_a_request_has_its_trace_id(server: Any, alice: Client):
    answer = alice.place()
    (line,) = log_lines(server, answer.headers["X-Trace-Id"])
    assert (line["event"], line["method"], line["route"], line["status"]) == ("request", "POST", "/orders", 201)
    assert line["user_id"] == alice.user_id
    assert line["client_ip"] == "127.0.0.1"


def test_an_order_keeps_the_trace_id_of_its_request(alice: Client):
    placed = alice.place()
    events = alice.get(placed.headers["Location"] + "/events").json()["data"]
    assert [event["trace_id"] for event in events] == [placed.headers["X-Trace-Id"]]


def test_requests_of_one_connection_do_not_share_a_trace(server: Any, alice: Client):
    first, second = alice.get("/orders"), alice.http.get("/orders")
    assert len(log_lines(server, first.headers["X-Trace-Id"])) == 1
    (line,) = log_lines(server, second.headers["X-Trace-Id"])
    assert line["user_id"] is None


MARK = "canary"


@pytest.mark.parametrize(
    "request_line",
    [
        f'GET /{MARK}%0a{{"event":"forged"}} HTTP/1.1',
        f"GET /orders?{MARK}=%22%0d%0a HTTP/1.1",
        f"GET /problems/{MARK}\x1b[31m HTTP/1.1",
        f'{MARK.upper()}" / HTTP/1.1',
        f"GET / HTTP/{MARK}",
        f'GET /orders HTTP/1.1\r\nX-{MARK}: "\x1b]0;\x07',
        f'GET /orders HTTP/1.1\r\nUser-Agent: {MARK}"}}',
        f"GET /orders HTTP/1.1\r\nAuthorization: Bearer {MARK}",
        f"GET /orders HTTP/1.1\r\nbad header {MARK}\n{{}}: x",
    ],
)
def test_proof_19_nothing_of_a_request_stands_unescaped_in_the_log(server: Any, request_line: str):
    before = len(server.log())
    exchange(server.port, f"{request_line}\r\nHost: a\r\nConnection: close\r\n\r\n".encode(), wait_s=3)
    for line in server.log()[before:].splitlines():
        assert isinstance(json.loads(line), dict)
        assert "\x1b" not in line
    assert '"event": "forged"' not in server.log()


def test_every_line_of_the_log_is_json(serve: Callable[..., Any]):
    """Its start and its end, too."""
    server = serve(WEB_CONCURRENCY="1")
    server.stop()
    lines = server.log().splitlines()
    assert lines
    assert all(isinstance(json.loads(line), dict) for line in lines)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"),
        ("GET", "/nowhere"),
        ("DELETE", "/orders"),
        ("TRACE", "/orders"),
        ("OPTIONS", "/orders"),
        ("GET", "/orders"),
        ("POST", "/auth/login"),
        ("GET", "/problems"),
        ("FROBNICATE", "/nowhere"),
    ],
)
def test_every_answer_forbids_sniffing_and_has_a_trace_id(http: httpx.Client, method: str, path: str):
    answer = http.request(method, path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert NEW.fullmatch(answer.headers["X-Trace-Id"])


def test_a_replayed_and_an_unchanged_answer_forbid_sniffing_too(alice: Client):
    alice.place(key="again")
    replayed = alice.place(key="again")
    path, tag = replayed.headers["Location"], replayed.headers["ETag"]
    unchanged = alice.get(f"{path}?include=items", headers={"If-None-Match": tag})
    assert unchanged.status_code == 304
    for answer in (replayed, unchanged):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert NEW.fullmatch(answer.headers["X-Trace-Id"])


@pytest.mark.parametrize("method", [b"TRACE", b"TRACK", b"DEBUG", b"get", b"GETGETGETGETGETGETGETGET", b"G=T"])
def test_proof_16_a_strange_method_is_refused(server: Any, method: bytes):
    request = method + b" /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: secret=1\r\n\r\n"
    answers = exchange(server.port, request)
    assert answers.status in (400, 405, 501)
    assert b"secret" not in answers.raw


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_proof_16_a_method_override_is_ignored(alice: Client, header: str):
    path = alice.place().headers["Location"]
    answer = alice.get(path, headers={header: "PATCH"})
    assert answer.status_code == 200
    posted = alice.post(path, json={"status": "cancelled"}, headers={header: "PATCH"})
    assert posted.status_code == 405
    assert alice.get(path).json()["status"] == "pending"


HOSTS = {
    "Host": "evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "host=evil.example;proto=gopher",
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
}


def test_proof_21_a_forged_host_does_not_change_a_location(alice: Client):
    headers = {**HOSTS, "Idempotency-Key": "host"}
    placed = alice.post("/orders", json=LAMP, headers=headers)
    assert placed.status_code == 201
    assert placed.headers["Location"] == f"/orders/{placed.json()['id']}"
    assert "evil" not in placed.text + str(placed.headers)


def test_proof_21_a_forged_host_does_not_change_a_link(alice: Client):
    for _ in range(2):
        alice.place()
    answer = alice.get("/orders?limit=1", headers=HOSTS)
    assert answer.headers["Link"].startswith("</orders?")
    assert "evil" not in answer.text + str(answer.headers)


def test_proof_21_a_forged_host_does_not_change_an_error(http: httpx.Client):
    answer = http.get("/nowhere", headers=HOSTS)
    assert answer.json()["type"] == "/problems/route_not_found"
    assert "evil" not in answer.text + str(answer.headers)
