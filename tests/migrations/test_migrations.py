"""The migrations: forth and back, two at once, and the indexes that the queries count on."""

import statistics
import threading
import time
import uuid
from datetime import UTC, datetime

import psycopg
import pytest

from orders_api import migrator
from orders_api.orders.queries import _page_of_orders

COLUMNS = """
    SELECT c.relname, c.relkind::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relname !~ '^_?yoyo' ORDER BY 1, 3"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text !~ 'yoyo' ORDER BY 1, 2"""
INDEXES = """
    SELECT tablename, indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename !~ 'yoyo' ORDER BY 1, 2"""
TYPES = """
    SELECT t.typname, array_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_type t
    JOIN pg_enum e ON e.enumtypid = t.oid GROUP BY 1 ORDER BY 1"""
FOREIGN_KEYS_WITHOUT_INDEX = """
    SELECT conrelid::regclass::text, conname FROM pg_constraint k
    WHERE contype = 'f' AND NOT EXISTS (
        SELECT 1 FROM pg_index i WHERE i.indrelid = k.conrelid
        AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)"""
# 100,000 orders: half of them one user's, one in a hundred still pending.
MANY_ORDERS = """
    INSERT INTO orders (user_id, id, status, currency, total_cents, metadata, version, created_at, updated_at)
    SELECT %(users)s[1 + n %% 100 * (n %% 2)], gen_random_uuid(),
           (CASE WHEN n %% 100 = 0 THEN 'pending' ELSE 'paid' END)::order_status,
           'EUR', n, '{}', 1, now() - n * interval '1 minute', now()
    FROM generate_series(1, 100000) n"""


def catalog(url: str) -> list[list[tuple]]:
    with psycopg.connect(url) as connection:
        return [connection.execute(query).fetchall() for query in (COLUMNS, CONSTRAINTS, INDEXES, TYPES)]


def applied(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT migration_id FROM _yoyo_migration ORDER BY 1").fetchall()
    return [id_ for (id_,) in rows]


def test_forth_back_and_forth_again_is_the_same_schema(databases):
    url = databases.empty()

    assert migrator.migrate(url) == migrator.all_ids()
    first = catalog(url)
    assert migrator.rollback(url, count=99) == migrator.all_ids()[::-1]
    assert catalog(url) == [[], [], [], []]
    assert migrator.migrate(url) == migrator.all_ids()

    assert first[0]
    assert catalog(url) == first


def test_a_second_migrate_has_nothing_to_do(databases):
    url = databases.migrated()

    assert migrator.migrate(url) == []
    assert migrator.pending(applied(url)) == []


def test_what_is_rolled_back_is_pending(databases):
    url = databases.migrated()

    assert migrator.rollback(url) == migrator.all_ids()[-1:]
    assert migrator.pending(applied(url)) == migrator.all_ids()[-1:]


def test_of_two_migrates_at_once_one_waits_for_the_other(databases):
    """Both stand at the lock, which a third connection holds, until it lets them go."""
    url = databases.empty()
    results: list[list[str]] = []
    both = [threading.Thread(target=lambda: results.append(migrator.migrate(url))) for _ in range(2)]
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [migrator.LOCK_ID])
        for thread in both:
            thread.start()
        _wait_for_waiters(holder, 2)
        assert results == []
        holder.execute("SELECT pg_advisory_unlock(%s)", [migrator.LOCK_ID])
    for thread in both:
        thread.join(30)

    assert sorted(results) == [[], migrator.all_ids()]


def test_a_lock_that_stays_taken_ends_in_a_sentence(databases, monkeypatch):
    monkeypatch.setattr(migrator, "LOCK_WAIT_S", 1)
    url = databases.empty()
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [migrator.LOCK_ID])

        with pytest.raises(migrator.MigrationLockError, match="Another migration"):
            migrator.migrate(url)


def test_a_stale_lock_of_a_killed_migrator_is_cleared(databases):
    url = databases.migrated()
    migrator.rollback(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1)")

    assert migrator.migrate(url) == migrator.all_ids()[-1:]


