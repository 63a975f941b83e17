"""What Sentry gets: one trace for everything, a span for what takes time, an event for what is our fault, no secret."""

import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from orders_api.reporting import EVENT_EVERY_S, QUEUED, Reporter
from tests.client import LAMP, PASSWORD, Client, assert_problem
from tests.conftest import ROOT, Databases, Server, serving
from tests.payments.conftest import whsec
from tests.payments.provider import SECRET, Provider
from tests.reporting.sentry import Sentry
from tests.web.patient import PATIENCE
from tests.web.raw import blocked_by, wait_until
from tests.web.test_pool import PATIENT
from tests.webhooks.receiver import Receiver

Serve = Callable[..., Server]
METRICS_TOKEN = "0123456789abcdef0123"


def given(sentry: Sentry) -> dict[str, str]:
    """Settings of a server that reports every trace."""
    return {"SENTRY_DSN": sentry.dsn, "SENTRY_TRACES_RATE": "1", "RELEASE": "r-17", "WEB_CONCURRENCY": "1"}


@pytest.fixture(scope="module")
def sentry() -> Iterator[Sentry]:
    with Sentry() as one:
        yield one


@pytest.fixture(scope="module")
def recorded(databases: Databases, memcached: str, sentry: Sentry) -> Iterator[Server]:
    """Every trace of it is recorded."""
    more = {"WEBHOOK_SECRETS": whsec(SECRET), "METRICS_TOKEN": METRICS_TOKEN, "WEBHOOK_ALLOW_PRIVATE": "1"}
    for serve in serving(databases, memcached):
        yield serve(**given(sentry), **more, **PATIENCE)


@pytest.fixture(scope="module")
def broken(databases: Databases, memcached: str, sentry: Sentry) -> Iterator[Server]:
    """Orders can't be placed on it. Half of its traces are recorded."""
    for serve in serving(databases, memcached):
        server = serve(**{**given(sentry), "SENTRY_TRACES_RATE": "0.5", "WEB_CONCURRENCY": "2"})
        rename(server, "order_items", "gone")
        yield server


@pytest.fixture
def unreported(broken: Server) -> Server:
    """The broken one, when it will report the next error, whatever an earlier test made it report."""
    time.sleep(EVENT_EVERY_S + 0.1)
    return broken


def rename(server: Server, table: str, to: str) -> None:
    """From here on whatever needs the table is a defect of ours."""
    with psycopg.connect(server.database_url, autocommit=True) as admin:
        admin.execute(f"ALTER TABLE {table} RENAME TO {to}")


def traced(server: Server | None = None, *, recorded: bool = True) -> tuple[str, dict[str, str]]:
    """A trace id that the server records, or does not, and the header that makes it a request's."""
    trace_id = secrets.token_hex(16)
    while server and reporter_of(server).samples(trace_id) is not recorded:
        trace_id = secrets.token_hex(16)
    return trace_id, {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}


def reporter_of(server: Server) -> Reporter:
    """One that decides as the server's own does, and sends nothing."""
    reporter = Reporter()
    reporter.decide_as(server.env["SENTRY_DSN"], float(server.env["SENTRY_TRACES_RATE"]))
    return reporter


def in_trace(items: list[dict[str, Any]], trace_id: str) -> list[dict[str, Any]]:
    return [item for item in items if item["contexts"]["trace"]["trace_id"] == trace_id]


def came(sentry: Sentry, kind: str, trace_id: str, count: int = 1) -> list[dict[str, Any]]:
    """What came of a kind in a trace, as soon as there are so many."""
    wait_until(lambda: len(in_trace(sentry.of(kind), trace_id)) >= count)
    return in_trace(sentry.of(kind), trace_id)


def spans(transaction: dict[str, Any], op: str) -> list[str]:
    return [span["description"] for span in transaction["spans"] if span["op"] == op]


# Events


def test_an_error_of_ours_is_one_event_in_the_clients_trace(unreported: Server, sentry: Sentry, client_of: Any):
    alice = client_of(unreported)
    trace_id, headers = traced(unreported)
    answer = alice.post("/orders", json=LAMP, headers={"Idempotency-Key": "k", **headers})
    assert_problem(answer, 500, "internal_error")
    assert answer.headers["X-Trace-Id"] == trace_id

    (event,) = came(sentry, "event", trace_id)
    assert event["tags"]["code"] == "internal_error"
    assert event["tags"]["user_id"] == event["user"]["id"] == alice.user_id
    assert (event["release"], event["environment"]) == ("r-17", "development")
    raised = event["exception"]["values"][-1]
    assert raised["type"] in ("ProgrammingError", "UndefinedTable")
    assert any(frame["filename"] == "orders_api/orders/services.py" for frame in raised["stacktrace"]["frames"])
    (transaction,) = came(sentry, "transaction", trace_id)
    assert transaction["transaction"] == "POST /orders"


