"""Stampedes: of many who want one cold value one loads it, and nobody waits for a dead one."""

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg

from orders_api.orders.models import ORDERS
from tests.client import Client
from tests.conftest import Server
from tests.web.raw import get, read, sent, wait_until
from tests.web.test_cache import opened

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def statements_of(raw: bytes) -> int:
    found = re.search(rb'desc="(\d+) statements"', raw)
    return int(found[1]) if found else -1


def test_200_cold_readers_of_one_page_cause_at_most_2_loads(server: Server, alice: Client, sql: psycopg.Connection):
    alice.place()
    request = get("/orders?limit=7", f"Authorization: Bearer {alice.access_token}")
    with psycopg.connect(server.database_url) as holder:
        holder.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        with sent(server.port, [request] * 200) as crowd:
            wait_until(lambda: sql.execute(WAITING).fetchone()[0] >= 1)
            time.sleep(0.05)  # the load goes on for a while, and the crowd gathers
            holder.rollback()
            answers = [read(one) for one in crowd]

    assert Counter(answer.status for answer in answers) == {200: 200}
    assert sum(statements_of(answer.raw) > 0 for answer in answers) <= 2


def test_nobody_waits_longer_than_a_second_for_a_holder_that_died(alice: Client, memcached: str):
    alice.place()
    path, user_id = "/orders?limit=9", str(alice.user_id)
    scope = ORDERS.scope(user_id)
    with opened(memcached) as cache:
        batch = cache.memcached.batch()
        lock = f"lock:value:{len(scope.name)}:{scope.name}:7:{path}"
        reply = batch.set(user_id, lock, b"", 30, b"ME c")
        batch.run()
    assert reply.stored

    def timed(_: int) -> tuple[int, float]:
        start = time.monotonic()
        return alice.get(path).status_code, time.monotonic() - start

    with ThreadPoolExecutor(8) as readers:
        answers = list(readers.map(timed, range(8)))

    assert {status for status, _ in answers} == {200}
    assert max(took_s for _, took_s in answers) < 1.5  # 0.8 s; to wait twice would take 1.6
    assert max(took_s for _, took_s in answers) > 0.5, "nobody met the lock"


def test_a_lock_is_released_by_its_owner_alone(memcached: str):
    with opened(memcached) as cache:
        ask = cache.memcached.batch()
        mine = ask.set("home", "a lock", b"", 30, b"ME c")
        ask.run()
        gone = cache.memcached.batch()
        theirs = gone.delete("home", "a lock", mine.number(b"c") + 1)
        still = gone.get("home", "a lock")
        ours = gone.delete("home", "a lock", mine.number(b"c"))
        gone.run()

    assert (theirs.stored, still.value, ours.stored) == (False, b"", True)
