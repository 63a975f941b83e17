"""`orders-api deliver`: each event at least once, under one id, whatever dies in between."""

import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter

import pytest

from orders_api.webhooks import dispatch, sender
from orders_api.webhooks.dispatch import SCHEDULE_S, Job
from tests.client import assert_problem
from tests.conftest import ROOT
from tests.web.raw import wait_until
from tests.webhooks.receiver import Receiver

LONG_AGO = "now() - interval '6 days'"


def deliveries(client, endpoint, **params):
    return client.get(f"/webhook-endpoints/{endpoint['id']}/deliveries", params=params).json()["data"]


def settled(client, endpoint, state="delivered"):
    """The deliveries, as soon as all are in that state."""
    wait_until(lambda: {one["state"] for one in deliveries(client, endpoint)} == {state}, 20)
    return deliveries(client, endpoint)


def hurry(sql, endpoint):
    """Time passes: whatever waits for its next attempt is due."""
    due = "UPDATE webhook_deliveries SET next_attempt_at = now() WHERE state = 'pending' AND endpoint_id = %s"
    sql.execute(due, [endpoint["id"]])


def test_an_event_arrives_signed_with_what_happened(alice, server, deliver, receiver, endpoint):
    placed = alice.place()
    deliver(server)
    (received,) = receiver.wait_for(1)
    (event,) = alice.get("/events").json()["data"]
    (delivery,) = settled(alice, endpoint)

    assert received.is_signed_by(endpoint["secret"])
    assert received.document == {
        "type": "order.created",
        "timestamp": event["created_at"],
        "data": {**event["data"], "order_id": placed.json()["id"], "sequence": 1},
    }
    assert received.headers["traceparent"].split("-")[1] == placed.headers["X-Trace-Id"]
    assert received.headers["content-type"] == "application/json"
    assert (delivery["sequence"], delivery["type"], delivery["next_attempt_at"]) == (1, "order.created", None)
    (attempt,) = delivery["attempts"]
    assert (attempt["number"], attempt["status"], attempt["error"]) == (1, 204, None)


def test_only_what_happens_later_and_was_asked_for_is_told(alice, server, deliver, receiver):
    alice.place()
    wanted = {"url": receiver.url, "event_types": ["order.cancelled"]}
    endpoint = alice.post("/webhook-endpoints", json=wanted).json()
    path = alice.place().headers["Location"]
    alice.patch(path, json={"status": "cancelled"})
    deliver(server)
    receiver.wait_for(1)

    assert [one["sequence"] for one in settled(alice, endpoint)] == [3]


def test_a_failure_is_tried_again_under_the_same_id(alice, server, sql, deliver, receiver, endpoint):
    answers = iter([500, 302, 204])
    receiver.answer = lambda _: next(answers)
    alice.place()
    deliver(server)
    for count in (1, 2, 3):
        received = receiver.wait_for(count)
        wait_until(lambda count=count: len(deliveries(alice, endpoint)[0]["attempts"]) == count)
        hurry(sql, endpoint)
    (delivery,) = settled(alice, endpoint)

    assert len({one.webhook_id for one in received}) == 1
    assert [attempt["status"] for attempt in delivery["attempts"]] == [500, 302, 204]  # redirects are not followed


def test_the_schedule_is_that_of_standard_webhooks(alice, sql, server, deliver, receiver, endpoint):
    receiver.answer = lambda _: 503
    alice.place()
    deliver(server)
    for count, delay_s in enumerate(SCHEDULE_S[1:], start=1):
        receiver.wait_for(count)
        wait_until(lambda count=count: len(deliveries(alice, endpoint)[0]["attempts"]) == count)
        left = (
            "SELECT extract(epoch FROM next_attempt_at - now())::float FROM webhook_deliveries WHERE endpoint_id = %s"
        )
        (left_s,) = sql.execute(left, [endpoint["id"]]).fetchone()
        assert delay_s - 3 < left_s < delay_s * 1.2 + 1
        hurry(sql, endpoint)
    (delivery,) = settled(alice, endpoint, "failed")

    assert len(delivery["attempts"]) == len(SCHEDULE_S) == 10
    assert delivery["next_attempt_at"] is None


def test_a_failed_delivery_can_be_sent_again(alice, server, sql, deliver, receiver, endpoint):
    alice.place()
    worker = deliver(server)
    settled(alice, endpoint)
    again = f"/webhook-endpoints/{endpoint['id']}/deliveries/1/redeliver"
    assert alice.post(again).status_code == 202
    first, second = receiver.wait_for(2)

    assert first.webhook_id == second.webhook_id
    wait_until(lambda: [a["number"] for a in deliveries(alice, endpoint)[0]["attempts"]] == [1, 2])
    assert worker.poll() is None