def test_an_event_is_in_its_trace_also_where_that_is_not_recorded(unreported: Server, sentry: Sentry, client_of: Any):
    alice = client_of(unreported)
    trace_id, headers = traced(unreported, recorded=False)
    alice.post("/orders", json=LAMP, headers={"Idempotency-Key": "k", **headers})
    assert len(came(sentry, "event", trace_id)) == 1
    assert in_trace(sentry.of("transaction"), trace_id) == []


def test_a_defect_that_every_request_meets_is_reported_once_a_second(broken: Server, sentry: Sentry, client_of: Any):
    alice = client_of(broken)
    before, began = len(sentry.of("event")), time.monotonic()
    for n in range(30):
        alice.place(key=str(n))
    rename(broken, "order_events", "events_gone")
    trace_id, headers = traced()
    alice.get("/events", headers=headers)
    rename(broken, "events_gone", "order_events")
    assert came(sentry, "event", trace_id)[0]["tags"]["route"] == "/events"  # another kind
    workers = 2
    assert len(sentry.of("event")) - before <= workers * (2 + time.monotonic() - began)


def test_what_is_the_clients_fault_is_no_event(recorded: Server, sentry: Sentry, client_of: Any):
    alice = client_of(recorded)
    trace_id, headers = traced()
    assert alice.post("/orders", json={}, headers={"Idempotency-Key": "k", **headers}).status_code == 422
    assert alice.get("/orders/x", headers=headers).status_code == 404
    assert alice.http.get("/orders", headers=headers).status_code == 401
    assert alice.get("/nowhere", headers=headers).status_code == 404
    assert len(came(sentry, "transaction", trace_id, 4)) == 4
    assert in_trace(sentry.of("event"), trace_id) == []


def test_a_payment_that_does_not_fit_is_reported(recorded: Server, sentry: Sentry, client_of: Any):
    order = client_of(recorded).place().json()
    provider = Provider(recorded.url)
    answer = provider.succeeded({**order, "total_cents": 1})
    provider.close()
    (event,) = came(sentry, "event", answer.headers["X-Trace-Id"])
    assert event["level"] == "warning"
    assert event["message"] == "Payment event not applied: amount_differs"
    assert event["tags"]["order_id"] == order["id"]


# Transactions


def test_a_slow_request_explains_itself(recorded: Server, sentry: Sentry, client_of: Any):
    alice = client_of(recorded)

    def transaction_of(answer: httpx.Response) -> dict[str, Any]:
        return came(sentry, "transaction", answer.headers["X-Trace-Id"])[0]

    answer = alice.place(key="a key")
    placed, order = transaction_of(answer), answer.json()
    assert placed["transaction"] == "POST /orders"
    assert placed["tags"]["order_id"] == order["id"]
    assert placed["contexts"]["trace"]["data"]["http.response.status_code"] == 201
    assert any("INSERT INTO orders" in text for text in spans(placed, "db"))
    assert all("a key" not in text and order["id"] not in text for text in spans(placed, "db"))
    assert spans(placed, "cache")
    assert all(set(text.split(", ")[0][3:]) <= set("0123456789abcdef") for text in spans(placed, "cache"))

    login = alice.http.post("/auth/login", json={"email": alice.email, "password": alice.password})
    assert spans(transaction_of(login), "hash") == ["bcrypt"]

    read = transaction_of(alice.get(f"/orders/{order['id']}"))
    assert read["transaction"] == "GET /orders/{order_id}"
    assert read["tags"]["order_id"] == order["id"]
    assert read["tags"]["user_id"] == alice.user_id
    assert read["transaction_info"]["source"] == "route"


def test_waiting_for_a_connection_is_seen(
    serve: Serve, databases: Databases, sentry: Sentry, client_of: Any, connect: Any
):
    server = serve(database_url=databases.migrated() + PATIENT, **given(sentry), DATABASE_POOL_SIZE="1")
    alice, bob = client_of(server), client_of(server)
    order = alice.place(key="k")
    watching = connect(server)
    with connect(server, autocommit=False) as other:
        other.execute("SELECT 1 FROM orders WHERE id = %s FOR UPDATE", [order.json()["id"]])
        # Alice's change holds the only connection until we let go; Bob waits for it.
        change = {"json": {"metadata": {"a": "b"}}}
        holder = threading.Thread(target=alice.patch, args=[order.headers["Location"]], kwargs=change)
        holder.start()
        wait_until(lambda: blocked_by(watching, other))
        waited = bob.get("/orders?limit=7")
        other.rollback()
        holder.join()
    assert "database" in spans(came(sentry, "transaction", waited.headers["X-Trace-Id"])[0], "wait")


