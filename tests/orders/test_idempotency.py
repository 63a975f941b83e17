"""`Idempotency-Key`: one key, one order, one answer, whatever happens on the way."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import pytest

from tests.client import LAMP, assert_problem
from tests.orders.races import at_once, hold_feed, hold_key, second_connection, wait_until_blocked
from tests.web.patient import PATIENCE

OTHER = {"currency": "USD", "total_cents": 99}
INVALID = {"currency": "nope"}


def orders_of(sql, client):
    return sql.execute("SELECT count(*) FROM orders WHERE user_id = %s", [client.user_id]).fetchone()[0]


def events_of(sql, client):
    return sql.execute("SELECT count(*) FROM order_events WHERE user_id = %s", [client.user_id]).fetchone()[0]


def keys_of(sql, client):
    query = "SELECT key FROM idempotency_keys WHERE user_id = %s ORDER BY key"
    return [key for (key,) in sql.execute(query, [client.user_id])]


def age(sql, client, interval):
    sql.execute(
        "UPDATE idempotency_keys SET created_at = created_at - %s::interval WHERE user_id = %s",
        [interval, client.user_id],
    )


def expire(server):
    """`orders-api expire`, as cron runs it; what it says."""
    command = [sys.executable, "-m", "orders_api", "expire"]
    return subprocess.run(command, env=server.env, check=True, timeout=30, capture_output=True, text=True).stdout


def lookup(client, key):
    return client.get(f"/idempotency-keys/{quote(key, safe='')}")


def test_a_repeated_key_replays_the_first_answer_byte_for_byte(alice, sql):
    first, again = alice.place(key="k-1"), alice.place(key="k-1")

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert orders_of(sql, alice) == 1


@pytest.mark.parametrize("header", ["Location", "ETag", "Content-Type", "Cache-Control"])
def test_a_replay_has_the_headers_of_the_first_answer(alice, header):
    first, again = alice.place(key="k-1"), alice.place(key="k-1")

    assert again.headers[header] == first.headers[header]


def test_a_replay_says_that_it_is_one_and_of_which_request(alice):
    first, again = alice.place(key="k-1"), alice.place(key="k-1")

    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Idempotent-Original-Trace-Id"] == first.headers["X-Trace-Id"]
    assert again.headers["X-Trace-Id"] != first.headers["X-Trace-Id"]


def test_a_first_answer_does_not_say_that_it_is_a_replay(alice):
    first = alice.place(key="k-1")

    assert "Idempotent-Replayed" not in first.headers
    assert "Idempotent-Original-Trace-Id" not in first.headers


def test_a_replay_stays_the_same_when_the_order_has_changed(alice):
    first = alice.place(key="k-1")
    alice.patch(first.headers["Location"], json={"status": "cancelled"})

    assert alice.place(key="k-1").content == first.content


def test_a_replay_writes_no_event(alice, sql):
    alice.place(key="k-1")
    alice.place(key="k-1")

    assert events_of(sql, alice) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [("k-1", '"k-1"'), (r"a\b", r'"a\\b"'), ('a "b" c', r'"a \"b\" c"')],
    ids=["quoted", "backslash", "quotes"],
)
def test_a_key_bare_or_as_a_quoted_string_is_the_same_key(alice, sql, one, other):
    first, again = alice.place(key=one), alice.place(key=other)

    assert again.content == first.content
    assert orders_of(sql, alice) == 1


def test_keys_are_told_apart_by_case(alice, sql):
    alice.place(key="k")
    alice.place(key="K")

    assert orders_of(sql, alice) == 2


def test_the_same_body_spelled_otherwise_is_replayed(alice):
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    first = alice.post("/orders", content='{"currency":"EUR","total_cents":1}', headers=headers)
    again = alice.post("/orders", content='{ "total_cents": 1,\n "\\u0063urrency": "EUR" }', headers=headers)

    assert (first.status_code, again.content) == (201, first.content)


def test_a_key_is_required(alice, sql):
    assert_problem(alice.post("/orders", json=LAMP), 400, "idempotency_key_missing")
    assert orders_of(sql, alice) == 0


@pytest.mark.parametrize("body", [OTHER, INVALID, [], {**LAMP, "colour": "red"}], ids=["valid", "invalid", "list", "+"])
def test_a_key_with_another_body_is_refused(alice, sql, body):
    alice.place(key="k-1")

    assert_problem(alice.place(body, key="k-1"), 422, "idempotency_key_reused")
    assert orders_of(sql, alice) == 1


def test_a_body_that_does_not_parse_is_told_first(alice):
    alice.place(key="k-1")
    headers = {"Idempotency-Key": "k-1", "Content-Type": "application/json"}

    assert_problem(alice.post("/orders", content="{", headers=headers), 400, "malformed_json")


def test_30_requests_at_once_with_one_key_make_one_order(alice, sql):
    answers = at_once(30, lambda _: alice.place(key="k-1"))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert (orders_of(sql, alice), events_of(sql, alice)) == (1, 1)


def test_two_bodies_at_once_with_one_key_make_one_order(alice, sql):
    answers = at_once(10, lambda number: alice.place(OTHER if number % 2 else LAMP, key="k-1"))

    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [422] * 5
    assert orders_of(sql, alice) == 1


def test_who_waits_for_a_key_gets_the_answer_once_it_is_committed(alice, sql, server):
    with second_connection(server.database_url) as holder, ThreadPoolExecutor(2) as threads:
        hold_feed(holder, alice)
        first = threads.submit(alice.place, key="k-1")
        wait_until_blocked(sql, holder)
        second = threads.submit(alice.place, key="k-1")
        assert alice.get("/auth/me").status_code == 200
        assert not second.done()
        holder.rollback()

        assert second.result().content == first.result().content
    assert "Idempotent-Replayed" in second.result().headers
    assert orders_of(sql, alice) == 1


def test_an_uncommitted_key_is_not_replayed_if_its_order_fails(alice, sql, server):
    with second_connection(server.database_url) as holder:
        hold_feed(holder, alice)
        assert_problem(alice.place(key="k-1"), 503, "overloaded")
        assert lookup(alice, "k-1").status_code == 404
    again = alice.place(key="k-1")

    assert (again.status_code, orders_of(sql, alice)) == (201, 1)
    assert "Idempotent-Replayed" not in again.headers


def test_proof_9_another_users_key_is_independent(alice, bob, sql):
    mine, theirs = alice.place(key="k-1"), bob.place(OTHER, key="k-1")

    assert (theirs.status_code, theirs.json()["currency"]) == (201, "USD")
    assert mine.json()["id"] != theirs.json()["id"]
    assert (orders_of(sql, alice), orders_of(sql, bob)) == (1, 1)


def test_proof_9_another_users_held_key_is_independent(alice, bob, server):
    with second_connection(server.database_url) as holder:
        hold_key(holder, alice, "k-1")

        assert bob.place(key="k-1").status_code == 201


def test_a_refused_body_leaves_the_key_free(alice, sql):
    assert_problem(alice.place(INVALID, key="k-1"), 422, "validation_failed")
    assert keys_of(sql, alice) == []

    assert alice.place(key="k-1").status_code == 201


def test_a_limited_request_leaves_the_key_free(serve, client_of):
    server = serve(RATE_LIMIT_USER="2/minute", WEB_CONCURRENCY="1", **PATIENCE)
    client = client_of(server)
    for _ in range(2):
        client.get("/auth/me")

    assert_problem(client.place(key="k-1"), 429, "rate_limited")
    with second_connection(server.database_url) as sql:
        assert keys_of(sql, client) == []


def test_a_key_in_use_for_too_long_is_in_progress(alice, sql, server):
    with second_connection(server.database_url) as holder:
        hold_key(holder, alice, "k-1")
        response = alice.place(key="k-1")

    assert_problem(response, 409, "idempotency_key_in_progress")
    assert response.headers["Retry-After"] == "1"
    assert response.json()["retry"] == {"safe": True, "same_key": True, "after_s": 1}
    assert alice.place(key="k-1").status_code == 201
    assert orders_of(sql, alice) == 1


def test_who_waits_for_a_key_asks_for_two_seconds_and_not_without_a_pause(alice, server, statements_of):
    with second_connection(server.database_url) as holder:
        hold_key(holder, alice, "k-1")
        response = alice.place(key="k-1")

    assert response.elapsed.total_seconds() >= 2
    # Two each time: the claim, and whether it was taken. A slow machine asks less often, none more than every 25 ms.
    assert 10 <= statements_of(response) <= 2 * (2 / 0.025 + 2)


def test_who_waits_for_a_key_holds_no_connection(serve, client_of):
    server = serve(DATABASE_POOL_SIZE="2", WEB_CONCURRENCY="1")
    client = client_of(server)
    with second_connection(server.database_url) as holder, ThreadPoolExecutor(4) as threads:
        hold_key(holder, client, "k-1")
        waiting = [threads.submit(client.place, key="k-1") for _ in range(4)]
        answers = []
        while not any(waiter.done() for waiter in waiting):
            answers += [client.get("/auth/me").status_code, client.place().status_code]

        assert set(answers) == {200, 201}
        assert len(answers) >= 4
        for waiter in waiting:
            assert_problem(waiter.result(), 409, "idempotency_key_in_progress")


def test_a_worker_killed_before_its_commit_leaves_the_key_free(serve, client_of):
    server = serve(WEB_CONCURRENCY="1")
    client = client_of(server)
    with (
        second_connection(server.database_url) as holder,
        second_connection(server.database_url) as sql,
        ThreadPoolExecutor(1) as threads,
    ):
        sql.autocommit = True
        hold_feed(holder, client)
        lost = threads.submit(client.place, key="k-1")
        wait_until_blocked(sql, holder)
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            lost.result()
        holder.rollback()

        assert retried(client).status_code == 201
        assert (orders_of(sql, client), events_of(sql, client), keys_of(sql, client)) == (1, 1, ["k-1"])


def retried(client):
    """What a client does that lost its answer: the same again, until somebody answers."""
    for _ in range(100):
        try:
            response = client.place(key="k-1")
        except httpx.TransportError:
            continue
        if response.status_code < 500:
            return response
    raise AssertionError("nobody answered")


def test_an_answer_is_kept_for_72_hours(alice, sql):
    first = alice.place(key="k-1")
    age(sql, alice, "71 hours")

    assert alice.place(key="k-1").content == first.content


def test_after_72_hours_a_key_is_expired_and_leads_to_its_order(alice, sql):
    first = alice.place(key="k-1")
    age(sql, alice, "72 hours")
    response = alice.place(key="k-1")

    assert_problem(response, 409, "idempotency_key_expired")
    assert response.headers["Link"].startswith(f"<{first.headers['Location']}>")
    assert orders_of(sql, alice) == 1


def test_a_body_that_is_not_valid_finds_its_key_expired_too(alice, sql):
    alice.place(key="k-1")
    age(sql, alice, "72 hours")

    assert_problem(alice.place(INVALID, key="k-1"), 409, "idempotency_key_expired")


def test_expiring_drops_the_answer_and_keeps_a_tombstone(alice, sql, server):
    first = alice.place(key="k-1")
    age(sql, alice, "73 hours")
    expire(server)
    response = alice.place(key="k-1")

    bodies = sql.execute("SELECT body FROM idempotency_keys WHERE user_id = %s", [alice.user_id]).fetchall()
    assert bodies == [(None,)]
    assert_problem(response, 409, "idempotency_key_expired")
    assert response.headers["Link"].startswith(f"<{first.headers['Location']}>")
    assert orders_of(sql, alice) == 1


def test_expiring_leaves_young_answers_alone(alice, server):
    first = alice.place(key="k-1")
    expire(server)

    assert alice.place(key="k-1").content == first.content


def test_a_tombstone_is_forgotten_after_30_days_more_and_its_order_stays(alice, bob, sql, server):
    alice.place(key="k-1")
    bob.place(key="k-1")
    age(sql, alice, "33 days 1 minute")
    age(sql, bob, "32 days 23 hours")
    expire(server)

    assert (keys_of(sql, alice), keys_of(sql, bob)) == ([], ["k-1"])
    assert (orders_of(sql, alice), orders_of(sql, bob)) == (1, 1)


def test_expiring_says_how_many_answers_and_keys_it_dropped(alice, bob, sql, server):
    for client, interval in ((alice, "73 hours"), (bob, "33 days 1 minute")):
        client.place(key="k-1")
        age(sql, client, interval)
    query = """SELECT count(*) FILTER (WHERE body IS NOT NULL AND created_at < now() - interval '72 hours')
        + count(*) FILTER (WHERE created_at < now() - interval '33 days') FROM idempotency_keys"""
    (expected,) = sql.execute(query).fetchone()

    assert f"Expired {expected} idempotency keys" in expire(server)


def test_looking_a_key_up_answers_whether_its_request_succeeded(alice):
    first = alice.place(key="k-1")
    found = lookup(alice, "k-1").json()

    assert set(found) == {"key", "state", "order_id", "created_at", "expires_at", "trace_id"}
    assert (found["key"], found["state"], found["order_id"]) == ("k-1", "completed", first.json()["id"])
    assert found["trace_id"] == first.headers["X-Trace-Id"]


def test_looking_an_expired_key_up_says_so(alice, sql):
    order = alice.place(key="k-1").json()
    age(sql, alice, "72 hours")
    found = lookup(alice, "k-1").json()

    assert (found["state"], found["order_id"]) == ("expired", order["id"])


@pytest.mark.parametrize(
    "key",
    [
        "a/b",
        "/a",
        "a/",
        "a//b",
        "a b",
        "100%",
        "a%2Fb",
        "a?b=c",
        "a#b",
        "a+b",
        "a;b",
        "~!$&'()*,=:@",
        r"a\b",
        "x" * 255,
    ],
)
def test_any_key_can_be_looked_up_percent_encoded(alice, key):
    order = alice.place(key=key).json()
    found = lookup(alice, key)

    assert (found.status_code, found.json()["key"], found.json()["order_id"]) == (200, key, order["id"])


@pytest.mark.parametrize(("header", "key"), [(r'"\"a\""', '"a"'), (r'"a\"b"', 'a"b'), ('" a "', " a ")])
def test_a_key_that_only_a_quoted_string_can_spell_can_be_looked_up(alice, header, key):
    order = alice.place(key=header).json()
    found = lookup(alice, key)

    assert (found.status_code, found.json()["key"], found.json()["order_id"]) == (200, key, order["id"])


def test_a_key_can_be_looked_up_as_its_header_spelled_it(alice):
    order = alice.place(key='"k-1"').json()

    assert lookup(alice, '"k-1"').json()["order_id"] == order["id"]


@pytest.mark.parametrize("key", ["never-used", "x" * 256, "\0", "é", '"'])
def test_a_key_that_was_never_used_is_not_found(alice, key):
    assert_problem(lookup(alice, key), 404, "idempotency_key_not_found")


def test_a_key_whose_request_was_refused_is_not_found(alice):
    alice.place(INVALID, key="k-1")

    assert_problem(lookup(alice, "k-1"), 404, "idempotency_key_not_found")


def test_proof_6_another_users_key_is_not_found(alice, bob):
    alice.place(key="k-1")

    assert_problem(lookup(bob, "k-1"), 404, "idempotency_key_not_found")


INVALID_KEYS = {
    "empty": "",
    "an empty quoted string": '""',
    "256 characters": "x" * 256,
    "256 characters, quoted": f'"{"x" * 256}"',
    "a tab": "a\tb",
    "not ASCII": "é".encode("latin-1"),
    "UTF-8": "é".encode(),
    "an open quote": '"abc',
    "a quote at the end": 'abc"',
    "a quote alone": '"',
    "an escaped end": '"abc\\"',
    "an unknown escape": r'"a\bc"',
    "text after the quote": '"a"b',
}


@pytest.mark.parametrize("key", INVALID_KEYS.values(), ids=INVALID_KEYS)
def test_proof_9_a_key_that_is_not_valid_is_refused(alice, sql, key):
    response = alice.post("/orders", json=LAMP, headers={"Idempotency-Key": key})

    assert_problem(response, 400, "idempotency_key_invalid")
    assert orders_of(sql, alice) == 0


@pytest.mark.parametrize("key", ["a\x01b", "\x1f", "a\x7fb"])
def test_proof_9_a_key_with_a_control_character_is_refused(alice, sql, key):
    # gunicorn refuses most of them before the application, with a 400 of its own.
    assert alice.post("/orders", json=LAMP, headers={"Idempotency-Key": key}).status_code == 400
    assert orders_of(sql, alice) == 0


@pytest.mark.parametrize("key", ["x", "x" * 255, f'"{"x" * 255}"', "!~", "a b"])
def test_proof_9_a_key_at_its_bounds_is_taken(alice, key):
    assert alice.place(key=key).status_code == 201
