"""Lockout: an attempt is counted before its password is checked, in one statement that locks the email's row.

The state is in PostgreSQL and keyed by the email, not the account: an unknown email locks like a known one.
"""

import contextlib
import hashlib
import uuid
from collections.abc import Iterator

from orders_api import metrics
from orders_api.db import db
from orders_api.errors import Problem

MAX_FAILURES = 5
WINDOW_S = 15 * 60
LOCK_S = 15 * 60
# Longer than any password check. What is pending for longer belonged to a killed process, and counts as failed:
# else killing workers would be a way to guess on.
PENDING_S = 30

# `recent` are the failures that still count, `checking` the attempts whose password is being checked now.
_STATE = """
    SELECT
        ARRAY(
            SELECT at FROM unnest(seen.failed_at) AS at WHERE at > now() - %(window)s * interval '1 second'
            UNION ALL
            SELECT value::timestamptz FROM jsonb_each_text(seen.pending)
            WHERE key <> %(attempt)s AND value::timestamptz <= now() - %(patience)s * interval '1 second'
                AND value::timestamptz > now() - %(window)s * interval '1 second'
        ) AS recent,
        (
            SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each_text(seen.pending)
            WHERE value::timestamptz > now() - %(patience)s * interval '1 second'
        ) AS checking
"""

_ADMIT = f"""
INSERT INTO login_attempts AS seen (email_hash, pending, updated_at)
VALUES (%(email)s, jsonb_build_object(%(attempt)s::text, now()), now())
ON CONFLICT (email_hash) DO UPDATE SET (failed_at, pending, locked_until, updated_at) = (
    SELECT
        CASE WHEN seen.locked_until > now() THEN seen.failed_at
            WHEN cardinality(recent) >= %(most)s THEN '{{}}' ELSE recent END,
        CASE WHEN seen.locked_until > now() THEN seen.pending
            WHEN cardinality(recent) + (SELECT count(*) FROM jsonb_object_keys(checking)) >= %(most)s THEN checking
            ELSE checking || jsonb_build_object(%(attempt)s::text, now()) END,
        CASE WHEN seen.locked_until > now() THEN seen.locked_until
            WHEN cardinality(recent) >= %(most)s THEN now() + %(lock)s * interval '1 second' END,
        now()
    FROM ({_STATE}) AS state
)
RETURNING jsonb_exists(pending, %(attempt)s::text),
    ceil(extract(epoch FROM locked_until - now()))::integer
"""  # noqa: S608  (both parts are constants)

# An attempt that is no longer pending was already counted as failed; one that ends in a lock adds nothing to it.
_FAILED = f"""
UPDATE login_attempts AS seen SET (failed_at, pending, locked_until, updated_at) = (
    SELECT
        CASE WHEN NOT counts THEN seen.failed_at
            WHEN cardinality(recent) + 1 >= %(most)s THEN '{{}}' ELSE recent || now() END,
        CASE WHEN counts THEN checking ELSE seen.pending END - %(attempt)s::text,
        CASE WHEN counts AND cardinality(recent) + 1 >= %(most)s
            THEN now() + %(lock)s * interval '1 second' ELSE seen.locked_until END,
        now()
    FROM ({_STATE}) AS state,
        LATERAL (
            SELECT jsonb_exists(seen.pending, %(attempt)s::text)
                AND coalesce(seen.locked_until <= now(), true) AS counts
        ) AS verdict
)
WHERE email_hash = %(email)s
RETURNING coalesce(locked_until = now() + %(lock)s * interval '1 second', false)
"""  # noqa: S608  (both parts are constants)

_SUCCEEDED = """
UPDATE login_attempts SET failed_at = '{}', pending = pending - %(attempt)s::text, updated_at = now()
WHERE email_hash = %(email)s
"""

_TAKEN_BACK = """
UPDATE login_attempts SET pending = pending - %(attempt)s::text, updated_at = now() WHERE email_hash = %(email)s
"""


class Attempt:
    """One admitted login attempt, counted as pending until it is settled."""

    def __init__(self, email_key: str) -> None:
        """Counts the attempt. Raises Problem `account_locked`, or `rate_limited` when too many are being checked."""
        self._values = {
            "email": hashlib.sha256(email_key.encode()).digest(),
            "attempt": str(uuid.uuid4()),
            "most": MAX_FAILURES,
            "window": WINDOW_S,
            "lock": LOCK_S,
            "patience": PENDING_S,
        }
        admitted, seconds_left = db.execute_sql(_ADMIT, self._values).fetchone()
        if seconds_left is not None:
            metrics.logins.labels("locked").inc()
            raise Problem("account_locked", after_s=seconds_left)
        if not admitted:
            metrics.logins.labels("busy").inc()
            raise Problem("rate_limited", after_s=1)

    def settle(self, right: bool) -> None:
        """A right password starts the count again; the fifth wrong one within 15 minutes locks the email."""
        if right:
            db.execute_sql(_SUCCEEDED, self._values)
        elif any(locked for (locked,) in db.execute_sql(_FAILED, self._values)):
            metrics.lockouts.inc()
        metrics.logins.labels("succeeded" if right else "failed").inc()

    def take_back(self) -> None:
        """The password was never checked."""
        db.execute_sql(_TAKEN_BACK, self._values)


@contextlib.contextmanager
def admitted(email_key: str) -> Iterator[Attempt]:
    """An attempt whose password is checked inside the block, and settled after it.

    An error inside takes it back: the password was not checked. One that is never settled counts as failed.
    """
    attempt = Attempt(email_key)
    try:
        yield attempt
    except Exception:
        with contextlib.suppress(Exception):  # the first error tells more
            attempt.take_back()
        raise
