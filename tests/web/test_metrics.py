"""`/metrics`: over all workers, whatever becomes of them, and for whoever knows the token alone."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import psycopg.conninfo
import pytest
from prometheus_client.parser import text_string_to_metric_families

from orders_api.dev import EmbeddedMemcached
from tests.accounts.people import pend
from tests.client import LAMP, PASSWORD, Client, assert_problem, plain_http
from tests.conftest import Databases, Server, serving
from tests.payments.conftest import whsec
from tests.payments.provider import SECRET, Provider, event
from tests.web.patient import PATIENCE
from tests.web.raw import exchange, wait_until

TOKEN = "not-a-secret-but-long-enough"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
WATCHED = {"METRICS_TOKEN": TOKEN, "WEBHOOK_SECRETS": whsec(SECRET)}


@pytest.fixture(scope="module")
def watched(databases: Databases, memcached: str) -> Iterator[Server]:
    for serve in serving(databases, memcached):
        yield serve(**WATCHED, **PATIENCE)


@pytest.fixture
def carol(watched: Server, client_of: Callable[[Server], Client]) -> Client:
    return client_of(watched)


plain = plain_http(headers={"Connection": "close"})  # a worker with an idle connection takes 5 s to leave


def value(watched: Server, name: str, /, **labels: str) -> float:
    """The sum of all series of that name that have these labels; nothing counted is 0."""
    answer = plain.get(f"{watched.url}/metrics", headers=AUTHORIZED)
    assert answer.status_code == 200, answer.text
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    matching = [s for s in samples if s.name == f"orders_{name}" and labels.items() <= s.labels.items()]
    return sum(sample.value for sample in matching)


def files_of(server: Server) -> list[str]:
    """The files in which the server's workers count."""
    parent = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp")
    return sorted(file.name for file in parent.glob(f"orders-metrics-{server.process.pid}-*/*"))


def test_without_the_setting_there_is_no_such_route(http: httpx.Client):
    assert_problem(http.get("/metrics", headers=AUTHORIZED), 404, "route_not_found")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "token_missing"),
        ("Basic x", "token_missing"),
        ("Bearer x", "token_invalid"),
        ("Bearer ü", "token_invalid"),
    ],
)
def test_who_does_not_know_the_token_learns_nothing(watched: Server, header: str | None, code: str):
    headers = {"Authorization": header.encode()} if header else {}
    problem = httpx.get(f"{watched.url}/metrics", headers=headers)
    assert_problem(problem, 401, code)
    assert problem.headers["WWW-Authenticate"].startswith("Bearer ")


def test_a_users_token_does_not_open_it(carol: Client):
    assert_problem(carol.get("/metrics"), 401, "token_invalid")


def test_it_is_the_prometheus_text_format(watched: Server):
    answer = httpx.get(f"{watched.url}/metrics", headers=AUTHORIZED)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert answer.headers["Cache-Control"] == "no-store"


def test_every_request_is_counted_whichever_worker_answers(watched: Server, carol: Client):
    route = {"method": "GET", "route": "/orders/{order_id}", "status": "404"}
    before = value(watched, "request_duration_seconds_count", **route)
    for _ in range(30):
        httpx.get(f"{watched.url}/orders/x", headers={"Authorization": f"Bearer {carol.access_token}"})
    assert value(watched, "request_duration_seconds_count", **route) - before == 30
    assert len([name for name in files_of(watched) if name.startswith("histogram")]) > 1


def test_requests_are_told_apart_by_what_the_cache_said(watched: Server, carol: Client):
    path = carol.place().headers["Location"]
    route = {"route": "/orders/{order_id}", "status": "200"}
    before = {kind: value(watched, "request_duration_seconds_count", cache=kind, **route) for kind in ("hit", "miss")}
    for _ in range(3):
        carol.get(path)
    after = {kind: value(watched, "request_duration_seconds_count", cache=kind, **route) for kind in ("hit", "miss")}
    assert {kind: after[kind] - before[kind] for kind in after} == {"hit": 2, "miss": 1}
    assert value(watched, "cache_lookups_total", kind="orders", verdict="hit") >= 2
    assert value(watched, "cache_lookups_total", kind="session", verdict="hit") >= 3


def test_what_clients_invent_makes_no_series(watched: Server, carol: Client):
    def series() -> int:
        text = httpx.get(f"{watched.url}/metrics", headers=AUTHORIZED).text
        return text.count("orders_request_duration_seconds_count{")

    def invent(n: int) -> None:
        carol.get(f"/nowhere/{n}")
        carol.request(f"METHOD{n}", "/orders")
        carol.get(f"/orders?x{n}=1")
        carol.get(f"/orders/{n}")

    invent(0)
    httpx.get(f"{watched.url}/metrics", headers=AUTHORIZED)
    before = series()
    for n in range(1, 20):
        invent(n)
    assert series() == before


def test_a_killed_worker_takes_no_count_with_it_and_leaves_no_files(serve: Callable[..., Server]):
    server = serve(**WATCHED)
    me = {"route": "/auth/me"}
    asked = 0
    for _ in range(4):
        for _ in range(10):
            httpx.get(f"{server.url}/auth/me")
        asked += 10
        victim = server.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda victim=victim: victim not in server.worker_pids() and len(server.worker_pids()) == 2)
        server.wait_until_up()
    assert value(server, "request_duration_seconds_count", **me) == asked
    slots = {name.rpartition("_")[2] for name in files_of(server)} - {"master.db"}
    assert slots <= {"0.db", "1.db"}

    server.stop()
    assert files_of(server) == []


