"""Sessions: open, refresh, log out, identify, expire."""

import uuid
from dataclasses import dataclass
from typing import Any, NamedTuple

from orders_api.accounts.lockout import LOCK_S, WINDOW_S
from orders_api.accounts.models import Session
from orders_api.accounts.tokens import (
    REFRESH_LIFETIME_S,
    AccessTokens,
    new_refresh_token,
    parse_refresh_token,
)
from orders_api.cache import Kind, Lookup, Scope, cache
from orders_api.db import db, transactional
from orders_api.errors import Problem
from orders_api.memcached import Batch
from orders_api.values import new_id, now

# How long a closed session's access tokens may go on working where memcached was not told; the contract says 30 s.
SESSIONS = Kind("session", soft_s=10, hard_s=15)
OPEN = "open"
REFRESH_GRACE_S = 10  # a client whose answer was lost, or whose tabs refresh at once, tries again within this
EXPIRY_BATCH = 1000


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session with the refresh token that is handed out once."""

    user_id: uuid.UUID
    id: uuid.UUID
    refresh_token: str


def open_session(user_id: uuid.UUID) -> OpenSession:
    """A new session with its first refresh token, in one statement."""
    text, token_hash = new_refresh_token(user_id)
    session_id = new_id()
    db.execute_sql(
        """
        WITH opened AS (INSERT INTO sessions (user_id, id, created_at) VALUES (%(user)s, %(session)s, now()))
        INSERT INTO refresh_tokens (user_id, token_hash, session_id, created_at, expires_at)
        VALUES (%(user)s, %(hash)s, %(session)s, now(), now() + %(lifetime)s * interval '1 second')
        """,
        {"user": user_id, "session": session_id, "hash": token_hash, "lifetime": REFRESH_LIFETIME_S},
    )
    _remember_open(user_id, session_id)
    return OpenSession(user_id, session_id, text)


def refresh(refresh_token: str) -> OpenSession:
    """Spends the token for a new one of the same session. Raises Problem `refresh_token_invalid`.

    A token spent less than 10 s ago is taken as a retry; one spent earlier was stolen, or its thief was first:
    the whole session ends, and that is committed before the refusal.
    """
    parsed = parse_refresh_token(refresh_token)
    if parsed is None:
        raise Problem("refresh_token_invalid")
    user_id, spent_hash = parsed
    text, new_hash = new_refresh_token(user_id)
    session_id, alive = _rotate(user_id, spent_hash, new_hash)
    if not alive:
        if session_id is not None:
            _fence(user_id, session_id)
        raise Problem("refresh_token_invalid")
    _remember_open(user_id, session_id)
    return OpenSession(user_id, session_id, text)


@transactional
def _rotate(user_id: uuid.UUID, spent_hash: bytes, new_hash: bytes) -> tuple[Any, bool]:
    """The token's session, and whether it goes on with the new token."""
    found = db.execute_sql(
        """
        SELECT s.id, s.revoked_at IS NULL, t.expires_at > now(),
            t.spent_at IS NOT NULL AND t.spent_at <= now() - %s * interval '1 second'
        FROM refresh_tokens t JOIN sessions s ON s.user_id = t.user_id AND s.id = t.session_id
        WHERE t.user_id = %s AND t.token_hash = %s FOR UPDATE
        """,
        (REFRESH_GRACE_S, user_id, spent_hash),
    ).fetchone()
    if found is None:
        return None, False
    session_id, open_, current, reused = found
    if open_ and reused:
        _revoke(user_id, session_id)
    if not open_ or reused or not current:
        return session_id, False
    db.execute_sql(
        """
        WITH spent AS (
            UPDATE refresh_tokens SET spent_at = coalesce(spent_at, now())
            WHERE user_id = %(user)s AND token_hash = %(spent)s
        )
        INSERT INTO refresh_tokens (user_id, token_hash, session_id, created_at, expires_at)
        VALUES (%(user)s, %(hash)s, %(session)s, now(), now() + %(lifetime)s * interval '1 second')
        """,
        {
            "user": user_id,
            "spent": spent_hash,
            "hash": new_hash,
            "session": session_id,
            "lifetime": REFRESH_LIFETIME_S,
        },
    )
    return session_id, True