def test_410_disables_the_endpoint(alice, server, deliver, receiver, endpoint):
    receiver.answer = lambda _: 410
    alice.place(), alice.place()
    deliver(server)
    path = f"/webhook-endpoints/{endpoint['id']}"
    wait_until(lambda: alice.get(path).json()["state"] == "disabled", 10)

    assert alice.get(path).json()["disabled_reason"] == "gone"
    alice.place()
    time.sleep(1.2)  # two polls: only what was under way by then has been sent
    assert {one.document["data"]["sequence"] for one in receiver.received} <= {1, 2}


def test_after_five_days_of_failure_it_is_disabled(alice, server, sql, deliver, receiver, endpoint):
    receiver.answer = lambda _: 500
    alice.place()
    deliver(server)
    receiver.wait_for(1)
    path = f"/webhook-endpoints/{endpoint['id']}"
    wait_until(lambda: len(deliveries(alice, endpoint)[0]["attempts"]) == 1)
    assert alice.get(path).json()["state"] == "enabled"
    sql.execute(f"UPDATE webhook_endpoints SET failing_since = {LONG_AGO} WHERE id = %s", [endpoint["id"]])
    hurry(sql, endpoint)
    wait_until(lambda: alice.get(path).json()["disabled_reason"] == "failing", 10)


def test_a_success_in_between_starts_the_five_days_anew(alice, server, sql, deliver, receiver, endpoint):
    sql.execute(f"UPDATE webhook_endpoints SET failing_since = {LONG_AGO} WHERE id = %s", [endpoint["id"]])
    alice.place()
    deliver(server)
    settled(alice, endpoint)
    since = "SELECT failing_since FROM webhook_endpoints WHERE id = %s"
    assert sql.execute(since, [endpoint["id"]]).fetchone() == (None,)


def test_after_a_rotation_both_secrets_sign_for_a_day(alice, server, sql, deliver, receiver, endpoint):
    rotated = alice.post(f"/webhook-endpoints/{endpoint['id']}/rotate").json()
    alice.place()
    deliver(server)
    (received,) = receiver.wait_for(1)
    assert rotated["secret"] != endpoint["secret"]
    assert received.is_signed_by(endpoint["secret"])
    assert received.is_signed_by(rotated["secret"])

    sql.execute("UPDATE webhook_endpoints SET previous_until = now() WHERE id = %s", [endpoint["id"]])
    alice.place()
    later = receiver.wait_for(2)[1]
    assert later.is_signed_by(rotated["secret"])
    with pytest.raises(Exception, match="signature"):
        later.is_signed_by(endpoint["secret"])


def test_a_signal_at_any_moment_ends_it():
    """Sent again and again, it comes also while the last one is heeded, and while a pause begins or ends."""
    many = """if True:
        import signal, time
        from orders_api.webhooks.worker import Worker

        worker = Worker(allow_private=True)
        worker.heed_signals()
        signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            worker.over = False
            worker.pause(0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    """
    assert subprocess.run([sys.executable, "-c", many], cwd=ROOT, timeout=20, check=False).returncode == 0


def test_a_deleted_endpoint_hears_no_more(alice, server, deliver, receiver, endpoint):
    alice.place()
    assert alice.request("DELETE", f"/webhook-endpoints/{endpoint['id']}").status_code == 204
    deliver(server)
    time.sleep(1.2)  # two polls
    assert receiver.received == []


def test_deliveries_are_paged_newest_first(alice, server, deliver, receiver, endpoint):
    for _ in range(5):
        alice.place()
    deliver(server)
    receiver.wait_for(5)
    settled(alice, endpoint)
    seen, url = [], f"/webhook-endpoints/{endpoint['id']}/deliveries?limit=2"
    while url:
        answer = alice.get(url)
        seen += [one["sequence"] for one in answer.json()["data"]]
        url = answer.links.get("next", {}).get("url")
    assert seen == [5, 4, 3, 2, 1]
    wrong = alice.get(f"/webhook-endpoints/{endpoint['id']}/deliveries", params={"cursor": "x"})
    assert_problem(wrong, 400, "cursor_invalid")


def test_a_receiver_that_hangs_keeps_nobody_else_waiting(alice, bob, server, deliver, receiver):
    begun, hung = threading.Event(), threading.Event()

    def hang(_):
        begun.set()
        hung.wait(20)
        return 204

    with Receiver(hang) as slow:
        alice.post("/webhook-endpoints", json={"url": slow.url})
        bob.post("/webhook-endpoints", json={"url": receiver.url})
        for _ in range(20):
            alice.place()
        deliver(server)
        assert begun.wait(20)
        bob.place()
        receiver.wait_for(1, patience_s=5)
        hung.set()


