"""The people of a load test: users with orders, tokens and addresses of their own, in a file for the generator."""

import json
import random
import secrets
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from orders_api.values import new_id, now
from perf.stack import Served, Stack, seed_users, tokens

PEOPLE = 200
WITH_PASSWORD = 40  # these register and log in over the API, and log in again under load
LOGINS_AT_ONCE = 4
TRIES = 5
NO_TRACE = "0" * 31 + "1"


@dataclass
class Seeded:
    """A person as perf/traffic.py reads it; `orders` and `pending` are ids."""

    user_id: UUID
    address: str
    token: str
    email: str | None = None
    password: str | None = None
    orders: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "user_id"}


def gather(stack: Stack, served: Served, seed: int = 1) -> Path:
    """Makes the crowd. The tokens in its file are good for 15 minutes."""
    rng = random.Random(seed)  # noqa: S311  (the same orders each time)
    users = seed_users(stack.database_url, PEOPLE - WITH_PASSWORD)
    signed = zip(users, tokens(served, users), strict=True)
    people = [Seeded(user_id, _address(number), token) for number, ((user_id, _), token) in enumerate(signed)]
    with ThreadPoolExecutor(LOGINS_AT_ONCE) as threads:
        numbers = range(len(people), PEOPLE)
        people += threads.map(lambda number: _registered(served.url, number), numbers)
    _place_orders(stack.database_url, people, rng)
    file = stack.home / f"crowd-{served.port}.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps([person.document() for person in people]))
    return file


def _address(number: int) -> str:
    """Of the network that RFC 2544 keeps for measurements."""
    return f"198.18.{number // 250}.{number % 250 + 1}"


def _registered(url: str, number: int) -> Seeded:
    email, password = f"perf-{secrets.token_hex(8)}@example.com", secrets.token_urlsafe(15)
    credentials = {"email": email, "password": password}
    user = _post(f"{url}/auth/register", credentials, _address(number))
    pair = _post(f"{url}/auth/login", credentials, _address(number))
    return Seeded(UUID(user["id"]), _address(number), pair["access_token"], email, password)


def _post(url: str, body: dict[str, str], address: str) -> Any:
    headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310  (our own address)
    for _ in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(float(error.headers["Retry-After"]))  # hashing has its bounds, and others use the machine too
    raise RuntimeError(f"{url} was overloaded {TRIES} times: this machine is too busy")


def _place_orders(conninfo: str, people: list[Seeded], rng: random.Random) -> None:
    """20 to 50 orders each with 1 to 3 items, from the last days, with the events that the service writes."""
    orders, items, events = [], [], []
    for person in people:
        count = rng.randint(20, 50)
        for number in range(count):
            order_id, at = new_id(), now() - timedelta(hours=count - number)
            lines = [(rng.randint(1, 5), rng.randint(1, 10_000)) for _ in range(rng.randint(1, 3))]
            total = sum(quantity * price for quantity, price in lines)
            orders.append((person.user_id, order_id, "EUR", total, at, at))
            items += [
                (person.user_id, order_id, position, f"sku-{position}", "Lamp", *line)
                for position, line in enumerate(lines)
            ]
            events.append((person.user_id, number + 1, order_id, "order.created", Jsonb({}), NO_TRACE, at))
            person.orders.append(str(order_id))
        person.pending = list(person.orders)
    with psycopg.connect(conninfo) as connection:
        _copy(connection, "orders (user_id, id, currency, total_cents, created_at, updated_at)", orders)
        _copy(connection, "order_items (user_id, order_id, position, sku, name, quantity, unit_price_cents)", items)
        _copy(connection, "order_events (user_id, sequence, order_id, type, data, trace_id, created_at)", events)
        connection.execute(
            "UPDATE feeds SET last_sequence = made.last"
            " FROM (SELECT user_id, max(sequence) AS last FROM order_events GROUP BY user_id) AS made"
            " WHERE feeds.user_id = made.user_id"
        )
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")  # ours, not the measurement's


def _copy(connection: psycopg.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
