"""A closed door at the worker's edge: the application's refusal, without the application."""

import json
import re
import secrets
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Thread
from typing import Any

import httpx
import psycopg
import pytest

from orders_api.app import MIN_IN_FLIGHT
from tests import conforms
from tests.client import LAMP, Client, assert_problem, plain_http
from tests.reporting.sentry import Sentry
from tests.web.crowded import HELD_BACK_S, WAITING_PER_PLACE
from tests.web.raw import at_once, blocked_by, exchange, get, patch, post, read, sent, wait_until

PATIENT = "&options=-c%20lock_timeout%3D4500"
SHOP = "https://shop.example"
METRICS_TOKEN = "0123456789abcdef0123"
OF_GUNICORN = {"server", "date", "connection"}  # by these an answer of the application is known
PROVIDER = "/webhooks/payments"
LIMIT = 60
LISTS = MIN_IN_FLIGHT * WAITING_PER_PLACE // 2  # may wait; of webhooks twice as many

Connect = Callable[..., psycopg.Connection]
Closed = Callable[[Any], AbstractContextManager[httpx.Client]]


def crowded(serve_all: Callable[..., Any], databases: Any, **more: str) -> Any:
    return serve_all(
        database_url=databases.migrated() + PATIENT,
        GUNICORN_CMD_ARGS="--worker-class tests.web.crowded.Worker",
        WEB_CONCURRENCY="1",
        DATABASE_POOL_SIZE=str(MIN_IN_FLIGHT),
        **more,
    )


@pytest.fixture(scope="module")
def plain(serve_all: Callable[..., Any], databases: Any) -> Any:
    return crowded(serve_all, databases, METRICS_TOKEN=METRICS_TOKEN, SERVER_TIMING="0", TRUSTED_PROXY_HOPS="1")


@pytest.fixture(scope="module")
def elaborate(serve_all: Callable[..., Any], databases: Any) -> Any:
    return crowded(serve_all, databases, CORS_ORIGINS=SHOP, SERVER_TIMING="1")


@pytest.fixture
def closed(client_of: Callable[[Any], Client], connect: Connect) -> Closed:
    """With `closed(server)` its door is closed: requests that wait for a lock hold all places, and the queue is full.
    Gives who asks on a connection that it keeps."""

    @contextmanager
    def door(server: Any) -> Iterator[httpx.Client]:
        queue = [post(PROVIDER, body=b"{}")] * MIN_IN_FLIGHT * WAITING_PER_PLACE
        with filled(server, client_of, connect, queue), plain_http(base_url=server.url) as http:
            wait_until(lambda: is_refused(server))
            yield http

    return door


