"""`orders-api keys`: how old each secret is, and never what it is."""

import os
import subprocess
import sys

import psycopg
import pytest

from orders_api import migrator
from orders_api.dev.local import new_jwt_key, new_webhook_secret
from tests.test_commands import run
from tests.web.raw import wait_until


@pytest.fixture
def settings(databases):
    return {
        "DATABASE_URL": databases.migrated() + "&password=hunter2hunter2",
        "JWT_KEYS": f"{new_jwt_key()},{new_jwt_key()}",
        "WEBHOOK_SECRETS": new_webhook_secret(),
        "METRICS_TOKEN": "canary-metrics-token",
        "SENTRY_DSN": "https://canary-dsn@sentry.example/1",
    }


def rows(shown):
    return [line.split() for line in shown.stdout.splitlines()[1:]]


def ages(settings, **changes):
    return [(row[0], row[4]) for row in rows(run("keys", **{**settings, **changes}))]


def kids(ring):
    return [entry.partition(":")[0] for entry in ring.split(",")]


def grow_older(url, days):
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("UPDATE secret_sightings SET first_seen_at = first_seen_at - %s * interval '1 day'", [days])


def test_every_secret_is_listed_with_its_use_and_age(settings):
    shown = rows(run("keys", **settings))

    assert [(row[0], " ".join(row[1:-3])) for row in shown] == [
        ("JWT_KEYS", "signs"),
        ("JWT_KEYS", "verifies"),
        ("WEBHOOK_SECRETS", "verifies"),
        ("DATABASE_URL", "in use"),
        ("METRICS_TOKEN", "in use"),
        ("SENTRY_DSN", "in use"),
    ]
    assert [row[2] for row in shown[:2]] == kids(settings["JWT_KEYS"])
    assert {row[-1] for row in shown} == {"0"}


def test_no_value_is_shown_or_kept(settings):
    shown = run("keys", **settings)
    with psycopg.connect(settings["DATABASE_URL"]) as sql:
        kept = sql.execute("SELECT setting, encode(fingerprint, 'escape') FROM secret_sightings").fetchall()
    secrets = [value.rpartition(":")[2] for value in settings["JWT_KEYS"].split(",")]
    secrets += [settings["WEBHOOK_SECRETS"], "hunter2hunter2", "canary"]

    assert len(kept) == 7  # the salt's too
    assert not [secret for secret in secrets if secret in shown.stdout + shown.stderr + str(kept)]


def test_migrate_sees_what_is_configured(settings):
    run("migrate", **settings)
    grow_older(settings["DATABASE_URL"], 3)

    assert {row[-1] for row in rows(run("keys", **settings))} == {"3"}


def test_a_delivery_worker_sees_what_is_configured(settings):
    """It starts anew with each change of a setting, on platforms that run no `migrate` then."""
    count = "SELECT count(*) FROM secret_sightings"
    environ = {"PATH": os.environ["PATH"], "ENVIRONMENT": "development", **settings}
    worker = subprocess.Popen([sys.executable, "-m", "orders_api", "deliver"], env=environ)
    try:
        with psycopg.connect(settings["DATABASE_URL"], autocommit=True) as sql:
            wait_until(lambda: sql.execute(count).fetchone() == (7,), 20)
    finally:
        worker.terminate()
        assert worker.wait(20) == 0


def test_a_new_key_is_young_and_one_that_is_gone_is_not_shown(settings):
    run("keys", **settings)
    grow_older(settings["DATABASE_URL"], 91)
    fresh, (_, old) = new_jwt_key(), settings["JWT_KEYS"].split(",")
    shown = run("keys", **{**settings, "JWT_KEYS": f"{fresh},{old}"})
    first, second = rows(shown)[:2]

    assert (first[2], first[4:]) == (kids(fresh)[0], ["0"])
    assert (second[2], second[4:6]) == (kids(old)[0], ["91", "older"])
    assert kids(settings["JWT_KEYS"])[0] not in shown.stdout


def test_derived_cursor_keys_are_not_listed_and_given_ones_are(settings):
    given = run("keys", **settings, CURSOR_KEYS=new_jwt_key())

    assert "CURSOR_KEYS" not in run("keys", **settings).stdout
    assert [row[:2] for row in rows(given)][2] == ["CURSOR_KEYS", "signs"]


def test_two_databases_give_one_secret_two_fingerprints(settings, databases):
    """Whoever gets hold of one table learns nothing about another."""
    other = databases.empty()
    migrator.migrate(other)
    first, second = (
        rows(run("keys", **{**settings, "DATABASE_URL": url})) for url in (settings["DATABASE_URL"], other)
    )

    assert first[2][:2] == second[2][:2] == ["WEBHOOK_SECRETS", "verifies"]
    assert first[2][2] != second[2][2]


def test_a_database_that_is_not_migrated_is_one_sentence(settings, databases):
    ended = run("keys", **{**settings, "DATABASE_URL": databases.empty()})

    assert ended.returncode == 1
    assert ended.stderr == "Error: The database is not migrated: run `orders-api migrate` first.\n"