def test_workers_that_were_replaced_hold_nothing_any_more(serve: Callable[..., Server]):
    server = serve(**WATCHED, DATABASE_POOL_SIZE="3")
    wait_until(lambda: value(server, "database_pool_connections") == 6)
    old = set(server.worker_pids())
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not old & set(server.worker_pids()))
    server.wait_until_up()
    wait_until(lambda: value(server, "database_pool_connections") == 6)


def test_refusals_are_counted_by_code(watched: Server, carol: Client):
    before = value(watched, "problems_total", code="validation_failed")
    carol.place({})
    assert value(watched, "problems_total", code="validation_failed") - before == 1


def test_what_is_no_http_is_counted(watched: Server):
    before = value(watched, "broken_requests_total")
    exchange(watched.port, b"NO HTTP\r\n\r\n")
    assert value(watched, "broken_requests_total") - before == 1


def test_statements_are_counted(watched: Server, carol: Client):
    carol.get("/auth/me")  # from here on the session is remembered
    before = value(watched, "database_statements_total"), value(watched, "database_seconds_total")
    carol.get("/auth/me")
    count, seconds = value(watched, "database_statements_total"), value(watched, "database_seconds_total")
    # The scrapes ask the database too: one statement each.
    assert count - before[0] in (2, 3)
    assert seconds > before[1]


def test_replays_are_counted(watched: Server, carol: Client):
    before = value(watched, "idempotent_replays_total")
    for _ in range(3):
        carol.place(key="the same")
    assert value(watched, "idempotent_replays_total") - before == 2


def test_logins_and_lockouts_are_counted(watched: Server, connect: Callable[..., psycopg.Connection]):
    def counts() -> dict[str, float]:
        outcomes = ("succeeded", "failed", "locked", "busy")
        logins = {name: value(watched, "login_attempts_total", outcome=name) for name in outcomes}
        return {**logins, "lockouts": value(watched, "lockouts_total")}

    before = counts()
    dave = Client(watched.url).register().login()
    pend(connect(watched), dave, 5, "1 second")
    dave.http.post("/auth/login", json={"email": dave.email, "password": PASSWORD})
    pend(connect(watched), dave, 5, "16 minutes")  # long forgotten
    for _ in range(7):
        dave.http.post("/auth/login", json={"email": dave.email, "password": "wrong" + PASSWORD})
    dave.close()
    assert {name: count - before[name] for name, count in counts().items()} == {
        "succeeded": 1,
        "failed": 5,
        "locked": 2,
        "busy": 1,
        "lockouts": 1,
    }


def test_a_lost_memcached_shows(serve: Callable[..., Server], own_memcached: tuple[EmbeddedMemcached, str]):
    server = serve(MEMCACHED_SERVERS=own_memcached[1], RATE_LIMIT_AUTH="3/minute", **WATCHED)
    own_memcached[0].stop()
    alice = Client(server.url).register().login()
    alice.place()
    for _ in range(8):
        alice.get("/auth/me")
    alice.close()
    assert value(server, "memcached_failures_total", server=own_memcached[1]) >= 1
    assert value(server, "rate_limit_fallbacks_total", policy="ip") >= 10
    assert value(server, "rate_limit_denials_total", policy="auth") >= 1
    assert value(server, "cache_bypasses_total") >= 1
    assert value(server, "cache_lookups_total", verdict="down") >= 1


def test_payments_are_counted_by_outcome(watched: Server, carol: Client):
    provider = Provider(watched.url)
    order = carol.place().json()
    counted = ("applied", "repeated", "amount_differs", "signature_invalid")
    before = {name: value(watched, "payment_webhooks_total", outcome=name) for name in counted}
    for _ in range(2):
        provider.send(event("payment.succeeded", order), webhook_id="msg_metrics")
    provider.succeeded({**order, "total_cents": 1})
    httpx.post(f"{watched.url}/webhooks/payments", json={})
    provider.close()
    after = {name: value(watched, "payment_webhooks_total", outcome=name) for name in counted}
    assert {name: after[name] - before[name] for name in counted} == dict.fromkeys(counted, 1)


def test_events_that_nobody_delivers_show(serve: Callable[..., Server], client_of: Callable[[Server], Client]):
    server = serve(**WATCHED, WEBHOOK_ALLOW_PRIVATE="1")
    alice = client_of(server)
    assert alice.post("/webhook-endpoints", json={"url": "http://127.0.0.1:9999/hook"}).status_code == 201
    for _ in range(3):
        alice.place(LAMP)
    assert value(server, "outbox_events_behind") == 3
    assert (value(server, "webhook_endpoints"), value(server, "webhook_endpoints_failing")) == (1, 0)


def test_without_a_database_the_rest_is_told(serve: Callable[..., Server], databases: Databases):
    server = serve(**WATCHED)
    assert value(server, "database_up") == 1
    name = psycopg.conninfo.conninfo_to_dict(server.database_url)["dbname"]
    with databases.admin() as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    assert value(server, "database_up") == 0
    assert value(server, "build_info") == 1
