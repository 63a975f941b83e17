"""How old each secret is: when this database first saw its fingerprint. The secrets themselves are kept nowhere."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.conninfo import conninfo_to_dict

from orders_api.pool import Connection, conninfo_with_defaults
from orders_api.settings import Ring, Settings

# A database's password may be weak: 50 ms and 16 MB a guess, for whoever gets hold of the table.
SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 16}
SALT = "salt"  # the row that migrations/0005 made
OLD = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Secret:
    """One configured secret: the setting, what it does there, and its public name if it has one."""

    setting: str
    use: str
    name: str | None
    value: bytes


@dataclass(frozen=True, slots=True)
class Sighting:
    """A secret without its value. `name` is its kid, else the beginning of its fingerprint."""

    setting: str
    use: str
    name: str
    first_seen_at: datetime


def secrets_of(settings: Settings) -> list[Secret]:
    """All that should be rotated, in order. Derived cursor keys go with JWT_KEYS."""
    cursor_keys = () if settings.cursor_keys_are_derived else settings.cursor_keys
    password = conninfo_to_dict(settings.database_url).get("password")
    alone = {
        "DATABASE_URL": str(password) if password else None,
        "METRICS_TOKEN": settings.metrics_token,
        "SENTRY_DSN": settings.sentry_dsn,
    }
    return [
        *_ring("JWT_KEYS", settings.jwt_keys),
        *_ring("CURSOR_KEYS", cursor_keys),
        *(Secret("WEBHOOK_SECRETS", "verifies", None, secret) for secret in settings.webhook_secrets),
        *(Secret(setting, "in use", None, value.encode()) for setting, value in alone.items() if value),
    ]


def table(seen: list[Sighting]) -> list[str]:
    """Lines for a terminal."""
    rows = [("SETTING", "USE", "NAME", "FIRST SEEN", "DAYS", "")]
    for one in seen:
        age = datetime.now(UTC) - one.first_seen_at
        hint = f"older than {OLD.days} days: rotate it (docs/deployment.md)" if age > OLD else ""
        rows.append((one.setting, one.use, one.name, f"{one.first_seen_at:%Y-%m-%d}", str(age.days), hint))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _ring(setting: str, ring: Ring) -> Iterator[Secret]:
    for position, key in enumerate(ring):
        yield Secret(setting, "verifies" if position else "signs", key.kid, key.secret)


# The migration made it; a restore of some tables alone may have lost it.
_SALT_WHERE_LOST = """
    INSERT INTO secret_sightings (setting, fingerprint, first_seen_at)
    SELECT %(setting)s, uuid_send(gen_random_uuid()), now()
    WHERE NOT EXISTS (SELECT FROM secret_sightings WHERE setting = %(setting)s)
"""


def record(settings: Settings) -> list[Sighting]:
    """Writes down what was never seen before, and returns all that is configured. Raises psycopg.Error."""
    with _connected(settings) as connection:
        connection.execute(_SALT_WHERE_LOST, {"setting": SALT})
        (salt,) = _row(connection, "SELECT fingerprint FROM secret_sightings WHERE setting = %s", SALT)
        return [_seen(connection, secret, bytes(salt)) for secret in secrets_of(settings)]


def _seen(connection: psycopg.Connection, secret: Secret, salt: bytes) -> Sighting:
    fingerprint = hashlib.scrypt(secret.value, salt=salt, **SCRYPT)
    connection.execute(
        "INSERT INTO secret_sightings (setting, fingerprint, first_seen_at) VALUES (%s, %s, now())"
        " ON CONFLICT DO NOTHING",
        [secret.setting, fingerprint],
    )
    (first_seen_at,) = _row(
        connection,
        "SELECT first_seen_at FROM secret_sightings WHERE setting = %s AND fingerprint = %s",
        secret.setting,
        fingerprint,
    )
    return Sighting(secret.setting, secret.use, secret.name or fingerprint.hex()[:8], first_seen_at)


def _row(connection: psycopg.Connection, query: str, *parameters: object) -> tuple:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None, "the statement before this one made it"
    return row


@contextmanager
def _connected(settings: Settings) -> Iterator[psycopg.Connection]:
    """Without prepared statements: a pooler may stand between."""
    conninfo = conninfo_with_defaults(settings.database_url)
    with Connection.connect(conninfo, autocommit=True, prepare_threshold=None) as connection:
        yield connection
