"""The `orders-api` command says in a sentence what its operator can cure."""

import os
import subprocess
import sys

import psycopg
import pytest

from orders_api import migrator

UNREACHABLE = "postgresql://orders:hunter2@127.0.0.1:1/orders"


def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "ENVIRONMENT": "development", "JWT_KEYS": "k1:" + "A" * 43, **settings}
    command = [sys.executable, "-m", "orders_api", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("command", ["migrate", "rollback", "expire"])
def test_a_database_that_can_t_be_reached_is_one_sentence(command):
    ended = run(command, DATABASE_URL=UNREACHABLE)

    assert ended.returncode == 1
    assert "Error: The database can't be reached" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr + ended.stdout


def test_migrations_step_back_and_forth(databases):
    url, last = databases.empty(), migrator.all_ids()[-1]

    assert run("migrate", DATABASE_URL=url).stdout.startswith("Applied 0001_accounts")
    assert run("migrate", DATABASE_URL=url).stdout == "Nothing to apply.\n"
    assert run("rollback", DATABASE_URL=url).stdout == f"Rolled back {last}\n"
    assert run("migrate", DATABASE_URL=url).stdout == f"Applied {last}\n"
    assert run("rollback", "--count", "99", DATABASE_URL=url).stdout.endswith("0001_accounts\n")
    assert run("migrate", DATABASE_URL=url).stdout.endswith(f"{last}\n")


def test_made_keys_are_taken_as_settings():
    made = dict(line.split("=", 1) for line in run("keys", "new").stdout.splitlines())

    assert run("expire", DATABASE_URL=UNREACHABLE, **made).returncode == 1
    assert run("expire", DATABASE_URL=UNREACHABLE, **{**made, "JWT_KEYS": "k1:short"}).returncode == 78


def test_a_demo_user_is_made_once_with_orders_and_their_events(databases):
    url = databases.migrated()

    assert seed(url).stdout == "Made demo@example.com with five orders.\n"
    assert seed(url).stdout == "demo@example.com is already there.\n"
    with psycopg.connect(url) as sql:
        assert sql.execute("SELECT count(*) FROM orders").fetchone() == (5,)
        sequences = sql.execute("SELECT sequence FROM order_events ORDER BY sequence").fetchall()
        assert sequences == [(1,), (2,), (3,), (4,), (5,)]


def test_orders_without_events_are_not_said_to_be_made(databases):
    url = databases.migrated()
    with psycopg.connect(url) as sql:
        sql.execute("CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        sql.execute("CREATE TRIGGER no_counters BEFORE INSERT ON feeds FOR EACH ROW EXECUTE FUNCTION skip()")

    ended = seed(url)

    assert ended.returncode == 1
    assert "the user has no counter row" in ended.stderr
    with psycopg.connect(url) as sql:
        assert sql.execute("SELECT count(*) FROM orders").fetchone() == (0,)


def seed(url: str) -> subprocess.CompletedProcess[str]:
    return run("seed", DATABASE_URL=url, DEMO_PASSWORD="correct horse", BCRYPT_ROUNDS="4")
