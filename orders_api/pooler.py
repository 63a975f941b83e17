"""PgBouncer and its like: whether one stands between us and PostgreSQL, and what is then not ours to set.

In transaction mode a session is whoever's comes next, so its settings belong to the login (conf/login.sql).
"""

import psycopg


def between(connection: psycopg.Connection) -> bool:
    """Whether another process answers than the one that greeted us."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or row[0] != connection.info.backend_pid


def owns_the_past(connection: psycopg.Connection) -> bool:
    """Whether the login could rewrite events and audit, because it owns them."""
    row = connection.execute(
        "SELECT EXISTS"
        " (SELECT FROM pg_class WHERE oid = to_regclass('order_events') AND pg_has_role(relowner, 'USAGE'))"
    ).fetchone()
    return row is None or row[0]


def unbounded(connection: psycopg.Connection) -> bool:
    """Whether our timeouts got lost on the way, as they do behind a pooler unless the login has them."""
    row = connection.execute("SELECT current_setting('statement_timeout') = '0'").fetchone()
    return row is None or row[0]
