"""`GET /events`: a poller that keeps its cursor misses nothing and sees nothing twice."""

import threading

import pytest

from tests.client import LAMP, assert_problem
from tests.orders.races import at_once, insisting, second_connection
from tests.web.raw import blocked_by, wait_until


def feed(client, cursor=None, **params):
    return insisting(lambda: client.get("/events", params={**params, **({"cursor": cursor} if cursor else {})})).json()


def walk(client, cursor=None, limit=20):
    """All events from a cursor on, and the cursor to go on with."""
    events, more = [], True
    while more:
        page = feed(client, cursor, limit=limit)
        events += page["data"]
        cursor, more = page["next_cursor"], page["has_more"]
    return events, cursor


def test_the_feed_tells_of_all_orders_oldest_first(alice):
    first, second = alice.place().json(), alice.place().json()
    alice.patch(f"/orders/{first['id']}", json={"status": "cancelled"})
    page = feed(alice)

    assert [(event["sequence"], event["type"], event["order_id"]) for event in page["data"]] == [
        (1, "order.created", first["id"]),
        (2, "order.created", second["id"]),
        (3, "order.cancelled", first["id"]),
    ]
    assert set(page["data"][0]) == {"sequence", "type", "data", "created_at", "trace_id", "order_id"}
    assert page["has_more"] is False


def test_the_cursor_is_never_null_and_waits_for_what_comes(alice):
    empty = feed(alice)
    assert (empty["data"], empty["has_more"]) == ([], False)
    cursor = empty["next_cursor"]
    for number in range(1, 4):
        alice.place()
        page = feed(alice, cursor)
        assert [event["sequence"] for event in page["data"]] == [number]
        cursor = page["next_cursor"]
        again = feed(alice, cursor)
        assert (again["data"], again["next_cursor"]) == ([], cursor)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_walk_sees_each_event_once(alice, limit):
    for _ in range(5):
        alice.place()
    assert [event["sequence"] for event in walk(alice, limit=limit)[0]] == [1, 2, 3, 4, 5]


def test_a_full_page_links_to_the_next(alice):
    alice.place(), alice.place()
    answer = alice.get("/events?limit=1")
    following = alice.get(answer.links["next"]["url"])

    assert [event["sequence"] for event in following.json()["data"]] == [2]
    assert "Link" not in following.headers
    assert answer.headers["Cache-Control"] == "private, no-cache"


def test_the_feed_is_its_users_own(alice, bob):
    alice.place()
    assert feed(bob)["data"] == []
    assert_problem(bob.get("/events", params={"cursor": feed(alice)["next_cursor"]}), 400, "cursor_invalid")


def test_a_cursor_of_another_list_is_invalid(alice):
    path = alice.place().headers["Location"]
    alice.place()
    cursor = alice.get("/orders?limit=1").json()["next_cursor"]
    assert_problem(alice.get("/events", params={"cursor": cursor}), 400, "cursor_invalid")
    assert_problem(alice.get(f"{path}/events", params={"cursor": feed(alice)["next_cursor"]}), 400, "cursor_invalid")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "status=paid", "limit=1&limit=2"])
def test_a_wrong_parameter_is_refused(alice, query):
    assert_problem(alice.get(f"/events?{query}"), 422, "validation_failed")


def test_four_writers_in_adverse_order_and_a_poller_that_misses_nothing(alice, server, sql):
    orders = [alice.place(LAMP).json()["id"] for _ in range(4)]
    seen, cursor, over = [], None, threading.Event()

    def poll():
        nonlocal cursor
        while True:
            last = over.is_set()
            events, cursor = walk(alice, cursor, limit=3)
            seen.extend(events)
            if last:
                return

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        # Each round the orders' rows are held until all four wait in open transactions; then three may commit before
        # the fourth, another one each time.
        for turn in range(4):
            with second_connection(server.database_url) as early, second_connection(server.database_url) as late:
                for number, order_id in enumerate(orders):
                    holder = late if number == turn else early
                    holder.execute("SELECT 1 FROM orders WHERE id = %s FOR UPDATE", [order_id])
                change = {"metadata": {"turn": str(turn)}}
                writers = threading.Thread(
                    target=lambda body=change: at_once(4, lambda n: alice.patch(f"/orders/{orders[n]}", json=body))
                )
                writers.start()
                wait_until(lambda: blocked_by(sql, early) == 4)
                early.rollback()
                wait_until(lambda: blocked_by(sql, late) == 1)
                late.rollback()
                writers.join()
            for order_id in orders:
                alice.patch(f"/orders/{order_id}", json={"metadata": {"step": str(turn)}})
    finally:
        over.set()
        poller.join()

    assert [event["sequence"] for event in seen] == list(range(1, len(seen) + 1))
    assert len(seen) == 4 + 4 * 8
    for order_id in orders:
        versions = [event["data"]["version"] for event in seen if event["order_id"] == order_id]
        assert versions == list(range(1, 10))
