"""Frozen settings: the only reader of the environment. A bad value stops the start with one sentence that names it."""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self
from urllib.parse import urlsplit

import limits
import psycopg.conninfo
from sentry_sdk.utils import Dsn

MIN_KEY_BYTES = 32  # RFC 7518, 3.2: a key for HS256 has at least the size of its hash
MIN_WEBHOOK_SECRET_BYTES = 24  # Standard Webhooks: between 24 and 64 bytes
MAX_WINDOW_S = 30 * 24 * 3600  # memcached takes a longer time to live for a date in 1970
MIN_METRICS_TOKEN_CHARACTERS = 16  # what is guessed over the network, not on a stolen hash
MIN_PRODUCTION_BCRYPT_ROUNDS = 10  # OWASP Password Storage Cheat Sheet


class SettingError(Exception):
    """One sentence that names the setting, and never its value."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} {why}.")


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a ring."""

    kid: str
    secret: bytes


Ring = tuple[Key, ...]


@dataclass(frozen=True)
class Settings:
    """CONTRACT 10, parsed. Field names are the settings' names in lower case."""

    environment: str
    port: int
    web_concurrency: int
    database_url: str
    database_pool_size: int
    database_prepare_threshold: int | None
    memcached_servers: tuple[tuple[str, int], ...]
    jwt_keys: Ring
    cursor_keys: Ring
    webhook_secrets: tuple[bytes, ...]
    webhook_allow_private: bool
    bcrypt_rounds: int
    rate_limit_ip: limits.RateLimitItem
    rate_limit_user: limits.RateLimitItem
    rate_limit_auth: limits.RateLimitItem
    trusted_proxy_hops: int
    metrics_token: str | None
    sentry_dsn: str | None
    sentry_traces_rate: float
    release: str | None
    server_timing: bool
    cors_origins: tuple[str, ...]

    @cached_property
    def production(self) -> bool:
        return self.environment == "production"

    @cached_property
    def cursor_keys_are_derived(self) -> bool:
        """They were not given, so they change with JWT_KEYS."""
        return self.cursor_keys == _derived(self.jwt_keys, b"cursor")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Reads every setting. Raises SettingError for the first that is missing, malformed or too weak."""
        environment = _one_of("production", "development")(environ.get("ENVIRONMENT") or "production", "ENVIRONMENT")
        values: dict[str, Any] = {"environment": environment}
        for name, (default, parse) in _TABLE.items():
            raw = (environ.get(name) or default).strip()
            values[name.lower()] = parse(raw, name) if raw else _EMPTY.get(name)
        values["server_timing"] = values["server_timing"] or (
            environment == "development" and not environ.get("SERVER_TIMING")
        )
        values["cursor_keys"] = values["cursor_keys"] or _derived(values["jwt_keys"], b"cursor")
        settings = cls(**{field.name: values[field.name] for field in fields(cls)})
        settings._refuse_what_is_missing()
        if settings.production:
            settings._refuse_what_is_weak()
        return settings

    def _refuse_what_is_missing(self) -> None:
        for name in ("DATABASE_URL", "JWT_KEYS"):
            if not getattr(self, name.lower()):
                raise SettingError(
                    name, "is not set, and there is no safe default (`make run` makes one for development)"
                )

    def _refuse_what_is_weak(self) -> None:
        if not self.memcached_servers:
            raise SettingError(
                "MEMCACHED_SERVERS", "is not set: production counts limits over all processes, not in each"
            )
        if self.bcrypt_rounds < MIN_PRODUCTION_BCRYPT_ROUNDS:
            raise SettingError("BCRYPT_ROUNDS", f"must be at least {MIN_PRODUCTION_BCRYPT_ROUNDS} in production")
        if self.webhook_allow_private:
            raise SettingError("WEBHOOK_ALLOW_PRIVATE", "is for development alone: users could reach our own network")
        if self.metrics_token and len(self.metrics_token) < MIN_METRICS_TOKEN_CHARACTERS:
            raise SettingError("METRICS_TOKEN", f"must have at least {MIN_METRICS_TOKEN_CHARACTERS} characters")
        if any(len(secret) < MIN_WEBHOOK_SECRET_BYTES for secret in self.webhook_secrets):
            raise SettingError("WEBHOOK_SECRETS", f"holds a secret shorter than {MIN_WEBHOOK_SECRET_BYTES} bytes")
        for name in ("JWT_KEYS", "CURSOR_KEYS", "WEBHOOK_SECRETS"):
            ring = getattr(self, name.lower())
            secrets = [entry.secret if isinstance(entry, Key) else entry for entry in ring]
            if any(len(set(secret)) < 8 for secret in secrets):
                raise SettingError(name, "holds a secret that is no secret: almost all of its bytes are the same")


Parser = Callable[[str, str], Any]


def _integer(low: int, high: int) -> Parser:
    def parse(raw: str, name: str) -> int:
        if not re.fullmatch(r"\d{1,9}", raw, re.ASCII) or not low <= int(raw) <= high:
            raise SettingError(name, f"must be a whole number from {low} to {high}")
        return int(raw)

    return parse


def _fraction(raw: str, name: str) -> float:
    if not re.fullmatch(r"0|1|[01]?\.\d{1,9}", raw, re.ASCII) or float(raw) > 1:
        raise SettingError(name, "must be a number from 0 to 1")
    return float(raw)


def _one_of(*choices: str) -> Parser:
    def parse(raw: str, name: str) -> str:
        if raw not in choices:
            raise SettingError(name, f"must be {' or '.join(choices)}")
        return raw

    return parse


def _switch(raw: str, name: str) -> bool:
    return _one_of("0", "1")(raw, name) == "1"


def _text(raw: str, _name: str) -> str:
    return raw


def _header_token(raw: str, name: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", raw):
        raise SettingError(name, "must be printable ASCII without spaces, as it has to travel in a header")
    return raw


def _sentry_dsn(raw: str, name: str) -> str:
    try:
        Dsn(raw)
    except ValueError:  # BadDsn is one
        raise SettingError(name, "must be a DSN such as https://key@sentry.example/1") from None
    return raw


def _prepare_threshold(raw: str, name: str) -> int | None:
    return None if raw.lower() == "none" else _integer(0, 1_000_000)(raw, name)


def _database_url(raw: str, name: str) -> str:
    if not raw.startswith(("postgres://", "postgresql://")):
        raise SettingError(name, "must start with postgres:// or postgresql://")
    not_understood = SettingError(name, "is not a connection URL that PostgreSQL understands")
    try:
        parts = psycopg.conninfo.conninfo_to_dict(raw)
    except psycopg.ProgrammingError:
        raise not_understood from None
    # libpq looks at the ports only when it connects.
    if not re.fullmatch(r"(\d{1,5})?(,(\d{1,5})?)*", str(parts.get("port", "")), re.ASCII):
        raise not_understood
    return raw


def _servers(raw: str, name: str) -> tuple[tuple[str, int], ...]:
    servers = []
    for entry in raw.split(","):
        match = re.fullmatch(r"\s*(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})\s*", entry, re.ASCII)
        if not match or not 0 < int(match[2]) < 65536:
            raise SettingError(name, "must be a list of host:port, separated by commas")
        servers.append((match[1].strip("[]"), int(match[2])))
    return tuple(servers)


def _ring(raw: str, name: str) -> Ring:
    """`kid:base64url,…`; a key without a kid is named by its hash."""
    keys = []
    for entry in raw.split(","):
        kid, _, encoded = entry.strip().rpartition(":")
        secret = _decoded(encoded, name, b"-_")
        if len(secret) < MIN_KEY_BYTES:
            raise SettingError(name, f"holds a key shorter than {MIN_KEY_BYTES * 8} bits")
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,64}", kid, re.ASCII):
            raise SettingError(name, "must be a list of kid:base64url, separated by commas")
        keys.append(Key(kid or hashlib.sha256(secret).hexdigest()[:8], secret))
    if len({key.kid for key in keys}) < len(keys):
        raise SettingError(name, "names the same kid twice")
    return tuple(keys)


def _webhook_secrets(raw: str, name: str) -> tuple[bytes, ...]:
    secrets = []
    for entry in raw.split(","):
        prefix, _, encoded = entry.strip().partition("_")
        if prefix != "whsec" or not encoded:
            raise SettingError(name, "must be a list of whsec_<base64>, separated by commas")
        secrets.append(_decoded(encoded, name, b"+/"))
    return tuple(secrets)


def _decoded(encoded: str, name: str, last_two: bytes) -> bytes:
    """Base64, padded or not; `last_two` are the alphabet's characters 62 and 63."""
    bare = encoded.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), last_two, validate=True)
    except (binascii.Error, ValueError):
        raise SettingError(name, "holds an entry that can't be decoded") from None