def log_out(user_id: uuid.UUID, session_id: uuid.UUID) -> None:
    """Ends the session: its tokens stop working here at once, everywhere within 15 s."""
    try:
        _revoke(user_id, session_id)
    finally:  # perhaps it was committed, whatever was raised
        _fence(user_id, session_id)


def _revoke(user_id: uuid.UUID, session_id: uuid.UUID) -> None:
    """One who calls this sets the fence once more after COMMIT: a flush may have taken it."""
    _fence(user_id, session_id)
    Session.update(revoked_at=now()).where(
        Session.user == user_id, Session.id == session_id, Session.revoked_at.is_null()
    ).execute()


class Identity(NamedTuple):
    """Whose a verified access token is."""

    user_id: uuid.UUID
    session_id: uuid.UUID
    home: str
    lookup: Lookup

    def check_open(self) -> None:
        """Raises Problem `token_invalid` when the session has ended."""
        self.lookup.value(self._load_open)

    def _load_open(self) -> bytes:
        # Once in 10 s for each session that is used: built by Peewee it was 4 % of the time of all POST /orders.
        sql = "SELECT 1 FROM sessions WHERE user_id = %s AND id = %s AND revoked_at IS NULL"
        open_ = db.execute_sql(sql, (self.user_id, self.session_id)).fetchone()
        db.release()
        if open_ is None:
            raise Problem("token_invalid")
        return b""


def identify(tokens: AccessTokens, text: str, batch: Batch) -> Identity:
    """Whose the token is; asks about its session in the batch. Raises Problem `token_invalid` or `token_expired`."""
    claims = tokens.verify(text)
    lookup = cache.look_up(batch, _scope(claims.home, claims.session_id), OPEN)
    return Identity(claims.user_id, claims.session_id, claims.home, lookup)


def _scope(home: str, session_id: uuid.UUID) -> Scope:
    return SESSIONS.scope(home, str(session_id))


def _fence(user_id: uuid.UUID, session_id: uuid.UUID) -> None:
    cache.fence(_scope(str(user_id), session_id))  # never lifted: there is nothing left to remember


def _remember_open(user_id: uuid.UUID, session_id: uuid.UUID) -> None:
    cache.remember(_scope(str(user_id), session_id), OPEN, b"")


def expire_sessions() -> int:
    """Deletes what is of no use any more, 1,000 rows a transaction; returns how many rows.

    Refresh tokens a day after their expiry, the sessions that lost their last token with it, and lockouts long over.
    """
    total = 0
    for expire in (_expire_tokens, _expire_attempts):
        while deleted := expire():
            total += deleted
    return total


@transactional
def _expire_tokens() -> int:
    tokens = db.execute_sql(
        """
        DELETE FROM refresh_tokens WHERE (user_id, token_hash) IN (
            SELECT user_id, token_hash FROM refresh_tokens WHERE expires_at < now() - interval '1 day'
            ORDER BY expires_at LIMIT %s
        ) RETURNING user_id, session_id
        """,
        (EXPIRY_BATCH,),
    ).fetchall()
    if not tokens:
        return 0
    # A statement of its own: the first one's own snapshot still has the tokens.
    sessions = db.execute_sql(
        """
        DELETE FROM sessions s USING unnest(%s::uuid[], %s::uuid[]) AS emptied (user_id, id)
        WHERE s.user_id = emptied.user_id AND s.id = emptied.id AND NOT EXISTS (
            SELECT FROM refresh_tokens t WHERE t.user_id = s.user_id AND t.session_id = s.id
        )
        """,
        ([user_id for user_id, _ in tokens], [session_id for _, session_id in tokens]),
    )
    return len(tokens) + sessions.rowcount


def _expire_attempts() -> int:
    return db.execute_sql(
        """
        DELETE FROM login_attempts WHERE email_hash IN (
            SELECT email_hash FROM login_attempts WHERE updated_at < now() - %s * interval '1 second'
            ORDER BY updated_at LIMIT %s FOR UPDATE SKIP LOCKED
        )
        """,
        (WINDOW_S + LOCK_S, EXPIRY_BATCH),
    ).rowcount