@contextmanager
def filled(server: Any, client_of: Callable[[Any], Client], connect: Connect, queue: list[bytes]) -> Iterator[None]:
    """Requests that wait for a lock hold all places, and `queue` waits."""
    sql, holder = connect(server), connect(server, autocommit=False)
    people = [client_of(server) for _ in range(2)]  # each may hold half of the places
    stuck = [cancelling(one) for one in people for _ in range(MIN_IN_FLIGHT // 2)]
    holder.execute("SELECT 1 FROM orders FOR UPDATE")
    with sent(server.port, stuck) as holding:
        wait_until(lambda: blocked_by(sql, holder) == MIN_IN_FLIGHT)
        with sent(server.port, queue) as waiting:
            yield
            holder.rollback()
            for one in (*holding, *waiting):
                read(one)  # the next finds the door open


def with_head(request: bytes, line: str) -> bytes:
    return request.replace(b"\r\n", f"\r\n{line}\r\n".encode(), 1)


def cancelling(client: Client) -> bytes:
    path = client.place().headers["Location"]
    return patch(path, f"Authorization: Bearer {client.access_token}", body=b'{"status": "cancelled"}')


def is_refused(server: Any) -> bool:
    return exchange(server.port, post(PROVIDER, body=b"{}"), wait_s=0.2).status == 503


def by_application(answer: httpx.Response) -> bool:
    return "Server" in answer.headers


def told(answer: httpx.Response) -> tuple[int, dict[str, str], str]:
    """All of an answer but whose it is."""
    trace_id = answer.headers["X-Trace-Id"]
    headers = {name: value for name, value in answer.headers.items() if name not in OF_GUNICORN}
    return answer.status_code, {**headers, "x-trace-id": ""}, answer.text.replace(trace_id, "")


def test_who_used_up_the_limit_is_worth_no_more_than_a_list_whatever_is_asked(
    serve_all: Callable[..., Any], databases: Any, client_of: Callable[[Any], Client], connect: Connect
):
    server = crowded(serve_all, databases, TRUSTED_PROXY_HOPS="1", RATE_LIMIT_IP=f"{LIMIT}/minute")
    junk, flood, other = post(PROVIDER, body=b"{}"), "X-Forwarded-For: 10.0.0.1", "X-Forwarded-For: 10.0.0.2"
    assert 429 in {answer.status for answer in at_once(server.port, [get("/problems", flood)] * 3 * LIMIT)}
    with filled(server, client_of, connect, [junk] * LISTS):
        wait_until(lambda: exchange(server.port, with_head(junk, flood), wait_s=0.2).status == 503)
        assert exchange(server.port, with_head(junk, other), wait_s=0.2).status == 0, "it waits for a place"


@pytest.mark.parametrize("kind", ["plain", "elaborate"])
def test_a_closed_door_answers_what_the_application_answers(kind: str, request: pytest.FixtureRequest, closed: Closed):
    order, endpoint = f"/orders/{uuid.uuid4()}", f"/webhook-endpoints/{uuid.uuid4()}"
    asked = [("GET", "/orders?limit=0"), ("GET", order), ("POST", "/orders"), ("PATCH", order), ("POST", PROVIDER)]
    with closed(request.getfixturevalue(kind)) as http:
        for method, path in [*asked, ("DELETE", endpoint), ("OPTIONS", "/orders")]:
            short = http.request(method, path)
            long = http.request(method, path, headers={"Connection": "close"})
            assert (by_application(short), by_application(long)) == (False, True), (method, path)
            assert_problem(short, 503, "overloaded")
            assert told(short) == told(long)
            conforms.check(short)


def test_what_is_refused_at_the_edge_is_traced_logged_and_counted(plain: Any, closed: Closed):
    before, seen = counted(plain), len(plain.log())
    by_w3c, by_sentry = secrets.token_hex(16), secrets.token_hex(16)
    parents = {"traceparent": f"00-{by_w3c}-{secrets.token_hex(8)}-01", "sentry-trace": f"{by_sentry}-{'1' * 16}"}
    with closed(plain) as http:
        whose = {"X-Forwarded-For": "198.51.100.1, 192.0.2.7"}
        answers = [http.post("/orders", json=LAMP, headers={name: parents[name], **whose}) for name in parents]
    lines = [json.loads(line) for line in plain.log()[seen:].splitlines() if by_w3c in line or by_sentry in line]

    assert {by_application(answer) for answer in answers} == {False}
    assert [answer.headers["X-Trace-Id"] for answer in answers] == [by_w3c, by_sentry]
    assert [line["trace_id"] for line in lines] == [by_w3c, by_sentry]
    expected = {"method": "POST", "route": "/orders", "status": 503, "code": "overloaded", "client_ip": "192.0.2.7"}
    assert all(expected.items() <= line.items() for line in lines)
    assert all(line["duration_ms"] >= HELD_BACK_S * 1000 for line in lines)
    assert {name: after - before[name] for name, after in counted(plain).items()} == dict.fromkeys(before, 2)


def counted(server: Any) -> dict[str, float]:
    text = httpx.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"}).text
    series = (
        'orders_request_duration_seconds_count{cache="-",method="POST",route="/orders",status="503"}',
        'orders_shed_total{place="door",priority="write"}',
    )
    found = {one: re.search(rf"^{re.escape(one)} (.+)$", text, re.MULTILINE) for one in series}
    return {one: float(match[1]) if match else 0.0 for one, match in found.items()}


def test_a_refused_body_is_no_request_and_the_connection_goes_on(plain: Any, closed: Closed):
    inner = get("/auth/me")
    head = f"POST /orders HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {len(inner)}\r\n\r\n".encode()
    chunked = b"POST /orders HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    with closed(plain):
        answers = exchange(plain.port, head + inner + chunked + chunks + get("/healthz"))

    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", answers.raw) == [b"503", b"503", b"200"]
    assert answers.closed


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("HEAD", "/orders", {}, 503),
        ("GET", "/orders", {"Connection": "close"}, 503),
        ("GET", "/orders", {"Expect": "100-continue"}, 503),
        ("GET", "/orders", {"Origin": SHOP}, 503),
        ("GET", "/order%73", {}, 503),
        ("GET", "/nowhere", {}, 404),
        ("PUT", "/orders", {}, 405),
        ("GET", "/healthz", {}, 200),
    ],
)
def test_who_needs_another_answer_gets_it_from_the_application(
    elaborate: Any, closed: Closed, method: str, path: str, headers: dict[str, str], status: int
):
    with closed(elaborate) as http:
        answer = http.request(method, path, headers=headers)

    assert by_application(answer)
    assert answer.status_code == status
    assert answer.headers.get("Access-Control-Allow-Origin") == headers.get("Origin")