def test_a_migration_waits_for_a_long_transaction_and_nobody_for_the_migration(databases, tmp_path):
    (tmp_path / "9001_note.sql").write_text("ALTER TABLE orders ADD COLUMN note text")
    url, applied, waits = databases.migrated(), [], []
    migrating = threading.Thread(target=lambda: applied.extend(migrator.migrate(url, tmp_path)))
    as_requests = {"autocommit": True, "options": "-c lock_timeout=1s"}
    with psycopg.connect(url) as reader, psycopg.connect(url, **as_requests) as request:
        reader.execute("SELECT 1 FROM orders LIMIT 1")
        migrating.start()
        until = time.monotonic() + 2.2
        while time.monotonic() < until:
            began = time.monotonic()
            request.execute("SELECT 1 FROM orders LIMIT 1")
            waits.append(time.monotonic() - began)
        assert applied == []
        reader.commit()
        migrating.join(30)

    assert applied == ["9001_note"]
    waits = [wait for wait in waits if wait > 0.05]
    assert waits, "nobody ever waited: the test shows nothing"
    assert statistics.median(waits) < 0.5  # on a busy machine one or another waits for that


def test_every_foreign_key_has_an_index(databases):
    with psycopg.connect(databases.migrated()) as connection:
        assert connection.execute(FOREIGN_KEYS_WITHOUT_INDEX).fetchall() == []


@pytest.fixture(scope="module")
def crowded(databases):
    """A connection to 100,000 orders, and the user who has half of them."""
    users = [uuid.uuid4() for _ in range(100)]
    with psycopg.connect(databases.migrated(), autocommit=True) as connection:
        for number, user in enumerate(users):
            connection.execute(
                "INSERT INTO users (id, email, email_key, password_hash, created_at) VALUES (%s, %s, %s, %s, now())",
                [user, f"u{number}@example.com", f"u{number}@example.com", "x" * 60],
            )
        connection.execute(MANY_ORDERS, {"users": users})
        connection.execute("ANALYZE orders")
        yield connection, users[0]


def test_a_page_of_orders_reads_its_index_alone(crowded):
    connection, user = crowded
    plan = _plan(
        connection,
        "SELECT * FROM orders WHERE user_id = %s AND (created_at, id) < (now() - interval '30 days', %s)"
        " ORDER BY created_at DESC, id DESC LIMIT 21",
        [user, uuid.uuid4()],
    )

    assert "Index Scan using orders_by_user" in plan
    assert "Sort" not in plan
    assert "Seq Scan" not in plan


def test_a_deep_page_before_a_bound_reads_no_more_than_a_shallow_one(crowded):
    connection, user = crowded
    near, deep = (_blocks_of_a_page(connection, user, passed) for passed in (100, 40_000))

    assert deep <= near + 10, (near, deep)


def _blocks_of_a_page(connection: psycopg.Connection, user: uuid.UUID, passed: int) -> int:
    """That the service's own statement reads, for a walk with `created_before` that has passed so many orders."""
    position = connection.execute(
        "SELECT created_at, id FROM orders WHERE user_id = %s ORDER BY created_at DESC, id DESC OFFSET %s LIMIT 1",
        [user, passed],
    ).fetchone()
    given = {"user_id": user, "limit": 21, "created_before": datetime.max.replace(tzinfo=UTC)}
    given |= dict(zip(("after_time", "after_id"), position, strict=True))
    query = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {_page_of_orders(frozenset(given), False)}"
    (plan,) = connection.execute(query, given).fetchone()
    return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]


def test_the_first_page_reads_its_index_alone(crowded):
    connection, user = crowded
    plan = _plan(
        connection, "SELECT * FROM orders WHERE user_id = %s ORDER BY created_at DESC, id DESC LIMIT 21", [user]
    )

    assert "Index Scan using orders_by_user" in plan
    assert "Sort" not in plan


def test_the_sweep_by_status_reads_its_index_alone(crowded):
    connection, _ = crowded
    plan = _plan(connection, "SELECT * FROM orders WHERE status = 'pending' ORDER BY created_at LIMIT 100", [])

    assert "Index Scan using orders_by_status" in plan
    assert "Sort" not in plan


def _plan(connection: psycopg.Connection, query: str, parameters: list) -> str:
    return "\n".join(line for (line,) in connection.execute(f"EXPLAIN {query}", parameters))


def _wait_for_waiters(connection: psycopg.Connection, count: int) -> None:
    """Until that many sessions of this database wait for an advisory lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
    pause = threading.Event()
    for _ in range(600):
        if connection.execute(waiting).fetchone() == (count,):
            return
        pause.wait(0.05)
    raise AssertionError(f"{count} sessions never waited")