def _derived(ring: Ring | None, purpose: bytes) -> Ring:
    """Keys of their own for another purpose (NIST SP 800-108, one block)."""
    return tuple(Key(key.kid, hmac.digest(key.secret, b"orders-api/" + purpose, "sha256")) for key in ring or ())


def _limit(raw: str, name: str) -> limits.RateLimitItem:
    try:
        (item,) = limits.parse_many(raw)
    except ValueError:
        raise SettingError(name, "must be one limit such as 6000/minute") from None
    if item.amount < 1:
        raise SettingError(name, "must allow at least one request")
    if item.get_expiry() > MAX_WINDOW_S:
        raise SettingError(name, "must have a window of at most 30 days")
    return item


def _origins(raw: str, name: str) -> tuple[str, ...]:
    origins = tuple(origin.strip() for origin in raw.split(","))
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}":
            raise SettingError(name, "must be a list of origins such as https://shop.example, separated by commas")
    return origins


_TABLE: dict[str, tuple[str, Parser]] = {
    "PORT": ("8000", _integer(1, 65535)),
    "WEB_CONCURRENCY": ("2", _integer(1, 256)),
    "DATABASE_URL": ("", _database_url),
    "DATABASE_POOL_SIZE": ("8", _integer(1, 1000)),
    "DATABASE_PREPARE_THRESHOLD": ("5", _prepare_threshold),
    "MEMCACHED_SERVERS": ("", _servers),
    "JWT_KEYS": ("", _ring),
    "CURSOR_KEYS": ("", _ring),
    "WEBHOOK_SECRETS": ("", _webhook_secrets),
    "WEBHOOK_ALLOW_PRIVATE": ("0", _switch),
    "BCRYPT_ROUNDS": ("12", _integer(4, 31)),
    "RATE_LIMIT_IP": ("12000/minute", _limit),
    "RATE_LIMIT_USER": ("6000/minute", _limit),
    "RATE_LIMIT_AUTH": ("120/minute", _limit),
    "TRUSTED_PROXY_HOPS": ("0", _integer(0, 16)),
    "METRICS_TOKEN": ("", _header_token),
    "SENTRY_DSN": ("", _sentry_dsn),
    "SENTRY_TRACES_RATE": ("0.1", _fraction),
    "RELEASE": ("", _text),
    "SERVER_TIMING": ("0", _switch),
    "CORS_ORIGINS": ("", _origins),
}
_EMPTY: dict[str, Any] = {
    "DATABASE_URL": "",
    "MEMCACHED_SERVERS": (),
    "JWT_KEYS": (),
    "CURSOR_KEYS": (),
    "WEBHOOK_SECRETS": (),
    "CORS_ORIGINS": (),
}
