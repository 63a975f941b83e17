"""What can be done with an account: register, log in, and what sessions.py does with the session from there."""

import contextlib
import functools
import uuid

from peewee import IntegrityError

from orders_api.accounts import emails
from orders_api.accounts.lockout import admitted
from orders_api.accounts.models import Feed, User
from orders_api.accounts.passwords import Passwords
from orders_api.accounts.sessions import (
    OpenSession,
    expire_sessions,
    identify,
    log_out,
    open_session,
    refresh,
)
from orders_api.db import db, sqlstate, transactional
from orders_api.errors import Problem
from orders_api.values import new_id, now

__all__ = ["OpenSession", "expire_sessions", "identify", "log_in", "log_out", "refresh", "register", "user_of"]

UNIQUE_VIOLATION = "23505"

_default_passwords = functools.cache(Passwords)


def register(email: str, password: str, passwords: Passwords | None = None) -> User:
    """Creates the user and its event counter in one transaction. Raises Problem `email_taken`."""
    key = emails.key_of(email)
    if User.select(User.id).where(User.email_key == key).exists():
        raise Problem("email_taken")
    db.release()
    hashed = (passwords or _default_passwords()).hash(password)
    try:
        return _create_user(emails.normalised(email), key, hashed)
    except IntegrityError as e:
        if sqlstate(e) == UNIQUE_VIOLATION:
            raise Problem("email_taken") from None
        raise


@transactional
def _create_user(email: str, key: str, hashed: str) -> User:
    user = User.create(id=new_id(), email=email, email_key=key, password_hash=hashed, created_at=now())
    Feed.create(user=user.id)
    return user


def log_in(email: str, password: str, passwords: Passwords) -> OpenSession:
    """Opens a session. Raises Problem `credentials_invalid`, `account_locked` or `rate_limited`.

    Four statements, each atomic by itself, and no connection held while the password is checked.
    """
    key = emails.key_of(email)
    with admitted(key) as attempt:
        user = _authenticated(key, password, passwords)
    attempt.settle(right=user is not None)
    if user is None:
        raise Problem("credentials_invalid")
    session = open_session(user.id)
    _rehash_if_outdated(user, password, passwords)
    return session


def _authenticated(key: str, password: str, passwords: Passwords) -> User | None:
    user: User | None = User.get_or_none(User.email_key == key)
    db.release()
    return user if passwords.verify(password, user.password_hash if user else None) else None


def _rehash_if_outdated(user: User, password: str, passwords: Passwords) -> None:
    """Brings the hash to today's cost: an older one would answer faster than an unknown email."""
    if not passwords.is_outdated(user.password_hash):
        return
    db.release()
    with contextlib.suppress(Problem):  # no turn for it now: at the next login then
        renewed = passwords.hash(password)
        User.update(password_hash=renewed).where(User.id == user.id, User.password_hash == user.password_hash).execute()


def user_of(user_id: uuid.UUID) -> User:
    """Raises Problem `token_invalid`: the account was deleted while a token of it still worked."""
    user = User.get_or_none(User.id == user_id)
    if user is None:
        raise Problem("token_invalid")
    return user
