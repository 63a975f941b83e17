"""What behind a pooler is not ours: the session's role, and the lock of a migration. With a real PgBouncer."""

import psycopg
import pytest

from orders_api.db import Database
from orders_api.dev.local import new_jwt_key
from orders_api.pool import APPLICATION_ROLE
from orders_api.settings import Settings
from tests import pooler
from tests.test_commands import run
from tests.web.raw import wait_until

pytestmark = pytest.mark.skipif(not pooler.ON, reason="make test-pgbouncer starts PgBouncer")


@pytest.fixture
def url(databases):
    return databases.migrated()


def current_user(url):
    environ = {"ENVIRONMENT": "development", "DATABASE_URL": url, "JWT_KEYS": new_jwt_key()}
    database = Database()
    database.open(Settings.from_env({**environ, **pooler.SETTINGS}))
    try:
        return database.execute_sql("SELECT current_user").fetchone()[0]
    finally:
        database.shut()


def test_the_service_leaves_no_role_in_a_session_that_is_anybody_s(url):
    assert current_user(url) == APPLICATION_ROLE
    assert current_user(pooler.through(url)) == pooler.LOGIN
    with psycopg.connect(pooler.through(url), autocommit=True, prepare_threshold=None) as other:
        assert {other.execute("SELECT current_user").fetchone() for _ in range(20)} == {(pooler.LOGIN,)}


def test_every_session_has_the_login_s_timeouts(url):
    with psycopg.connect(pooler.through(url), autocommit=True, prepare_threshold=None) as own:
        names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "timezone")
        assert [own.execute(f"SHOW {name}").fetchone()[0] for name in names] == ["1s", "5s", "10s", "UTC"]


def test_the_login_can_t_rewrite_the_past_or_the_schema(url):
    for sql in ("UPDATE order_events SET trace_id = trace_id", "CREATE TABLE more (id int)"):
        with (
            psycopg.connect(pooler.through(url), autocommit=True, prepare_threshold=None) as own,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            own.execute(sql)


def test_a_login_without_timeouts_is_reported(serve, url):
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(f"ALTER ROLE {pooler.LOGIN} IN DATABASE {owner.info.dbname} SET statement_timeout = 0")
    server = serve(database_url=url, WEB_CONCURRENCY="1")

    wait_until(lambda: "statements have no timeout" in server.log())


def test_a_login_that_could_rewrite_the_past_is_reported(serve, url):
    server = serve(database_url=url, WEB_CONCURRENCY="1")
    assert "can rewrite events and audit" not in server.log()
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE order_events OWNER TO {pooler.LOGIN}")
    owning = serve(database_url=url, WEB_CONCURRENCY="1")

    wait_until(lambda: "can rewrite events and audit" in owning.log())


def test_migrate_goes_past_the_pooler_or_not_at_all(url):
    refused = run("migrate", DATABASE_URL=pooler.through(url))

    assert refused.returncode == 1
    assert refused.stderr == (
        "Error: DATABASE_URL leads through a connection pooler, where no lock holds: migrate by a direct connection.\n"
    )


def test_the_delivery_worker_and_keys_see_the_secrets(url):
    assert run("keys", DATABASE_URL=pooler.through(url)).stdout.startswith("SETTING")
