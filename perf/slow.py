"""`make slow`: slow clients against the service without a proxy, while others are served as always.

In each round the acceptance profile is sent without slow clients, then with COUNT of them of each mode, in another
order each time. From the environment: SECONDS a measurement (10), ROUNDS (3), RATE (100), ONLY="slow read,never reads"
(then nothing is written).
"""

import os
import random
import statistics
import sys
from collections import defaultdict
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from orders_api.values import new_id, now
from perf import figures
from perf.crowd import NO_TRACE
from perf.generator import Crowd
from perf.leftovers import complaints_of, held, settled
from perf.load import RATE, verdict
from perf.slow_clients import COUNT, Attack, SlowClients, SlowHttpTest, modes
from perf.stack import ROOT, Served, Stack, User, seed_users, tokens
from perf.traffic import MIX

SECONDS, ROUNDS = 10, 3
WARM_UP_S = 2
MOST_SLOWER = 2.0  # p99 with slow clients over p99 without
# Without logins: they are one in a hundred, and take as long as a niced hash does. To be or not to be in the hundredth
# part would decide.
HONEST = {operation: share for operation, share in MIX.items() if operation != "login"}
ALONE = "nobody"
SHOWN = ("slow clients", "p99_ms", "ratio", "rounds_p99_ms")
LARGE = (100, 25, "Lamp " * 40)  # orders, items of each, their names: 750 KB a page
SETTINGS = {"RATE_LIMIT_AUTH": "1000000/minute"}  # of one address, which slowhttptest is: it must not be what helps


def main() -> int:
    seconds, rounds = figures.given("SECONDS") or SECONDS, int(os.environ.get("ROUNDS") or ROUNDS)
    rate = figures.given("RATE") or RATE
    busy = figures.busy_with_others()
    with Stack() as stack:
        served = stack.serve(**SETTINGS)
        trial = Trial(stack, served, rate, seconds)
        trial.crowd.send([(rate, WARM_UP_S)])
        before = held(served)
        for _ in range(rounds):
            for name in random.sample([ALONE, *trial.names], 1 + len(trial.names)):
                trial.measure(name)
        left = settled(served, before)
        wrong = [*trial.complaints(), *complaints_of(before, left)]
        print(figures.table([{name: row[name] for name in SHOWN} for row in trial.rows()]))
        print(f"Held before, {before}; afterwards, {left}")
        found = {"clients": COUNT, "rate": rate, "seconds": seconds, "rounds": rounds, "modes": trial.rows()}
        found |= {"slowhttptest": SlowHttpTest.installed(), "held_before": before, "held_afterwards": left}
        if not os.environ.get("ONLY"):
            kept = figures.keep("slow", served.env, busy, {"passed": not wrong, "complaints": wrong, **found})
            print(f"Kept in {kept.relative_to(ROOT)}")
        return verdict(wrong)


class Trial:
    """Measurements of the honest beside slow clients, by the latters' name."""

    def __init__(self, stack: Stack, served: Served, rate: float, seconds: float) -> None:
        self.crowd = Crowd(stack, served)
        self._stack, self._served, self._rate, self._seconds = stack, served, rate, seconds
        self._user = seed_users(stack.database_url, 1)[0]
        place_large_orders(stack.database_url, self._user)
        self.names = [mode.name for mode in modes("")]
        if SlowHttpTest.installed():
            self.names += [f"slowhttptest {flag}" for flag in SlowHttpTest.URLS]
        if only := os.environ.get("ONLY"):
            self.names = only.split(",")
        self._p99_ms: dict[str, list[float]] = defaultdict(list)
        self._reports: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._wrong: list[str] = []

    def measure(self, name: str) -> None:
        if name == ALONE:
            self._send(name)
            return
        with self._attack(name) as attack:
            self._send(name)
            attack.wait()
            self._reports[name].append(attack.report())
            self._wrong += attack.complaints()
        print(f"{name}: p99 {self._p99_ms[name][-1]:.1f} ms, {self._reports[name][-1]}", flush=True)

    def rows(self) -> list[figures.Row]:
        alone = statistics.median(self._p99_ms[ALONE])
        rows = [{"slow clients": ALONE, "p99_ms": alone, "ratio": 1.0, "reports": []}]
        for name in self.names:
            p99 = statistics.median(self._p99_ms[name])
            reports = self._reports[name]
            rows.append({"slow clients": name, "p99_ms": p99, "ratio": round(p99 / alone, 2), "reports": reports})
        return [{**row, "rounds_p99_ms": self._p99_ms[row["slow clients"]]} for row in rows]

    def complaints(self) -> list[str]:
        slower = [row for row in self.rows() if row["ratio"] > MOST_SLOWER]
        ratios = [f"{row['slow clients']}: the others' p99 is {row['ratio']} times that without" for row in slower]
        return [*self._wrong, *ratios]

    def _send(self, name: str) -> None:
        sent = self.crowd.send([(self._rate, WARM_UP_S + self._seconds)], HONEST)
        samples = [sample for sample in sent.samples if sample[0] >= WARM_UP_S]
        p99 = figures.percentile([sample[3] * 1000 for sample in samples], 0.99)
        self._p99_ms[name].append(round(p99, 1))
        self._wrong += [f"{name}: {text}, {count} times" for text, count in figures.outcomes(samples).items()]

    def _attack(self, name: str) -> Attack:
        if name.startswith("slowhttptest"):
            return SlowHttpTest(self._served.port, name.split()[1], self._stack.home)
        (token,) = tokens(self._served, [self._user])
        mode = next(mode for mode in modes(token) if mode.name == name)
        return SlowClients(self._served.port, mode)


def place_large_orders(conninfo: str, user: User) -> None:
    """A page that no kernel takes whole on behalf of a client that does not read."""
    user_id, (orders, items, name) = user[0], LARGE
    with psycopg.connect(conninfo) as connection:
        ids = [new_id() for _ in range(orders)]
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO orders (user_id, id, currency, total_cents, created_at, updated_at)"
                " VALUES (%s, %s, 'EUR', %s, %s, %s)",
                [(user_id, order_id, items, now(), now()) for order_id in ids],
            )
            cursor.executemany(
                "INSERT INTO order_items (user_id, order_id, position, sku, name, quantity, unit_price_cents)"
                " VALUES (%s, %s, %s, 'sku-1', %s, 1, 1)",
                [(user_id, order_id, position, name) for order_id in ids for position in range(items)],
            )
            cursor.executemany(
                "INSERT INTO order_events (user_id, sequence, order_id, type, data, trace_id, created_at)"
                " VALUES (%s, %s, %s, 'order.created', %s, %s, %s)",
                [(user_id, number, id_, Jsonb({}), NO_TRACE, now()) for number, id_ in enumerate(ids, 1)],
            )
        connection.execute("UPDATE feeds SET last_sequence = %s WHERE user_id = %s", (orders, user_id))


if __name__ == "__main__":
    sys.exit(main())