def test_what_a_killed_worker_had_under_way_is_due_within_a_minute(alice, server, sql, deliver, receiver, endpoint):
    killed = threading.Event()
    receiver.answer = lambda _: 204 if killed.wait(20) else 500
    alice.place()
    worker = deliver(server)
    row = "SELECT attempts, extract(epoch FROM next_attempt_at - now()) FROM webhook_deliveries WHERE endpoint_id = %s"
    wait_until(lambda: (sql.execute(row, [endpoint["id"]]).fetchone() or (0,))[0] == 1, 20)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    killed.set()
    _, due_s = sql.execute(row, [endpoint["id"]]).fetchone()
    assert sender.TIMEOUT_S < due_s <= 60

    hurry(sql, endpoint)
    deliver(server)
    assert [attempt["number"] for attempt in settled(alice, endpoint)[0]["attempts"]] == [2]


def test_two_workers_killed_at_will_lose_nothing_of_a_thousand_events(alice, server, sql, deliver):
    """Of 1,000 attempts 30 % fail, and a worker is killed four times; a receiver that looks at ids has each once."""
    chance, failures = random.Random(7), Counter[str]()

    def moody(webhook_id: str) -> int:
        """Never ten times for the same event: then it would be given up."""
        if chance.random() > 0.3 or failures[webhook_id] == 5:
            return 204
        failures[webhook_id] += 1
        return 500

    with Receiver(moody) as flaky:
        endpoint = alice.post("/webhook-endpoints", json={"url": flaky.url}).json()
        user, order_id = alice.user_id, alice.place().json()["id"]
        # 999 more events, as that many changes would have written them.
        sql.execute(
            "INSERT INTO order_events SELECT user_id, n, order_id, 'order.updated', data, trace_id, now()"
            " FROM order_events, generate_series(2, 1000) n WHERE user_id = %s AND order_id = %s",
            [user, order_id],
        )
        sql.execute("UPDATE feeds SET last_sequence = 1000 WHERE user_id = %s", [user])
        workers = [deliver(server), deliver(server)]
        for kill in range(4):
            flaky.wait_for(150 * (kill + 1), 40)
            workers[kill % 2].send_signal(signal.SIGKILL)
            workers[kill % 2].wait()
            workers[kill % 2] = deliver(server)
        left = "SELECT count(*) FROM webhook_deliveries WHERE endpoint_id = %s AND state <> 'delivered'"
        hurried, deadline = 0, time.monotonic() + 80
        while sql.execute(left, [endpoint["id"]]).fetchone() != (0,):
            assert time.monotonic() < deadline, len(flaky.taken)
            hurry(sql, endpoint)
            hurried += 1
            time.sleep(0.5)

        assert set(flaky.taken) == {f"msg_{uuid.UUID(endpoint['id']).hex}_{n}" for n in range(1, 1001)}
        doubled = sum(count - 1 for count in flaky.taken.values())
        assert doubled <= 16 * (4 + hurried)  # what was on its way at a kill, and when `hurry` ended its lease


# The sender alone


def job(url):
    return Job(
        user_id=uuid.uuid4(), endpoint_id=uuid.uuid4(), sequence=1, number=1, step=0, url=url, secret=b"s" * 32,
        previous_secret=None, type="order.paid", order_id=uuid.uuid4(), data={}, trace_id="a" * 32,
        happened_at=dispatch.datetime.now().astimezone(),
    )  # fmt: skip


def test_the_address_is_checked_again_when_it_is_connected_to(receiver):
    """As after DNS rebinding: the name was public when it was registered."""
    port = receiver.url.rsplit(":", 1)[1]
    result = sender.attempt(job(f"https://localhost:{port}/"), allow_private=False)
    assert (result.status, result.error) == (None, "The host must be on the public internet.")
    assert receiver.received == []


def test_an_answer_that_drips_is_cut(monkeypatch):
    monkeypatch.setattr(sender, "TIMEOUT_S", 2)
    monkeypatch.setattr(sender, "CONNECT_S", 1)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection:
                try:
                    while not over.is_set():
                        connection.sendall(b"H")
                        time.sleep(0.1)
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        result = sender.attempt(job(f"http://127.0.0.1:{listener.getsockname()[1]}/"), allow_private=True)
        took_s = time.monotonic() - began
        over.set()
        thread.join()
    assert (result.status, result.error) == (None, "No answer in time.")
    assert took_s < 4


def test_tls_is_checked_under_the_name_that_was_asked_for(receiver):
    port = receiver.url.rsplit(":", 1)[1]
    result = sender.attempt(job(f"https://127.0.0.1:{port}/"), allow_private=True)
    assert result.status is None
    assert "SSL" in result.error
