"""A transaction that PostgreSQL ends for a deadlock is tried again; the client sees nothing of it."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from tests.orders.races import hold_feed, hold_key, second_connection, wait_until_blocked
from tests.web.test_pool import PATIENT

# When the service looks whether it is in one: later than the other needs to come to it, and before its wait ends.
LOOKS_AFTER = "1500ms"


@pytest.fixture(scope="module")
def hasty(serve_all, databases):
    url = databases.migrated() + PATIENT
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute(f"ALTER DATABASE {sql.info.dbname} SET deadlock_timeout = '{LOOKS_AFTER}'")
    return serve_all(database_url=url)


@pytest.fixture
def carol(hasty, client_of):
    return client_of(hasty)


@contextmanager
def counter_held(hasty, client):
    """Another transaction that has the client's counter, and never gives way: the service has to, and then waits."""
    with second_connection(hasty.database_url) as other:
        other.execute("SET LOCAL deadlock_timeout = '10s'")
        hold_feed(other, client)
        yield other


def test_a_change_that_met_a_deadlock_is_made_all_the_same(hasty, carol):
    path = carol.place().headers["Location"]
    with psycopg.connect(hasty.database_url, autocommit=True) as sql, ThreadPoolExecutor(1) as threads:
        with counter_held(hasty, carol) as other:
            change = threads.submit(carol.patch, path, json={"metadata": {"a": "b"}})
            wait_until_blocked(sql, other)
            other.execute("SELECT 1 FROM orders FOR UPDATE")

        assert change.result().status_code == 200
        assert change.result().json()["version"] == 2
        assert [event["sequence"] for event in carol.get("/events").json()["data"]] == [1, 2]


def test_an_order_that_met_a_deadlock_is_placed_all_the_same(hasty, carol):
    with psycopg.connect(hasty.database_url, autocommit=True) as sql, ThreadPoolExecutor(1) as threads:
        with counter_held(hasty, carol) as other:
            order = threads.submit(carol.place, key="k-1")
            wait_until_blocked(sql, other)
            hold_key(other, carol, "k-1")

        assert order.result().status_code == 201
        assert [one["id"] for one in carol.get("/orders").json()["data"]] == [order.result().json()["id"]]
