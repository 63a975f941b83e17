"""The outbox: which deliveries are to be made, who makes one, and what came of it.

Each function is one statement, so one transaction. A worker that dies in between leaves a delivery whose lease ends:
each event is delivered at least once, always under the same webhook-id.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from orders_api.db import db, retried

# After the last failure, in seconds: Standard Webhooks' own example, 3 days and 3 hours in all.
_MINUTE, _HOUR = 60, 3600
SCHEDULE_S = (0, 5, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR)
JITTER = 0.2  # more, at the most: receivers that fell together should not be hit together
LEASE = timedelta(seconds=60)  # longer than an attempt may take, looking up the name included
GIVE_UP_AFTER = timedelta(days=5)  # of nothing but failures an endpoint is disabled
PER_USER = 4  # attempts at a time in one worker: a receiver that hangs keeps nobody else waiting
EVENTS_AT_ONCE, ENDPOINTS_AT_ONCE, LOOK_AT = 1000, 100, 1000
GONE = 410

_FAN_OUT = """
    WITH behind AS (
        SELECT e.user_id, e.id, e.event_types, e.dispatched_sequence AS after,
            least(f.last_sequence, e.dispatched_sequence + %(events)s) AS upto
        FROM webhook_endpoints e JOIN feeds f ON f.user_id = e.user_id
        WHERE e.dispatched_sequence < f.last_sequence AND e.disabled_at IS NULL
        LIMIT %(endpoints)s FOR UPDATE OF e SKIP LOCKED
    ),
    made AS (
        INSERT INTO webhook_deliveries (user_id, endpoint_id, sequence, next_attempt_at, created_at)
        SELECT b.user_id, b.id, ev.sequence, now(), now()
        FROM behind b JOIN order_events ev ON ev.user_id = b.user_id AND ev.sequence > after AND ev.sequence <= upto
        WHERE ev.type = ANY(b.event_types)
        ON CONFLICT DO NOTHING
    )
    UPDATE webhook_endpoints e SET dispatched_sequence = b.upto FROM behind b
    WHERE e.user_id = b.user_id AND e.id = b.id
"""

_CLAIM = """
    WITH due AS (
        SELECT user_id, endpoint_id, sequence, row_number() OVER (PARTITION BY user_id ORDER BY next_attempt_at) AS nth
        FROM (
            SELECT d.user_id, d.endpoint_id, d.sequence, d.next_attempt_at
            FROM webhook_deliveries d JOIN webhook_endpoints e ON e.user_id = d.user_id AND e.id = d.endpoint_id
            WHERE d.state = 'pending' AND d.next_attempt_at <= now() AND e.disabled_at IS NULL
                AND d.user_id <> ALL(%(busy)s)
            ORDER BY d.next_attempt_at LIMIT %(look_at)s
        ) AS first
    ),
    picked AS (
        SELECT d.user_id, d.endpoint_id, d.sequence
        FROM webhook_deliveries d JOIN due USING (user_id, endpoint_id, sequence)
        WHERE nth <= %(per_user)s AND d.state = 'pending' AND d.next_attempt_at <= now()
        ORDER BY d.next_attempt_at LIMIT %(most)s FOR UPDATE OF d SKIP LOCKED
    ),
    claimed AS (
        UPDATE webhook_deliveries d SET attempts = attempts + 1, next_attempt_at = now() + %(lease)s FROM picked p
        WHERE d.user_id = p.user_id AND d.endpoint_id = p.endpoint_id AND d.sequence = p.sequence
        RETURNING d.user_id, d.endpoint_id, d.sequence, d.attempts, d.step
    )
    SELECT c.*, e.url, e.secret, CASE WHEN e.previous_until > now() THEN e.previous_secret END,
        ev.type, ev.order_id, ev.data, ev.trace_id, ev.created_at
    FROM claimed c
    JOIN webhook_endpoints e ON e.user_id = c.user_id AND e.id = c.endpoint_id
    JOIN order_events ev ON ev.user_id = c.user_id AND ev.sequence = c.sequence
