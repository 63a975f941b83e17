"""PROOFS 23: the role that the application steps down to has no DDL and can't rewrite the past."""

from collections.abc import Iterator

import psycopg
import pytest

from orders_api.db import Database
from orders_api.dev.local import new_jwt_key
from orders_api.pool import APPLICATION_ROLE
from orders_api.settings import Settings
from tests.conftest import Databases

PAST = ("order_events", "payment_events", "webhook_attempts")


@pytest.fixture(scope="module")
def application(databases: Databases) -> Iterator[Database]:
    """The application's own way to the database."""
    url = databases.migrated()
    database = Database()
    database.open(Settings.from_env({"ENVIRONMENT": "development", "DATABASE_URL": url, "JWT_KEYS": new_jwt_key()}))
    yield database
    database.shut()


def refused(application: Database, sql: str) -> bool:
    with pytest.raises(Exception) as error:
        application.execute_sql(sql)
    return isinstance(error.value.orig, psycopg.errors.InsufficientPrivilege)


def test_the_application_steps_down(application: Database):
    assert application.execute_sql("SELECT current_user").fetchone() == (APPLICATION_ROLE,)


@pytest.mark.parametrize("table", PAST)
@pytest.mark.parametrize("sql", ["UPDATE {} SET trace_id = trace_id", "DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}"])
def test_proof_23_the_past_can_t_be_rewritten(application: Database, table: str, sql: str):
    assert refused(application, sql.format(table))


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE more (id int)",
        "ALTER TABLE orders ADD COLUMN more int",
        "CREATE INDEX more ON orders (version)",
        "DROP INDEX orders_by_user",
        "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "UPDATE _yoyo_migration SET migration_id = 'x'",
        "TRUNCATE orders CASCADE",
    ],
)
def test_proof_23_the_application_has_no_ddl(application: Database, sql: str):
    assert refused(application, sql)


@pytest.mark.parametrize("sql", ["UPDATE {} SET first_seen_at = now()", "DELETE FROM {}"])
def test_no_secret_is_made_younger(application: Database, sql: str):
    assert refused(application, sql.format("secret_sightings"))


def test_only_old_attempts_can_be_pruned(application: Database):
    for age in ("91 days", "89 days"):
        application.execute_sql(
            "INSERT INTO webhook_attempts (id, received_at, client_ip, outcome, body_sha256, trace_id)"
            " VALUES (gen_random_uuid(), now() - %s::interval, '192.0.2.1', 'x', sha256(''), repeat('a', 32))",
            (age,),
        )
    pruned = [application.execute_sql("SELECT prune_webhook_attempts(10)").fetchone()[0] for _ in range(2)]

    assert pruned == [1, 0]
    assert application.execute_sql("SELECT count(*) FROM webhook_attempts").fetchone() == (1,)


def test_who_may_make_no_role_goes_on_without(databases: Databases):
    """As on a platform whose users have no CREATEROLE: the migrations pass, and the application keeps its own role."""
    url = databases.empty()
    with databases.admin() as admin, psycopg.connect(url, autocommit=True) as own:
        admin.execute("DROP ROLE IF EXISTS plain")
        admin.execute("CREATE ROLE plain LOGIN")
        own.execute("GRANT ALL ON SCHEMA public TO plain")
    plain = url.replace("user=postgres", "user=plain")
    from orders_api import migrator

    assert migrator.migrate(plain) == migrator.all_ids()
    database = Database()
    database.open(Settings.from_env({"ENVIRONMENT": "development", "DATABASE_URL": plain, "JWT_KEYS": new_jwt_key()}))
    assert database.execute_sql("SELECT current_user").fetchone() == ("plain",)
    database.shut()
