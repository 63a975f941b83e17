"""What PostgreSQL holds in the end, read past the service."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import namedtuple_row

Row = Any


class Event(NamedTuple):
    user: str
    sequence: int
    order: str
    type: str
    version: int
    status: str


@dataclass(frozen=True)
class Books:
    """`orders` by id; `events` of each order, oldest first; `sequences` of each user; `keys` by (user, key);
    `inbox` by webhook-id; `sums`: what the items of an order add up to."""

    orders: dict[str, Row]
    events: dict[str, list[Event]]
    sequences: dict[str, list[int]]
    last_sequences: dict[str, int]
    keys: dict[tuple[str, str], Row]
    inbox: dict[str, Row]
    sums: dict[str, int]
    in_transaction: int


def read_books(url: str) -> Books:
    """In one snapshot."""
    with psycopg.connect(url, row_factory=namedtuple_row, autocommit=True) as connection:
        in_transaction = connection.execute(_IN_TRANSACTION).fetchone()
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        rows = {name: connection.execute(query).fetchall() for name, query in _QUERIES.items()}
    events, sequences = defaultdict(list), defaultdict(list)
    for row in rows["events"]:
        events[row.order].append(Event(*row))
        sequences[row.user].append(row.sequence)
    return Books(
        orders={row.id: row for row in rows["orders"]},
        events=events,
        sequences=sequences,
        last_sequences={row.user: row.last_sequence for row in rows["feeds"]},
        keys={(row.user, row.key): row for row in rows["keys"]},
        inbox={row.webhook_id: row for row in rows["inbox"]},
        sums={row.order: row.total for row in rows["sums"]},
        in_transaction=in_transaction[0],
    )


_IN_TRANSACTION = """
    SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND application_name = 'orders-api'
"""
_QUERIES = {
    "orders": """
        SELECT id::text, user_id::text AS user, status::text, total_cents, version,
            ARRAY(SELECT jsonb_object_keys(metadata)) AS edits
        FROM orders
    """,
    "events": """
        SELECT user_id::text AS user, sequence, order_id::text AS order, type, (data->>'version')::int AS version,
            data->>'status' AS status
        FROM order_events ORDER BY user_id, sequence
    """,
    "feeds": "SELECT user_id::text AS user, last_sequence FROM feeds",
    "keys": "SELECT user_id::text AS user, key, order_id::text AS order, body FROM idempotency_keys",
    "inbox": "SELECT webhook_id, type, order_id, outcome FROM payment_events",
    "sums": "SELECT order_id::text AS order, sum(quantity * unit_price_cents) AS total FROM order_items GROUP BY 1",
}
