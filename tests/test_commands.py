"""The `orders-api` command says in a sentence what its operator can cure."""

import os
import subprocess
import sys

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
