"""`POST /webhooks/payments`: what verified events do, once, whatever comes with them."""

import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client import LAMP, assert_problem
from tests.orders.races import second_connection
from tests.payments.provider import event
from tests.web.raw import blocked_by, wait_until


def status_of(client, order):
    return client.get(f"/orders/{order['id']}").json()["status"]


def told(client, order):
    return [event["type"] for event in client.get(f"/orders/{order['id']}/events").json()["data"]]


def test_a_payment_makes_a_pending_order_paid(alice, provider, order, outcome_of):
    paid = provider.succeeded(order)
    after = alice.get(f"/orders/{order['id']}").json()
    event = alice.get(f"/orders/{order['id']}/events").json()["data"][-1]

    assert (paid.status_code, paid.content) == (204, b"")
    assert (after["status"], after["version"]) == ("paid", 2)
    assert (event["type"], event["data"]["status"], event["data"]["changed"]) == ("order.paid", "paid", ["status"])
    assert event["trace_id"] == paid.headers["X-Trace-Id"]
    assert outcome_of(order["id"]) == ["applied"]


def test_a_refund_of_the_whole_amount_cancels_a_paid_order(alice, provider, order):
    provider.succeeded(order)
    assert provider.refunded(order).status_code == 204

    assert status_of(alice, order) == "cancelled"
    assert told(alice, order) == ["order.created", "order.paid", "order.refunded"]


def test_the_owner_sees_the_payment_although_the_order_was_remembered(alice, provider, order):
    for _ in range(2):
        assert status_of(alice, order) == "pending"
    provider.succeeded(order)
    assert status_of(alice, order) == "paid"


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"amount_cents": 1249}, "amount_differs"),
        ({"amount_cents": 0}, "amount_differs"),
        ({"amount_cents": 10**18}, "amount_differs"),
        ({"currency": "USD"}, "currency_differs"),
        ({"currency": "eur"}, "currency_differs"),
    ],
)
def test_what_differs_is_kept_reported_and_changes_nothing(alice, provider, order, outcome_of, server, change, outcome):
    answer = provider.succeeded(order, **change)

    assert answer.status_code == 204
    assert status_of(alice, order) == "pending"
    assert told(alice, order) == ["order.created"]
    assert outcome_of(order["id"]) == [outcome]
    reported = [line for line in server.log().splitlines() if answer.headers["X-Trace-Id"] in line]
    assert any(f'"outcome":"{outcome}"' in line for line in reported)


@pytest.mark.parametrize("order_id", ["018f0000-0000-7000-8000-000000000000", "no-id-at-all", "x" * 255], ids=len)
def test_an_unknown_order_is_kept(provider, outcome_of, order_id):
    unknown = {"id": order_id, "total_cents": 1, "currency": "EUR"}
    before = outcome_of(order_id)
    assert provider.succeeded(unknown).status_code == 204
    assert outcome_of(order_id) == [*before, "order_unknown"]


def test_an_unknown_type_is_kept_whole(provider, sql, order):
    notice = {**event("payment.disputed", order), "data": {"anything": [1, 2], "order_id": 7}}
    answer = provider.send(notice, webhook_id=(webhook_id := f"msg_{uuid.uuid4()}"))
    query = "SELECT type, outcome, body FROM payment_events WHERE webhook_id = %s"
    kind, outcome, body = sql.execute(query, [webhook_id]).fetchone()

    assert answer.status_code == 204
    assert (kind, outcome) == ("payment.disputed", "type_unknown")
    assert b'"anything": [1, 2]' in body


@pytest.mark.parametrize(
    ("steps", "outcomes", "status"),
    [
        (["refunded"], ["step_illegal"], "pending"),
        (["refunded", "succeeded"], ["step_illegal", "applied"], "paid"),
        (["succeeded", "succeeded"], ["applied", "step_illegal"], "paid"),
        (["succeeded", "refunded", "refunded"], ["applied", "applied", "step_illegal"], "cancelled"),
        (["succeeded", "refunded", "succeeded"], ["applied", "applied", "step_illegal"], "cancelled"),
    ],
)
def test_out_of_order_the_state_is_never_wrong(alice, provider, order, outcome_of, steps, outcomes, status):
    for step in steps:
        assert getattr(provider, step)(order).status_code == 204

    assert outcome_of(order["id"]) == outcomes
    assert status_of(alice, order) == status


def test_a_cancelled_order_stays_cancelled(alice, provider, order, outcome_of):
    alice.patch(f"/orders/{order['id']}", json={"status": "cancelled"})
    assert provider.succeeded(order).status_code == 204

    assert status_of(alice, order) == "cancelled"
    assert outcome_of(order["id"]) == ["step_illegal"]


def test_a_paid_order_can_be_edited_no_more(alice, provider, order):
    provider.succeeded(order)
    path = f"/orders/{order['id']}"

    assert_problem(alice.patch(path, json={"currency": "USD"}), 409, "order_not_editable")
    assert_problem(alice.patch(path, json={"status": "cancelled"}), 409, "transition_invalid")
    assert alice.patch(path, json={"status": "paid"}).status_code == 200  # as it is
    assert alice.patch(path, json={"metadata": {"note": "sent"}}).json()["version"] == 3


