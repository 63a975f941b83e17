"""Migrations by yoyo, under a lock of PostgreSQL's own: any number of processes may migrate at once."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import Migration, default_migration_table

from orders_api import pooler

MIGRATIONS = Path(__file__).parent.parent / "migrations"
LOCK_ID = 0x6F7264657273  # "orders" in ASCII: one number that nothing else in this database locks
LOCK_WAIT_S = 60  # the second of two deploys waits for the first
# Behind a migration that waits for its table's lock all later requests wait: after 0.6 s lists are shed (admission.py),
# after 1 s all give up (pool.py). So it gives up sooner, lets them pass, and tries again until the lock is free.
STATEMENT_LOCK_MS = 100
LOCK_TRIES = 120
BETWEEN_TRIES_S = 0.4


class MigrationLockError(Exception):
    """Nobody should migrate now: another migration held the lock all the time, or no lock would hold."""


def migrate(database_url: str, folder: Path = MIGRATIONS) -> list[str]:
    """Applies what is pending, in order. Returns the ids that were applied; a failed one leaves those before it."""
    with _locked(database_url) as backend, backend.lock():
        migrations = backend.to_apply(read_migrations(str(folder)))
        for migration in migrations:
            _persistently(backend.apply_one, migration)
        return [migration.id for migration in migrations]


def rollback(database_url: str, count: int = 1, folder: Path = MIGRATIONS) -> list[str]:
    """Takes back the last `count` migrations, newest first. Returns their ids."""
    with _locked(database_url) as backend, backend.lock():
        migrations = backend.to_rollback(read_migrations(str(folder)))[:count]
        for migration in migrations:
            _persistently(backend.rollback_one, migration)
        return [migration.id for migration in migrations]


def all_ids() -> list[str]:
    """The ids of all migrations that this release brings, in order."""
    return sorted(path.stem for path in MIGRATIONS.glob("[0-9]*.sql") if not path.stem.endswith(".rollback"))


def pending(applied_ids: list[str]) -> list[str]:
    """What this release needs and the database does not have yet."""
    return [id_ for id_ in all_ids() if id_ not in set(applied_ids)]


def _persistently(act: Callable[[Migration], object], migration: Migration) -> None:
    """One migration is one transaction: what failed for a lock has left nothing behind.

    But for what is not transactional: that sets a lock_timeout of its own, long enough not to come here.
    """
    for _ in range(LOCK_TRIES - 1):
        try:
            act(migration)
        except psycopg.errors.LockNotAvailable:
            time.sleep(BETWEEN_TRIES_S)
        else:
            return
    act(migration)


@contextmanager
def _locked(database_url: str) -> Iterator[PostgresqlPsycopgBackend]:
    """A yoyo backend, while this process alone migrates. The lock goes with its connection, even after SIGKILL."""
    with psycopg.connect(database_url, autocommit=True, connect_timeout=5) as guard:
        if pooler.between(guard):
            raise MigrationLockError(
                "DATABASE_URL leads through a connection pooler, where no lock holds: migrate by a direct connection."
            )
        guard.execute("SELECT set_config('lock_timeout', %s, false)", [f"{LOCK_WAIT_S}s"])
        try:
            guard.execute("SELECT pg_advisory_lock(%s)", [LOCK_ID])
        except psycopg.errors.LockNotAvailable:
            raise MigrationLockError(
                f"Another migration has held the lock for {LOCK_WAIT_S} seconds; wait for it, or end it."
            ) from None
        with _backend(database_url) as backend:
            backend.break_lock()  # a row that stands here now was left by a migrator that was killed
            yield backend


def _backend(database_url: str) -> PostgresqlPsycopgBackend:
    """Built from parsed conninfo: yoyo's own URL parser would lose sockets, repeated hosts and default values."""
    parts = {name: str(value) for name, value in conninfo_to_dict(database_url).items()}
    parts["options"] = f"{parts.get('options', '')} -c lock_timeout={STATEMENT_LOCK_MS}".strip()
    uri = DatabaseURI(
        scheme="postgresql+psycopg",
        username=parts.pop("user", None),
        password=parts.pop("password", None),
        hostname=parts.pop("host", None),
        port=parts.pop("port", None),
        database=parts.pop("dbname", None),
        args=parts,
    )
    backend = PostgresqlPsycopgBackend(uri, default_migration_table)
    backend.init_database()
    return backend
