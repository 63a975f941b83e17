"""Fills a migrated database with users and their orders, whose ids can be computed from their numbers.

The rows are made inside the server (INSERT … SELECT generate_series) and not sent by COPY: no client has to make them
and write them down.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg

# The orders' numbers count from 1 in the order of their times; an expression of `n` says whose each is.
EVENLY = "1 + n % {users}"
A_FIFTH_TO_THE_FIRST = "CASE WHEN n % 5 = 0 THEN 1 ELSE 2 + n % ({users} - 1) END"

_USER, _SESSION, _ORDER = ("00000000-0000-7000-8000-", "00000001-0000-7000-8000-", "01900000-0000-7000-8000-")
_TABLES = ("orders", "order_items", "order_events")

# pgbench can draw numbers but no uuids: it calls these, and PostgreSQL inlines them.
_FUNCTIONS = f"""
CREATE SCHEMA bench;
CREATE FUNCTION bench.user_id(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$ SELECT ('{_USER}' || lpad(to_hex(n), 12, '0'))::uuid $$;
CREATE FUNCTION bench.session_id(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$ SELECT ('{_SESSION}' || lpad(to_hex(n), 12, '0'))::uuid $$;
CREATE FUNCTION bench.order_id(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$ SELECT ('{_ORDER}' || lpad(to_hex(n), 12, '0'))::uuid $$;
-- A UUIDv7 of this transaction: the same in each of its statements.
CREATE FUNCTION bench.new_id(n bigint) RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7'
        || lpad(to_hex(n & 4095), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid $$;
-- Every third has one item, every third two, every third three; their prices are alike within an order.
CREATE FUNCTION bench.item_count(n bigint) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 + (n % 3)::int $$;
CREATE FUNCTION bench.quantity(n bigint) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 + (n % 4)::int $$;
CREATE FUNCTION bench.price(n bigint) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 100 + (n % 900)::int $$;
CREATE FUNCTION bench.total(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE
    AS $$ SELECT bench.item_count(n) * bench.quantity(n) * bench.price(n)::bigint $$;
"""  # noqa: S608  (constants of ours)

_USERS = """
INSERT INTO users SELECT bench.user_id(n), 'bench-' || n || '@example.com', 'bench-' || n || '@example.com',
    repeat('!', 60), now() FROM generate_series(1, {users}) n;
INSERT INTO sessions SELECT bench.user_id(n), bench.session_id(n), now() FROM generate_series(1, {users}) n;
INSERT INTO feeds SELECT bench.user_id(n), coalesce(last, 0) FROM generate_series(1, {users}) n
    LEFT JOIN (SELECT {owner} AS n, count(*) AS last FROM generate_series(1, {orders}) n GROUP BY 1) counted USING (n);
"""

# The times end a day ago, so that what is created later is newer.
_ROWS = {
    "orders": """
        INSERT INTO orders SELECT bench.user_id({owner}), bench.order_id(n), 'pending', 'EUR', bench.total(n),
            jsonb_build_object('basket', n::text), 1, at, at
        FROM generate_series(1, {orders}) n, LATERAL (SELECT {at} AS at) moment ORDER BY n
    """,
    "order_items": """
        INSERT INTO order_items SELECT bench.user_id({owner}), bench.order_id(n), position,
            'sku-' || (n + position) % 1000, 'Thing ' || (n + position) % 1000, bench.quantity(n), bench.price(n)
        FROM generate_series(1, {orders}) n, generate_series(0, bench.item_count(n) - 1) position
    """,
    "order_events": """
        INSERT INTO order_events SELECT bench.user_id(owner),
            row_number() OVER (PARTITION BY owner ORDER BY n), bench.order_id(n), 'order.created',
            jsonb_build_object('version', 1, 'status', 'pending', 'currency', 'EUR', 'total_cents', bench.total(n),
                'changed', '[]'::jsonb), repeat('be', 16), {at}
        FROM (SELECT n, {owner} AS owner FROM generate_series(1, {orders}) n) owned
    """,
}
_AT = "date_trunc('day', now()) - interval '1 day' - ({orders} - n) * (interval '300 days' / {orders})"
_QUICKLY = "-c synchronous_commit=off -c maintenance_work_mem=512MB -c work_mem=256MB -c statement_timeout=0"


def user_id(n: int) -> UUID:
    return _numbered(_USER, n)


def session_id(n: int) -> UUID:
    return _numbered(_SESSION, n)


def order_id(n: int) -> UUID:
    return _numbered(_ORDER, n)


def seed(database_url: str, *, orders: int, users: int = 1000, owner: str = EVENLY) -> None:
    """Users 1 to `users` with a session each, and orders 1 to `orders` with 2 items on average and their event.

    The events are numbered without a gap and the feeds' counters agree; all is vacuumed and analyzed.
    """
    words = {"users": users, "orders": orders, "owner": owner.format(users=users), "at": _AT.format(orders=orders)}
    with psycopg.connect(database_url, autocommit=True, options=_QUICKLY) as connection:
        connection.execute(_FUNCTIONS)
        connection.execute(_USERS.format(**words))
        with _without_indexes(connection, database_url):
            _at_once(database_url, [rows.format(**words) for rows in _ROWS.values()])
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")  # else the first measurement would pay for it


@contextlib.contextmanager
def _without_indexes(connection: psycopg.Connection, database_url: str) -> Iterator[None]:
    """To fill a table and index it then takes a third of the time of filling an indexed one."""
    constraints = connection.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), contype = 'f' FROM pg_constraint"
        " WHERE contype IN ('p', 'f') AND (conrelid = ANY(%(tables)s::regclass[])"
        " OR confrelid = ANY(%(tables)s::regclass[])) ORDER BY contype = 'f' DESC",
        {"tables": list(_TABLES)},
    ).fetchall()
    indexes = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid = ANY(%s::regclass[]) AND NOT indisprimary",
        [list(_TABLES)],
    ).fetchall()
    for table, name, _, _ in constraints:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    yield
    keys = [
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {what}" for table, name, what, foreign in constraints if not foreign
    ]
    _at_once(database_url, [*keys, *(definition for _, definition in indexes)])
    for table, name, what, foreign in constraints:
        if foreign:
            connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {what}")


def _at_once(database_url: str, statements: list[str]) -> None:
    """Two at a time: more than that have no cores of their own."""

    def run(statement: str) -> None:
        with psycopg.connect(database_url, autocommit=True, options=_QUICKLY) as connection:
            connection.execute(statement)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, statements))


def _numbered(prefix: str, n: int) -> UUID:
    return UUID(f"{prefix}{n:012x}")
