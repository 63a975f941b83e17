"""`GET /orders/{id}/events`: an order's history, numbered without a gap."""

import secrets
import uuid
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.client import LAMP, assert_problem
from tests.orders.races import at_once, hold_feed, second_connection, wait_until_blocked


@pytest.fixture
def path(alice):
    return alice.place(LAMP).headers["Location"]


def history(client, path, **params):
    return client.get(f"{path}/events", params=params).json()


def sequences(sql, client):
    query = "SELECT sequence FROM order_events WHERE user_id = %s ORDER BY sequence"
    return [sequence for (sequence,) in sql.execute(query, [client.user_id])]


def test_a_new_order_has_one_event(alice):
    response = alice.place(LAMP)
    order = response.json()
    (event,) = history(alice, response.headers["Location"])["data"]

    assert set(event) == {"sequence", "type", "data", "created_at", "trace_id"}
    assert (event["sequence"], event["type"], event["created_at"]) == (1, "order.created", order["created_at"])
    assert event["trace_id"] == response.headers["X-Trace-Id"]
    assert event["data"]["total_cents"] == order["total_cents"]


def test_the_history_tells_what_happened_oldest_first(alice, path):
    alice.patch(path, json={"metadata": {"a": "b"}})
    alice.patch(path, json={"currency": "USD"})
    alice.patch(path, json={"status": "cancelled"})
    events = history(alice, path)["data"]

    assert [event["type"] for event in events] == [
        *("order.created", "order.updated", "order.updated", "order.cancelled")
    ]
    assert [event["data"]["changed"] for event in events] == [[], ["metadata"], ["currency"], ["status"]]
    assert [event["data"]["version"] for event in events] == [1, 2, 3, 4]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]


def test_an_event_keeps_what_the_order_was_then(alice, path):
    alice.patch(path, json={"currency": "USD"})
    created, updated = (event["data"]["currency"] for event in history(alice, path)["data"])

    assert (created, updated) == (LAMP["currency"], "USD")


def test_an_event_has_the_trace_id_of_the_request_that_made_it(alice, path):
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    alice.patch(path, json={"currency": "USD"}, headers=headers)

    assert history(alice, path)["data"][-1]["trace_id"] == trace_id


def test_a_history_holds_the_events_of_its_order_alone(alice, path):
    other = alice.place(LAMP).headers["Location"]
    alice.patch(path, json={"currency": "USD"})

    assert [event["sequence"] for event in history(alice, path)["data"]] == [1, 3]
    assert [event["sequence"] for event in history(alice, other)["data"]] == [2]


def test_a_history_comes_in_pages(alice, path):
    for number in range(4):
        alice.patch(path, json={"metadata": {"n": str(number)}})
    seen, params = [], {"limit": 2}
    while True:
        page = history(alice, path, **params)
        seen.append([event["sequence"] for event in page["data"]])
        if not page["has_more"]:
            break
        params["cursor"] = page["next_cursor"]

    assert seen == [[1, 2], [3, 4], [5]]
    assert page["next_cursor"] is None


def test_the_link_leads_to_the_next_page(alice, path):
    alice.patch(path, json={"metadata": {"a": "b"}})
    first = alice.get(f"{path}/events", params={"limit": 1})
    second = alice.get(first.headers["Link"].removeprefix("<").split(">")[0])

    assert [event["sequence"] for event in second.json()["data"]] == [2]
    assert "Link" not in second.headers


def test_a_history_is_kept_by_nobody_else(alice, path):
    assert alice.get(f"{path}/events").headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "status=paid", "include=items"])
def test_a_wrong_or_unknown_parameter_is_refused(alice, path, query):
    assert_problem(alice.get(f"{path}/events?{query}"), 422, "validation_failed")


def test_proof_10_a_cursor_of_another_history_is_invalid(alice, path):
    other = alice.place(LAMP).headers["Location"]
    alice.patch(other, json={"metadata": {"a": "b"}})
    cursor = history(alice, other, limit=1)["next_cursor"]

    assert_problem(alice.get(f"{path}/events", params={"cursor": cursor}), 400, "cursor_invalid")


def test_proof_6_anothers_history_is_not_there(alice, bob, path):
    assert_problem(bob.get(f"{path}/events"), 404, "order_not_found")


def test_an_unknown_order_has_no_history(alice):
    assert_problem(alice.get(f"/orders/{uuid.uuid4()}/events"), 404, "order_not_found")


def test_orders_placed_at_once_are_numbered_without_a_gap(alice, sql):
    answers = at_once(20, lambda _: [alice.place().status_code for _ in range(3)])

    assert answers == [[201] * 3] * 20
    assert sequences(sql, alice) == list(range(1, 61))


def test_each_user_is_numbered_alone(alice, bob, sql):
    at_once(10, lambda number: (alice, bob)[number % 2].place())

    assert sequences(sql, alice) == sequences(sql, bob) == [1, 2, 3, 4, 5]


def test_what_is_not_committed_takes_no_number(alice, sql, server):
    with second_connection(server.database_url) as holder:
        hold_feed(holder, alice)
        assert_problem(alice.place(), 503, "overloaded")
    alice.place()

    assert sequences(sql, alice) == [1]


def test_a_number_is_seen_only_after_all_before_it(alice, sql, server):
    with second_connection(server.database_url) as holder, ThreadPoolExecutor(2) as threads:
        holder.execute("UPDATE feeds SET last_sequence = last_sequence + 1 WHERE user_id = %s", [alice.user_id])
        later = threads.submit(alice.place)
        wait_until_blocked(sql, holder)
        assert sequences(sql, alice) == []
        holder.commit()

        assert later.result().status_code == 201
    assert sequences(sql, alice) == [2]


def test_an_order_without_its_event_is_not_stored(serve, client_of):
    server = serve()
    carol = client_of(server)
    with psycopg.connect(server.database_url, autocommit=True) as sql:
        sql.execute("DELETE FROM feeds WHERE user_id = %s", [carol.user_id])

        assert_problem(carol.place(), 500, "internal_error")
        assert sql.execute("SELECT count(*) FROM orders").fetchone() == (0,)
        assert sql.execute("SELECT count(*) FROM idempotency_keys").fetchone() == (0,)


def test_a_change_without_its_event_is_not_stored(serve, client_of):
    server = serve()
    carol, _who_has_a_counter = client_of(server), client_of(server)
    order = carol.place(LAMP).headers["Location"]
    with psycopg.connect(server.database_url, autocommit=True) as sql:
        sql.execute("DELETE FROM feeds WHERE user_id = %s", [carol.user_id])

        assert_problem(carol.patch(order, json={"metadata": {"a": "b"}}), 500, "internal_error")
        assert_problem(carol.patch(order, json={"items": LAMP["items"] * 2}), 500, "internal_error")
        assert sql.execute("SELECT version, metadata FROM orders").fetchone() == (1, {})
        assert sql.execute("SELECT count(*) FROM order_items").fetchone() == (1,)
