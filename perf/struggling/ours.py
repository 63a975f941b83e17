"""The same profile against orders-api: as many orders, the same statuses, one owner for all of them.

What is different: pages by cursors, which are walked beforehand; no cache-busting parameter (one it does not
know is refused); each write makes its user's cached answers void at once, and here one user writes all.
"""

import base64
import json
import os
import secrets
import shutil
import tempfile
import uuid
from pathlib import Path
from urllib.parse import urlencode

import psycopg

from orders_api import migrator
from orders_api.dev import EmbeddedMemcached
from orders_api.dev.local import new_jwt_key
from orders_api.dev.memcached import free_port
from perf import seed
from perf.stack import PASSED_ON, PRODUCTION, Served, tokens
from perf.struggling.load import PROFILE, Arrival, Request, ask, signed
from perf.struggling.machine import Held, PinnedPostgres, cores, pinned_to

STATUSES = {"pending": "pending", "cancelled": "cancelled", "refunded": "paid", "": ""}  # ours knows no "refunded"
SKEW = (
    "UPDATE orders SET status = CASE WHEN luck < 30 THEN 'cancelled' WHEN luck < 100 THEN 'pending' ELSE 'paid' END"
    "::order_status FROM (SELECT id AS of, (metadata->>'basket')::bigint * 7919 % 1000 AS luck FROM orders) drawn"
    " WHERE id = drawn.of"
)
OWNER = 1


class Ours(Held):
    """orders-api with 2 workers beside the generator, its PostgreSQL on the other core; it ends with the block."""

    def _start(self) -> None:
        home = Path(tempfile.mkdtemp(prefix="orders-same-", dir="/tmp"))
        self._exits.callback(shutil.rmtree, home, ignore_errors=True)
        home.chmod(0o711)
        database_core, self.core = cores()
        self.postgres = PinnedPostgres(home, database_core, durable=True)
        self._exits.callback(self.postgres.stop)
        url = self.postgres.start()
        migrator.migrate(url)
        seed.seed(url, orders=PROFILE["orders"], users=OWNER)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(SKEW)
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        memcached = EmbeddedMemcached()
        self._exits.callback(memcached.stop)
        self.webhook_secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        own = {
            "DATABASE_URL": url,
            "MEMCACHED_SERVERS": memcached.start(),
            "JWT_KEYS": new_jwt_key(),
            "WEBHOOK_SECRETS": self.webhook_secret,
            "SERVER_TIMING": "1",
            "PORT": str(free_port()),
        }
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        with pinned_to(self.core):
            self._served = Served({**passed_on, **PRODUCTION, **own}, None, home)
        self._exits.callback(self._served.stop)
        self._served.wait_until_up()
        self.port = self._served.port
        (token,) = tokens(self._served, [(seed.user_id(OWNER), seed.session_id(OWNER))])
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._cursors = {status: self._walk(status) for status in set(STATUSES.values())}

    def _walk(self, status: str) -> list[str]:
        """The cursors of the pages that the profile asks for."""
        cursors = [""]
        for _ in range(max(int(page) for page in PROFILE["pages"]) - 1):
            code, _, body = ask(self.port, self._page(status, cursors[-1], items=False))
            assert code == 200, (code, body)
            cursors.append(json.loads(body)["next_cursor"])
        return cursors

    def _page(self, status: str, cursor: str, *, items: bool) -> Request:
        words = {"status": status, "cursor": cursor, "include": "items" if items else ""}
        query = urlencode({name: value for name, value in words.items() if value})
        return Request("GET", f"/orders?{query}" if query else "/orders", self._headers)

    def request_of(self, arrival: Arrival) -> Request:
        """An arrival as this service takes it."""
        match arrival.operation:
            case "create":
                items = [
                    {"sku": "sku-1", "quantity": 2, "unit_price_cents": 625},
                    {"sku": "sku-2", "quantity": 1, "unit_price_cents": 50},
                ]
                headers = {**self._headers, "Idempotency-Key": str(uuid.uuid4())}
                return Request("POST", "/orders", headers, json.dumps({"currency": "EUR", "items": items}).encode())
            case "payment":
                return self._payment(arrival.order)
            case "order":
                query = "?include=items" if arrival.items else ""
                return Request("GET", f"/orders/{seed.order_id(arrival.order)}{query}", self._headers)
        status = STATUSES[arrival.status]
        return self._page(status, self._cursors[status][arrival.page - 1], items=arrival.items)

    def _payment(self, number: int) -> Request:
        data = {"payment_id": f"pay_{number}", "order_id": str(seed.order_id(number)), "currency": "EUR"}
        cents = (1 + number % 3) * (1 + number % 4) * (100 + number % 900)  # as perf/seed.py makes them
        event = {
            "type": "payment.succeeded",
            "timestamp": "2026-11-25T00:00:00Z",
            "data": data | {"amount_cents": cents},
        }
        body = json.dumps(event).encode()
        headers = signed(self.webhook_secret, body, f"msg_{uuid.uuid4().hex}")
        return Request("POST", "/webhooks/payments", {"Content-Type": "application/json", **headers}, body)