def test_proof_12_a_repeated_id_has_one_effect_and_204_each_time(alice, provider, order, sql):
    webhook_id = f"msg_{uuid.uuid4()}"
    answers = [provider.send(event("payment.succeeded", order), webhook_id=webhook_id) for _ in range(3)]
    audited = sql.execute(
        "SELECT outcome FROM webhook_attempts WHERE webhook_id = %s ORDER BY received_at", [webhook_id]
    ).fetchall()

    assert [answer.status_code for answer in answers] == [204] * 3
    assert told(alice, order) == ["order.created", "order.paid"]
    assert audited == [("applied",), ("repeated",), ("repeated",)]


def test_proof_12_an_id_that_comes_twenty_times_at_once_has_one_effect(alice, provider, order, sql):
    webhook_id, notice = f"msg_{uuid.uuid4()}", event("payment.succeeded", order)
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: provider.send(notice, webhook_id=webhook_id), range(20)))
    kept = sql.execute("SELECT count(*) FROM payment_events WHERE webhook_id = %s", [webhook_id]).fetchone()

    assert {answer.status_code for answer in answers} == {204}
    assert kept == (1,)
    assert told(alice, order) == ["order.created", "order.paid"]


def test_doubled_and_shuffled_every_payment_has_its_effect_once(alice, provider, sql):
    orders = [alice.place({"currency": "EUR", "total_cents": 100 + number}).json() for number in range(40)]
    notices = [(f"msg_{uuid.uuid4()}", event("payment.succeeded", order)) for order in orders] * 2
    random.shuffle(notices)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda sent: provider.send(sent[1], webhook_id=sent[0]), notices))
    sequences = [event["sequence"] for event in alice.get("/events?limit=100").json()["data"]]

    assert {answer.status_code for answer in answers} == {204}
    assert {status_of(alice, order) for order in orders} == {"paid"}
    assert sequences == list(range(1, 81))


# Both interleavings of a payment and the owner's change, made by a lock that a second connection holds.


def in_turn(server, sql, order, *acts):
    """Runs `acts` so that each waits for the order's row behind the one before it; returns their answers."""
    answers = {}
    with second_connection(server.database_url) as holder:
        holder.execute("SELECT 1 FROM orders WHERE id = %s FOR UPDATE", [order["id"]])
        threads = []
        for number, act in enumerate(acts):
            threads.append(threading.Thread(target=lambda n=number, do=act: answers.update({n: do()})))
            threads[-1].start()
            wait_until(lambda count=number + 1: blocked_by(sql, holder) == count)
        holder.rollback()
        for thread in threads:
            thread.join()
    return [answers[number] for number in range(len(acts))]


def test_a_payment_before_a_cancellation_wins(alice, server, sql, provider, order, outcome_of):
    paid, cancelled = in_turn(
        server,
        sql,
        order,
        lambda: provider.succeeded(order),
        lambda: alice.patch(f"/orders/{order['id']}", json={"status": "cancelled"}),
    )
    assert paid.status_code == 204
    assert_problem(cancelled, 409, "transition_invalid")
    assert status_of(alice, order) == "paid"
    assert outcome_of(order["id"]) == ["applied"]


def test_a_cancellation_before_a_payment_wins(alice, server, sql, provider, order, outcome_of):
    cancelled, paid = in_turn(
        server,
        sql,
        order,
        lambda: alice.patch(f"/orders/{order['id']}", json={"status": "cancelled"}),
        lambda: provider.succeeded(order),
    )
    assert (cancelled.status_code, paid.status_code) == (200, 204)
    assert status_of(alice, order) == "cancelled"
    assert outcome_of(order["id"]) == ["step_illegal"]


def test_an_edit_before_a_payment_makes_the_amount_differ(alice, server, sql, provider, order, outcome_of):
    other = {"items": [{**LAMP["items"][0], "quantity": 3}]}
    edited, paid = in_turn(
        server,
        sql,
        order,
        lambda: alice.patch(f"/orders/{order['id']}", json=other),
        lambda: provider.succeeded(order),
    )
    assert (edited.status_code, paid.status_code) == (200, 204)
    assert status_of(alice, order) == "pending"
    assert outcome_of(order["id"]) == ["amount_differs"]


def test_what_can_t_be_committed_is_5xx_and_succeeds_when_it_is_sent_again(
    alice, server, sql, provider, order, outcome_of
):
    webhook_id, notice = f"msg_{uuid.uuid4()}", event("payment.succeeded", order)
    with second_connection(server.database_url) as holder:
        holder.execute("SELECT 1 FROM orders WHERE id = %s FOR UPDATE", [order["id"]])
        refused = provider.send(notice, webhook_id=webhook_id)
    assert_problem(refused, 503, "overloaded")
    assert outcome_of(order["id"]) == []

    assert provider.send(notice, webhook_id=webhook_id).status_code == 204
    assert status_of(alice, order) == "paid"
