"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header): a repeated request gets the first answer again.

The key is claimed, and the answer stored, in the transaction of what the request does; it dies with it.
"""

import functools
import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import falcon
from peewee import BlobField, CompositeKey, SmallIntegerField, TextField, UUIDField
from playhouse.postgres_ext import DateTimeTZField

from orders_api import metrics
from orders_api.admission import caller, in_flight
from orders_api.db import BaseModel, db
from orders_api.errors import Problem
from orders_api.reporting import span
from orders_api.values import fingerprint, now
from orders_api.web import bodies
from orders_api.web.resources import PRIVATE

WAIT_S = 2.0
POLL_S = 0.025
ANSWERS_KEPT = timedelta(hours=72)
TOMBSTONES_KEPT = timedelta(days=30)
REAP_BATCH = 1000

_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')  # RFC 9651, section 3.3.3
_KEY = re.compile(r"[\x20-\x7e]{1,255}")

# Refused locks and taken keys both give no row; neither waits while it holds a connection.
_CLAIM = """
    INSERT INTO idempotency_keys
        (user_id, route, key, fingerprint, order_id, status, location, etag, body, trace_id, created_at)
    SELECT %(claim_user_id)s, %(claim_route)s, %(claim_key)s, %(claim_fingerprint)s, %(claim_order_id)s,
        %(claim_status)s, %(claim_location)s, %(claim_etag)s, %(claim_body)s, %(claim_trace_id)s, %(claim_created_at)s
    WHERE pg_try_advisory_xact_lock(%(claim_lock)s)
    ON CONFLICT DO NOTHING RETURNING 1
"""


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A response as it is stored: `body` byte for byte."""

    status: int
    location: str
    etag: str
    body: bytes


class IdempotencyKey(BaseModel):
    user_id = UUIDField()
    route = TextField()
    key = TextField()
    fingerprint = BlobField()
    order_id = UUIDField()
    status = SmallIntegerField()
    location = TextField()
    etag = TextField()
    body = BlobField(null=True)
    trace_id = TextField()
    created_at = DateTimeTZField()

    class Meta:
        table_name = "idempotency_keys"
        primary_key = CompositeKey("user_id", "route", "key")

    @property
    def expires_at(self) -> datetime:
        return self.created_at + ANSWERS_KEPT

    @property
    def state(self) -> str:
        return "expired" if self.body is None or now() >= self.expires_at else "completed"


class Answered(Exception):  # noqa: N818
    """The key was used before."""

    def __init__(self, stored: IdempotencyKey) -> None:
        self.stored = stored


class Busy(Exception):  # noqa: N818
    """Another request holds the key and has not committed."""


@dataclass
class Claim:
    """One request's claim on its key. `document` is the parsed body; `answer` what was stored with the claim."""

    user_id: UUID
    route: str
    key: str
    document: Any
    fingerprint: bytes
    trace_id: str
    answer: StoredAnswer | None = None

    @classmethod
    def of(cls, req: falcon.Request) -> "Claim":
        """Raises what is wrong with the body as JSON, then what is wrong with the key."""
        document = bodies.json_of(req)
        header = req.get_header("Idempotency-Key")
        if header is None:
            raise Problem("idempotency_key_missing")
        route = f"{req.method} {req.uri_template}"
        return cls(
            req.context.user_id,
            route,
            parse_key(header.strip(" \t")),
            document,
            fingerprint(document),
            req.context.trace_id,
        )

    def sql(self, order_id: UUID, answer: StoredAnswer) -> tuple[str, dict[str, Any]]:
        """A statement that gives a row if the key is ours now, and stores the answer; and its parameters."""
        self.answer = answer
        return _CLAIM, {
            "claim_user_id": self.user_id,
            "claim_route": self.route,
            "claim_key": self.key,
            "claim_fingerprint": self.fingerprint,
            "claim_order_id": order_id,
            "claim_status": answer.status,
            "claim_location": answer.location,
            "claim_etag": answer.etag,
            "claim_body": answer.body,
            "claim_trace_id": self.trace_id,
            "claim_created_at": now(),
            "claim_lock": self._lock(),
        }

    def check_taken(self, taken: bool) -> None:
        """Raises Answered or Busy when the claim gave no row."""
        if taken:
            return
        # A statement of its own: the claim can't see what was committed after it began.
        stored = find_key(self.user_id, self.route, self.key)
        raise Answered(stored) if stored else Busy

    def _lock(self) -> int:
        name = f"{self.user_id}|{self.route}|{self.key}".encode()
        return int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True)

    def replay(self, stored: IdempotencyKey, resp: falcon.Response) -> None:
        """Answers as the first time. Raises idempotency_key_expired and idempotency_key_reused."""
        if stored.state == "expired":
            link = f'<{stored.location}>; rel="related"'
            raise Problem("idempotency_key_expired", headers={"Link": link, "Location": stored.location})
        if bytes(stored.fingerprint) != self.fingerprint:
            raise Problem("idempotency_key_reused")
        assert stored.body is not None, "only an expired answer has none"
        _write(resp, StoredAnswer(stored.status, stored.location, stored.etag, bytes(stored.body)))
        resp.set_header("Idempotent-Replayed", "true")
        resp.set_header("Idempotent-Original-Trace-Id", stored.trace_id)
        metrics.replays.inc()