def test_an_old_client_is_told_that_the_connection_stays(plain: Any, closed: Closed):
    with closed(plain):
        answer = exchange(plain.port, b"GET /orders HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", wait_s=1.5)
    assert (answer.status, answer.code, answer.headers["connection"]) == (503, "overloaded", "keep-alive")


def test_who_sends_one_request_after_the_other_is_not_alone(plain: Any):
    many, chunks, trace_id = 2000, [], secrets.token_hex(16)
    burst = b"GET /healthz HTTP/1.1\r\nHost: shop.example\r\n\r\n" * many
    seen = len(plain.log())
    with sent(plain.port, [burst, get("/healthz", f"traceparent: 00-{trace_id}-{'1' * 16}-01")]) as [busy, other]:
        busy.settimeout(1.5)
        reader = Thread(target=lambda: chunks.extend(iter(lambda: received(busy), b"")))
        reader.start()
        assert read(other).status == 200
        reader.join()

    assert b"".join(chunks).count(b"HTTP/1.1 ") == many
    lines = [line for line in plain.log()[seen:].splitlines() if '"/healthz"' in line]
    assert next(number for number, line in enumerate(lines) if trace_id in line) < many / 2


def received(connection: socket.socket) -> bytes:
    """Nothing: no more comes."""
    try:
        return connection.recv(65536)
    except TimeoutError:
        return b""


def test_no_refusal_is_quicker_than_those_who_are_served(plain: Any, closed: Closed):
    with closed(plain) as http:
        answers = [http.get("/orders", headers=headers) for headers in ({}, {"Connection": "close"})]
    assert [by_application(answer) for answer in answers] == [False, True]
    assert all(answer.elapsed.total_seconds() >= HELD_BACK_S for answer in answers)


def test_what_is_refused_costs_memcached_nothing(plain: Any, closed: Closed, memcached: str):
    with closed(plain) as http:
        before = asked(memcached)
        answers = [http.get("/orders", headers={"Connection": "close"}) for _ in range(3)]
        after = asked(memcached)
    assert [by_application(answer) for answer in answers] == [True] * 3
    assert after == before
    httpx.get(f"{plain.url}/orders")
    assert asked(memcached) > after


def asked(memcached: str) -> int:
    """What memcached was asked so far."""
    said = exchange(int(memcached.rpartition(":")[2]), b"stats\r\nquit\r\n").raw
    return sum(map(int, re.findall(rb"STAT (?:cmd|incr)_\w+ (\d+)", said)))


def test_a_worker_that_leaves_tells_that_the_connection_ends(
    serve_all: Callable[..., Any], databases: Any, closed: Closed
):
    server = crowded(serve_all, databases)
    with closed(server) as http:
        assert not by_application(http.get("/orders"))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: http.get("/orders").headers.get("Connection") == "close", patience_s=2)


@pytest.mark.parametrize(("rate", "kind"), [("1", "transaction"), ("0", "event")])
def test_a_recorded_trace_tells_of_its_refusal_and_the_first_of_a_second_is_an_event(
    serve_all: Callable[..., Any], databases: Any, closed: Closed, rate: str, kind: str
):
    with Sentry() as sentry:
        with closed(crowded(serve_all, databases, SENTRY_DSN=sentry.dsn, SENTRY_TRACES_RATE=rate)) as http:
            answer = http.get("/auth/me")  # a kind of its own
        wait_until(lambda: answer.headers["X-Trace-Id"] in told_of(sentry, kind))

    assert by_application(answer) is (rate == "1")
    tags = told_of(sentry, kind)[answer.headers["X-Trace-Id"]]
    assert tags["code"] == "overloaded"
    assert tags.get("route", "/auth/me") == "/auth/me"


def told_of(sentry: Sentry, kind: str) -> dict[str, dict[str, str]]:
    """What came of a kind: the tags by the trace."""
    return {one["contexts"]["trace"]["trace_id"]: one["tags"] for one in sentry.of(kind)}
