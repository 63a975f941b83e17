"""With traffic running: workers are killed, the secret is rotated, and every payment has its effect once."""

import os
import random
import secrets as random_secrets
import signal
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.payments.conftest import whsec
from tests.payments.provider import SECRET, Provider, event
from tests.web.raw import wait_until

ORDERS = 1_000
SENDERS = 8


def persistently(provider: Provider, webhook_id: str, notice: dict) -> int:
    """Sends until it is taken, as a provider does; returns how often that took."""
    for attempt in range(1, 100):
        try:
            if provider.send(notice, webhook_id=webhook_id).status_code == 204:
                return attempt
        except httpx.TransportError:
            continue
    raise AssertionError("it is never taken")


def test_two_thousand_doubled_and_shuffled_webhooks_and_two_kills(server, alice, sql, provider_of):
    order_ids = [str(uuid.uuid4()) for _ in range(ORDERS)]
    sql.execute(
        "INSERT INTO orders (user_id, id, currency, total_cents, created_at, updated_at)"
        " SELECT %s, unnest(%s::uuid[]), 'EUR', 1250, now(), now()",
        [alice.user_id, order_ids],
    )
    orders = [{"id": order_id, "total_cents": 1250, "currency": "EUR"} for order_id in order_ids]
    notices = [(f"msg_{uuid.uuid4()}", event("payment.succeeded", order)) for order in orders] * 2
    random.Random(4).shuffle(notices)
    providers = [provider_of(server.url) for _ in range(SENDERS)]
    sent = Counter()

    def send(number: int) -> None:
        for webhook_id, notice in notices[number::SENDERS]:
            sent["attempts"] += persistently(providers[number], webhook_id, notice)
            sent["webhooks"] += 1

    with ThreadPoolExecutor(SENDERS) as threads:
        running = [threads.submit(send, number) for number in range(SENDERS)]
        for share in (500, 1_200):
            wait_until(lambda share=share: sent["webhooks"] >= share, 60)
            os.kill(server.worker_pids()[0], signal.SIGKILL)
        for one in running:
            one.result()
    statuses = dict(sql.execute("SELECT status, count(*) FROM orders WHERE id = ANY(%s) GROUP BY 1", [order_ids]))
    events = sql.execute("SELECT sequence, order_id FROM order_events WHERE user_id = %s", [alice.user_id]).fetchall()
    kept = sql.execute("SELECT outcome FROM payment_events WHERE order_id = ANY(%s)", [order_ids]).fetchall()

    assert sent["webhooks"] == 2 * ORDERS
    assert statuses == {"paid": ORDERS}
    assert sorted(sequence for sequence, _ in events) == list(range(1, ORDERS + 1))
    assert {str(order_id) for _, order_id in events} == set(order_ids)
    assert kept == [("applied",)] * ORDERS


def test_the_secret_is_rotated_and_nothing_is_refused(serve, client_of, provider_of):
    new = random_secrets.token_bytes(32)
    first = serve(WEBHOOK_SECRETS=whsec(SECRET))
    carol, provider = client_of(first), provider_of(first.url)
    statuses: list[int] = []
    over = threading.Event()

    def pay() -> None:
        while not over.is_set():
            order = carol.place().json()
            statuses.append(provider.succeeded(order).status_code)

    def some_more() -> None:
        count = len(statuses)
        wait_until(lambda: len(statuses) >= count + 10, 20)

    def restart(secrets: str) -> None:
        """A new process takes over, as in a rolling restart."""
        successor = serve(WEBHOOK_SECRETS=secrets, database_url=first.database_url)
        provider.http.base_url = httpx.URL(successor.url)

    traffic = threading.Thread(target=pay)
    traffic.start()
    try:
        some_more()
        restart(f"{whsec(SECRET)},{whsec(new)}")
        some_more()
        provider.secret = new
        some_more()
        restart(whsec(new))
        some_more()
    finally:
        over.set()
        traffic.join()
    assert set(statuses) == {204}
