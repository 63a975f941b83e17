"""Defects as others have shipped them, each planted in a server of its own: `tests.proofs.defective:application`.

What is planted replaces a part of the service when its workers start; the service itself knows nothing of it.
"""

import base64
import functools
import pickle
from collections.abc import Callable
from datetime import datetime
from typing import Any

import gevent
import psycopg

from orders_api import cache, memcached
from orders_api.db import db
from orders_api.orders import queries, services
from orders_api.orders.services import NO_CLAIM
from orders_api.payments import services as payments
from orders_api.pool import conninfo_with_defaults
from orders_api.web import idempotency

# Between the answer and its COMMIT: long enough for whatever kills a worker, on a busy machine.
LATE_S = 1.0
APART_S = 0.3  # between two steps that should be one
Plant = Callable[[], None]
PLANTS: dict[str, Plant] = {}


class Taken(Exception):  # noqa: N818
    """The key is another request's."""


def planted(name: str) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        PLANTS[name] = plant
        return plant

    return register


@planted("answer before COMMIT")
def _answer_before_commit() -> None:
    execute = db.execute_sql

    def execute_sql(sql: str, params: Any = None, **options: Any) -> Any:
        if "WITH claim" not in sql:
            return execute(sql, params, **options)
        connection = psycopg.connect(conninfo_with_defaults(db.database))
        cursor = connection.execute(sql, params)
        gevent.spawn_later(LATE_S, _commit, connection)
        return cursor

    db.execute_sql = execute_sql


def _commit(connection: psycopg.Connection[Any]) -> None:
    connection.commit()
    connection.close()


@planted("key in a transaction of its own")
def _key_apart() -> None:
    def claimed(claim: Any, *order: Any) -> None:
        sql, parameters = claim(*order)
        if db.execute_sql(sql, parameters).fetchone() is None:
            raise Taken
        gevent.sleep(APART_S)

    _claim_by(claimed)


@planted("key only in memcached")
def _key_in_memcached() -> None:
    def claimed(claim: Any, *order: Any) -> None:
        _, parameters = claim(*order)
        row = {name.removeprefix("claim_"): value for name, value in parameters.items() if name != "claim_lock"}
        batch = memcached.memcached.batch()
        reply = batch.set("keys", row["key"], base64.b64encode(pickle.dumps(row)), 600, b"ME")
        batch.run()
        if not reply.stored:
            raise Taken

    def find_key(_user_id: Any, _route: str, key: str) -> Any:
        batch = memcached.memcached.batch()
        reply = batch.get("keys", key)
        batch.run()
        return idempotency.IdempotencyKey(**pickle.loads(base64.b64decode(reply.value))) if reply.value else None

    idempotency.find_key = find_key
    _claim_by(claimed)


def _claim_by(claimed: Callable[..., None]) -> None:
    """Orders are placed after `claimed`, and not by one statement with the claim in it."""
    place = services.place_order

    def place_order(user_id: Any, draft: Any, trace_id: str, claim: Any) -> Any:
        def first(*order: Any) -> Any:
            claimed(claim, *order)
            return NO_CLAIM

        try:
            return place(user_id, draft, trace_id, first)
        except Taken:
            return None

    services.place_order = place_order


@planted("no unique constraint")
def _no_constraint() -> None:
    """It looks whether the key is there, and only then stores it."""
    absent = "WHERE NOT EXISTS (SELECT FROM idempotency_keys WHERE user_id = %(claim_user_id)s AND key = %(claim_key)s)"
    looks = idempotency._CLAIM.replace("WHERE pg_try_advisory_xact_lock(%(claim_lock)s)", absent)
    idempotency._CLAIM = looks.replace("ON CONFLICT DO NOTHING", "")


@planted("coarse clock")
def _coarse_clock() -> None:
    """No defect: many orders of one moment are what the tie-breaker is for."""
    clock = services.now

    def now() -> datetime:
        return clock().replace(microsecond=0)

    services.now = now


@planted("cursor without tie-breaker")
def _no_tie_breaker() -> None:
    _coarse_clock()
    page, both = queries._page_of_orders, '("t1"."created_at", "t1"."id") < (%(after_time)s, %(after_id)s)'

    @functools.cache
    def time_alone(*asked: Any) -> str:
        return page(*asked).replace(both, '"t1"."created_at" < %(after_time)s')

    queries._page_of_orders = time_alone


@planted("items read apart")
def _items_apart() -> None:
    page = queries.orders_of

    def orders_of(user_id: Any, *, items: bool = False, **options: Any) -> Any:
        orders = page(user_id, **options)
        if not items:
            return orders
        gevent.sleep(APART_S)
        return [order._replace(items=queries.items_of(user_id, order.id)) for order in orders]

    queries.orders_of = orders_of


@planted("cache key without the user")
def _shared_cache() -> None:
    scope = cache.Kind.scope

    def of_all(kind: cache.Kind, home: str, name: str | None = None) -> cache.Scope:
        return scope(kind, "everybody", name) if kind.name == "orders" else scope(kind, home, name)

    cache.Kind.scope = of_all


@planted("webhook answered before COMMIT")
def _webhook_before_commit() -> None:
    receive = payments.receive

    def later(*notice: Any) -> None:
        try:
            receive(*notice)
        finally:
            db.close()

    payments.receive = lambda *notice: gevent.spawn_later(LATE_S, later, *notice)


SLOW_LOADS_S = (3.0, 1.0)  # the first outlives its lease; the second takes what others have patience for


@planted("slow loads")
def _slow_loads() -> None:
    """No defect: it makes the time in which a lock can be lost."""
    find, delays = queries.find_order, iter(SLOW_LOADS_S)

    def find_order(*names: Any, **options: Any) -> Any:
        gevent.sleep(next(delays, 0))
        return find(*names, **options)

    queries.find_order = find_order


@planted("lock released by a stranger")
def _stranger() -> None:
    _slow_loads()
    memcached.Batch.delete = lambda batch, home, key, _token: batch.ask(home, b"md %b" % memcached.hashed(key))