def idempotent(responder: Callable[..., None]) -> Callable[..., None]:
    """Gives the responder a Claim to take with what it writes; answers what was stored with it, now or before.

    Who waits for a key that is being used holds no database connection.
    """

    @functools.wraps(responder)
    def respond(self: Any, req: falcon.Request, resp: falcon.Response, **params: Any) -> None:
        claim = Claim.of(req)
        deadline = time.monotonic() + WAIT_S
        who = caller.get()
        while True:
            try:
                responder(self, req, resp, claim=claim, **params)
                assert claim.answer is not None, "the responder takes its claim"
                _write(resp, claim.answer)
            except Answered as e:
                claim.replay(e.stored, resp)
            except Busy:
                db.release()
                if time.monotonic() > deadline:
                    raise Problem("idempotency_key_in_progress", after_s=1) from None
                with span("wait", "an idempotency key"), in_flight.aside():
                    time.sleep(POLL_S)
                caller.set(who)  # a poll's short waits for places are no sign that it will get none
                continue
            except Problem as problem:
                _prefer_stored(claim, problem, resp)
            return

    return respond


def _prefer_stored(claim: Claim, problem: Problem, resp: falcon.Response) -> None:
    """A body that is not valid is still compared with the one that the key was used for."""
    stored = find_key(claim.user_id, claim.route, claim.key) if problem.code == "validation_failed" else None
    if stored is None:
        raise problem
    claim.replay(stored, resp)


def _write(resp: falcon.Response, answer: StoredAnswer) -> None:
    resp.status = answer.status
    resp.set_headers(PRIVATE)
    resp.set_header("Location", answer.location)
    resp.set_header("ETag", answer.etag)
    resp.data = answer.body


def parse_key(header: str) -> str:
    """The key, bare or as a quoted string: 1 to 255 printable ASCII characters. Raises idempotency_key_invalid."""
    key = _unquoted(header)
    unbalanced = key is None and (header.startswith('"') or header.count('"') % 2)
    if unbalanced or not _KEY.fullmatch(header if key is None else key):
        raise Problem("idempotency_key_invalid")
    return header if key is None else key


def _unquoted(text: str) -> str | None:
    quoted = _QUOTED.fullmatch(text)
    return re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else None


def look_up(user_id: UUID, route: str, text: str) -> IdempotencyKey:
    """By the key itself, or by the quoted string that spelled it. Raises idempotency_key_not_found."""
    for key in (text, _unquoted(text)):
        if key is not None and _KEY.fullmatch(key) and (stored := find_key(user_id, route, key)):
            return stored
    raise Problem("idempotency_key_not_found")


def find_key(user_id: UUID, route: str, key: str) -> IdempotencyKey | None:
    """What was committed under a key."""
    return IdempotencyKey.get_or_none(
        IdempotencyKey.user_id == user_id, IdempotencyKey.route == route, IdempotencyKey.key == key
    )


def expire_keys() -> int:
    """Turns answers older than 72 hours into tombstones, and forgets those after 30 days more, in short batches."""
    gone = _in_batches(
        "UPDATE idempotency_keys SET body = NULL WHERE (user_id, route, key) IN (SELECT user_id, route, key"
        " FROM idempotency_keys WHERE body IS NOT NULL AND created_at < %s ORDER BY created_at LIMIT %s)",
        now() - ANSWERS_KEPT,
    )
    return gone + _in_batches(
        "DELETE FROM idempotency_keys WHERE (user_id, route, key) IN (SELECT user_id, route, key"
        " FROM idempotency_keys WHERE created_at < %s ORDER BY created_at LIMIT %s)",
        now() - ANSWERS_KEPT - TOMBSTONES_KEPT,
    )


def _in_batches(sql: str, before: datetime) -> int:
    total = 0
    while count := db.execute_sql(sql, (before, REAP_BATCH)).rowcount:
        total += count
    return total