"""

_TRIED = """
    tried AS (
        INSERT INTO webhook_delivery_attempts
            (user_id, endpoint_id, sequence, number, began_at, duration_ms, status, error)
        SELECT user_id, endpoint_id, sequence, %(number)s, %(began_at)s, %(duration_ms)s, %(status)s, %(error)s
        FROM webhook_deliveries
        WHERE user_id = %(user_id)s AND endpoint_id = %(endpoint_id)s AND sequence = %(sequence)s
        ON CONFLICT DO NOTHING
    )
"""

_DELIVERED = f"""
    WITH {_TRIED},
    done AS (
        UPDATE webhook_deliveries SET state = 'delivered'
        WHERE user_id = %(user_id)s AND endpoint_id = %(endpoint_id)s AND sequence = %(sequence)s
    )
    UPDATE webhook_endpoints SET failing_since = NULL
    WHERE user_id = %(user_id)s AND id = %(endpoint_id)s AND failing_since IS NOT NULL
"""  # noqa: S608  (constants)

# Only the last attempt decides: another may have been begun since, because this one's lease had ended.
_FAILED = f"""
    WITH {_TRIED},
    postponed AS (
        UPDATE webhook_deliveries SET step = step + 1, next_attempt_at = now() + %(delay)s,
            state = CASE WHEN %(last)s THEN 'failed' ELSE 'pending' END
        WHERE user_id = %(user_id)s AND endpoint_id = %(endpoint_id)s AND sequence = %(sequence)s
            AND state = 'pending' AND attempts = %(number)s
    )
    UPDATE webhook_endpoints SET failing_since = coalesce(failing_since, now()),
        disabled_at = CASE WHEN %(gone)s OR failing_since < now() - %(give_up_after)s THEN now() END,
        disabled_reason = CASE WHEN %(gone)s THEN 'gone'
            WHEN failing_since < now() - %(give_up_after)s THEN 'failing' END
    WHERE user_id = %(user_id)s AND id = %(endpoint_id)s AND disabled_at IS NULL
"""  # noqa: S608  (constants)


class Job(NamedTuple):
    """One attempt that is ours to make."""

    user_id: UUID
    endpoint_id: UUID
    sequence: int
    number: int
    step: int
    url: str
    secret: bytes
    previous_secret: bytes | None
    type: str
    order_id: UUID
    data: dict[str, Any]
    trace_id: str
    happened_at: datetime

    @property
    def webhook_id(self) -> str:
        """The same on every attempt, and nobody else's."""
        return f"msg_{self.endpoint_id.hex}_{self.sequence}"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an attempt. `status`: None where there was no answer; then `error` says why."""

    began_at: datetime
    duration_ms: int
    status: int | None = None
    error: str | None = None

    @property
    def delivered(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@retried
def fan_out() -> int:
    """Makes the deliveries of what has happened since the last time; returns how many endpoints went on."""
    return db.execute_sql(_FAN_OUT, {"events": EVENTS_AT_ONCE, "endpoints": ENDPOINTS_AT_ONCE}).rowcount


@retried
def claim(most: int, busy: list[UUID]) -> list[Job]:
    """Takes up to `most` attempts that are due, none of them of the `busy` users."""
    values = {"most": most, "busy": busy, "lease": LEASE, "per_user": PER_USER, "look_at": LOOK_AT}
    return [Job._make(row) for row in db.execute_sql(_CLAIM, values).fetchall()]


@retried
def record(job: Job, result: Result) -> None:
    """Writes the attempt down, and when the next one is due if it failed."""
    last = job.step + 1 >= len(SCHEDULE_S)
    delay_s = 0 if last else SCHEDULE_S[job.step + 1] * random.uniform(1, 1 + JITTER)  # noqa: S311
    values = {
        "user_id": job.user_id,
        "endpoint_id": job.endpoint_id,
        "sequence": job.sequence,
        "number": job.number,
        "began_at": result.began_at,
        "duration_ms": result.duration_ms,
        "status": result.status,
        "error": result.error,
    }
    if result.delivered:
        db.execute_sql(_DELIVERED, values)
        return
    fate = {"delay": timedelta(seconds=delay_s), "last": last or result.status == GONE, "gone": result.status == GONE}
    db.execute_sql(_FAILED, {**values, **fate, "give_up_after": GIVE_UP_AFTER})
