"""`/healthz` says that the process lives, `/readyz` that it can do its work."""

import socket
from collections.abc import Callable
from typing import Any

import httpx
import psycopg

from orders_api import migrator
from orders_api.dev import EmbeddedMemcached, EmbeddedPostgres
from tests.client import Client, assert_problem
from tests.conftest import a_postgres
from tests.web.patient import PATIENCE
from tests.web.raw import wait_until

PRODUCTION = {"ENVIRONMENT": "production", "WEB_CONCURRENCY": "1", "BCRYPT_ROUNDS": "10"}


def test_a_process_that_lives_is_healthy(server: Any):
    answer = httpx.get(f"{server.url}/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers["Cache-Control"] == "no-store"


def test_with_everything_there_it_is_ready(server: Any):
    answer = httpx.get(f"{server.url}/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "checks": {"database": "ok", "migrations": "ok", "cache": "ok"}}


def test_without_memcached_it_is_degraded_and_does_its_work(
    serve: Callable[..., Any], own_memcached: tuple[EmbeddedMemcached, str]
):
    server = serve(MEMCACHED_SERVERS=own_memcached[1])
    own_memcached[0].stop()
    answer = httpx.get(f"{server.url}/readyz")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["checks"]["cache"]) == ("degraded", "down")

    carol = Client(server.url).register().login()
    assert carol.place().status_code == 201
    assert len(carol.get("/orders").json()["data"]) == 1
    carol.close()


def test_memcached_without_an_answer_does_not_hold_readiness_up(serve: Callable[..., Any]):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        server = serve(MEMCACHED_SERVERS=f"127.0.0.1:{silent.getsockname()[1]}")
        answer = httpx.get(f"{server.url}/readyz", timeout=2)
        assert answer.json()["status"] == "degraded"


def test_an_empty_database_is_not_ready(serve: Callable[..., Any], databases: Any):
    server = serve(database_url=databases.empty(), WEB_CONCURRENCY="1")
    problem = assert_problem(httpx.get(f"{server.url}/readyz"), 503, "database_unavailable")
    assert "orders-api migrate" in problem["detail"]
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_production_is_not_ready_on_a_database_that_can_forget(serve: Callable[..., Any]):
    server = serve(**PRODUCTION)  # the tests' own PostgreSQL is fast, and forgetful
    problem = assert_problem(httpx.get(f"{server.url}/readyz"), 503, "database_unavailable")
    assert "fsync and full_page_writes and synchronous_commit off" in problem["detail"]


def test_production_is_ready_on_one_that_can_not(serve: Callable[..., Any]):
    with a_postgres(lambda home: EmbeddedPostgres(home / "data", home / "s", durable=True)) as postgres:
        url = postgres.start()
        migrator.migrate(url)
        server = serve(database_url=url, **PRODUCTION, **PATIENCE)
        assert httpx.get(f"{server.url}/readyz").json()["status"] == "ok"
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute("ALTER SYSTEM SET synchronous_commit = off")
            sql.execute("SELECT pg_reload_conf()")
        wait_until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)


def test_a_migration_that_is_missing_is_noticed_and_a_later_one_does_no_harm(serve: Callable[..., Any], databases: Any):
    url = databases.migrated()
    with psycopg.connect(url, autocommit=True) as sql:
        last = sql.execute("SELECT max(migration_id) FROM _yoyo_migration").fetchone()[0]
        row = sql.execute("DELETE FROM _yoyo_migration WHERE migration_id = %s RETURNING *", [last]).fetchone()
        server = serve(database_url=url, WEB_CONCURRENCY="1")
        problem = assert_problem(httpx.get(f"{server.url}/readyz"), 503, "database_unavailable")
        assert problem["detail"].startswith("1 migration")
        sql.execute("INSERT INTO _yoyo_migration VALUES (" + ", ".join(["%s"] * len(row)) + ")", row)
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        # A release that was rolled back runs on the newer schema.
        sql.execute("INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES ('later', '9999_later')")
        assert httpx.get(f"{server.url}/readyz").status_code == 200