def test_a_trace_goes_on_from_sentry_trace_where_there_is_no_traceparent(recorded: Server, sentry: Sentry):
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    answer = httpx.get(f"{recorded.url}/problems", headers={"sentry-trace": f"{trace_id}-{span_id}-0"})
    assert answer.headers["X-Trace-Id"] == trace_id
    assert came(sentry, "transaction", trace_id)[0]["contexts"]["trace"]["parent_span_id"] == span_id


NO_TRACES = ["", "x", f"{'0' * 32}-{'1' * 16}", f"{'a' * 32}-{'0' * 16}", f"{'A' * 32}-{'1' * 16}"]


@pytest.mark.parametrize("header", NO_TRACES)
def test_a_sentry_trace_that_is_none_is_not_taken(server: Server, header: str):
    answer = httpx.get(f"{server.url}/healthz", headers={"sentry-trace": header})
    assert answer.headers["X-Trace-Id"] not in (header[:32], header[:32].lower())


def test_traceparent_decides_where_both_come(server: Server):
    trace_id, headers = traced()
    other = f"{secrets.token_hex(16)}-{secrets.token_hex(8)}"
    answer = httpx.get(f"{server.url}/healthz", headers={**headers, "sentry-trace": other})
    assert answer.headers["X-Trace-Id"] == trace_id


def test_how_an_id_begins_says_nothing_of_whether_it_is_recorded():
    reporter = Reporter()
    reporter.decide_as("http://0123456789abcdef@127.0.0.1:9/42", 0.1)
    for beginning in ("0" * 16, f"{int(time.time()):x}" + "0" * 8):  # padded 64-bit ids; ids that begin with the time
        recorded = sum(reporter.samples(beginning + secrets.token_hex(8)) for _ in range(4000))
        assert 200 < recorded < 600, beginning


def test_a_reporter_that_fails_takes_no_answer_away():
    class UnspeakableError(Exception):
        @property
        def message(self) -> str:
            raise RuntimeError("and again")

    reporter = Reporter()
    reporter.on = True
    reporter.report(UnspeakableError(), "kind", secrets.token_hex(16))


def test_a_method_that_a_client_invents_names_nothing(recorded: Server, sentry: Sentry):
    trace_id, headers = traced()
    httpx.request("EVILX", f"{recorded.url}/problems", headers=headers)
    assert came(sentry, "transaction", trace_id)[0]["transaction"] == "other /problems"


def test_health_checks_and_metrics_are_not_recorded(recorded: Server, sentry: Sentry):
    trace_id, headers = traced()
    for path in ("/healthz", "/readyz", "/metrics", "/nowhere"):
        httpx.get(recorded.url + path, headers={"Authorization": f"Bearer {METRICS_TOKEN}", **headers})
    assert [item["transaction"] for item in came(sentry, "transaction", trace_id)] == ["no route"]


def test_a_share_of_the_traces_is_recorded_by_every_worker_alike(broken: Server, sentry: Sentry):
    (some, of_some), (other, of_other) = traced(broken), traced(broken, recorded=False)
    for headers in (of_other, of_some) * 5:
        httpx.get(f"{broken.url}/problems", headers=headers)
    assert len(came(sentry, "transaction", some, 5)) == 5
    assert in_trace(sentry.of("transaction"), other) == []


def test_a_delivery_goes_on_with_the_trace_of_the_order(recorded: Server, sentry: Sentry, client_of: Any, deliver: Any):
    alice = client_of(recorded)
    with Receiver() as receiver:
        alice.post("/webhook-endpoints", json={"url": receiver.url})
        trace_id, headers = traced()
        order = alice.post("/orders", json=LAMP, headers={"Idempotency-Key": "k", **headers}).json()
        deliver(recorded)
        receiver.wait_for(1)  # a process has to start first
        _placed, delivery = came(sentry, "transaction", trace_id, 2)
        assert receiver.received[0].headers["traceparent"].startswith(f"00-{trace_id}-")
    assert delivery["transaction"] == "deliver webhook"
    assert delivery["tags"]["order_id"] == order["id"]


# Nothing of anybody's


def test_proof_19_no_secret_is_in_any_envelope(serve: Serve, sentry: Sentry):
    server = serve(**given(sentry), WEBHOOK_SECRETS=whsec(SECRET))
    before = len(sentry.of("event"))
    canary = f"canary{uuid.uuid4().hex}"
    alice = Client(server.url, email=f"{canary}@example.com", password=f"{canary} {PASSWORD}").register().login()
    assert alice.access_token
    assert alice.refresh_token
    order = {**LAMP, "metadata": {canary: canary}, "items": [{**LAMP["items"][0], "name": canary}]}
    provider = Provider(server.url)
    # All goes well, then each table that is needed is gone in turn: errors below the very frames that hold secrets.
    for table in ("login_attempts", "sessions", "refresh_tokens", "order_items", "payment_events", "orders", "users"):
        alice.place(order, key=canary)
        alice.get(f"/orders?cursor={canary}")
        alice.patch(f"/orders/{uuid.uuid4()}", json={"metadata": {canary: canary}})
        alice.http.post("/auth/login", json={"email": alice.email, "password": alice.password})
        alice.http.post("/auth/refresh", json={"refresh_token": alice.refresh_token})
        alice.http.post("/auth/register", json={"email": f"{canary}2@example.com", "password": canary})
        alice.get(f"/idempotency-keys/{canary}")
        provider.send({"type": "payment.succeeded", "timestamp": "2026-11-25T10:00:00Z", "data": {"payment_id": canary,
            "order_id": str(uuid.uuid4()), "amount_cents": 1, "currency": "EUR"}})  # fmt: skip
        rename(server, table, f"{table}_gone")
        time.sleep(1.05)  # of each kind there is one event a second
    provider.close()
    alice.close()
    wait_until(lambda: len(sentry.of("event")) - before >= 8)
    server.stop()
    secrets_of_all = [canary, alice.access_token.split(".")[2], alice.refresh_token, whsec(SECRET), SECRET.decode()]
    for secret in [*secrets_of_all, server.env["JWT_KEYS"].partition(":")[2], "Bearer ey"]:
        assert secret.encode() not in sentry.raw
        assert secret not in server.log()
    assert b'"vars"' in sentry.raw  # there was something to hide


# A Sentry that is no help


def hanging_port() -> Iterator[int]:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        yield deaf.getsockname()[1]


@pytest.fixture(params=["nobody listens", "nobody answers", "it is slow", "it is full"])
def no_help(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a Sentry that takes nothing, or takes it badly."""
    if request.param == "nobody listens":
        yield "http://0123456789abcdef@127.0.0.1:9/42"
    elif request.param == "nobody answers":
        for port in hanging_port():
            yield f"http://0123456789abcdef@127.0.0.1:{port}/42"
    else:
        with Sentry((lambda: 429) if request.param == "it is full" else (lambda: time.sleep(0.5) or 200)) as bad:
            yield bad.dsn


def test_a_sentry_that_is_no_help_holds_no_request_up(serve: Serve, sentry: Sentry, no_help: str, client_of: Any):
    server = serve(**{**given(sentry), "SENTRY_DSN": no_help})
    alice = client_of(server)
    path = alice.place().headers["Location"]
    slowest = 0.0
    for _ in range(QUEUED + 50):  # the queue is full before
        began = time.monotonic()
        assert alice.get(path).status_code == 200
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 5, "a request waited for Sentry"
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 15


# 1,500 traces of 50 spans, for a Sentry that takes the first and never answers.
CROWDED = """
from gevent import monkey; monkey.patch_all()
import os, resource, secrets, sys
from types import SimpleNamespace
from orders_api.reporting import reporter, span

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

def record(count):
    for _ in range(count):
        with reporter.transaction("t", "op", secrets.token_hex(16)):
            for _ in range(50):
                with span("db", "SELECT " + "x" * 200):
                    pass

reporter.open(SimpleNamespace(sentry_dsn=sys.argv[1], sentry_traces_rate=1.0, release=None, environment="x"))
record(300)
before = resident_mb()
record(1200)
print(resident_mb() - before, flush=True)
os._exit(0)
"""


def test_what_waits_for_a_sentry_that_never_answers_is_bounded():
    for port in hanging_port():
        command = [sys.executable, "-c", CROWDED, f"http://0123456789abcdef@127.0.0.1:{port}/42"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
        assert float(done.stdout) < 12, "megabytes more than after the first 300"
