"""What is counted, under which name (Prometheus). Every counter that the code has is in this list.

Each worker counts in files of its own, and `/metrics` adds up all workers' (web/metrics.py). One increment costs 1 µs.
"""

import functools
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, values

PREFIX = "orders_"

# Files are named by slots that a worker takes over from one that ended. By process, as the library names them, each
# worker that is recycled would leave its files, and a scrape would soon add up thousands.
_slot = "master"
if values.ValueClass._multiprocess:
    values.ValueClass = values.MultiProcessValue(lambda: _slot)

# In seconds. The promises of the service are among them: 0.2 (acceptance), 0.3 (in a storm), 1 (a place or a refusal).
DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2.5, 5, 10)
WAITS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5)


def _counter(name: str, help_text: str, *labels: str) -> Counter:
    return Counter(f"{PREFIX}{name}_total", help_text, labels)


def _gauge(name: str, help_text: str) -> Gauge:
    return Gauge(f"{PREFIX}{name}", help_text, multiprocess_mode="livesum")


requests = Histogram(
    f"{PREFIX}request_duration_seconds",
    "Requests that reached the application; cache: what memcached said, - where nobody asked it.",
    ("method", "route", "status", "cache"),
    buckets=DURATIONS,
)
problems = _counter("problems", "Refusals and failures by their code.", "code")
broken_requests = _counter("broken_requests", "Requests that were no HTTP, and got gunicorn's plain 400.")

in_flight = _gauge("requests_in_flight", "Requests that workers are at work on.")
waiting = _gauge("requests_waiting", "Requests that wait at a worker's door.")
shed = _counter("shed", "Requests refused with 503 overloaded, by what they waited for.", "place", "priority")
waits = Histogram(f"{PREFIX}wait_seconds", "How long those waited who found no place free.", ("place",), buckets=WAITS)

statements = _counter("database_statements", "Round trips to the database made for requests.")
database_seconds = _counter("database_seconds", "Seconds spent in them.")
pool_size = _gauge("database_pool_connections", "Connections that the pools hold.")
pool_in_use = _gauge("database_pool_in_use", "Connections that requests hold.")
pool_waiting = _gauge("database_pool_waiting", "Requests that wait for a connection.")
pool_failures = _counter("database_pool_failures", "Connections that could not be made, or were lost.", "kind")

cache_lookups = _counter("cache_lookups", "Questions to the cache by what came of them.", "kind", "verdict")
cache_lock_waits = _counter("cache_lock_waits", "Requests that waited for a value that another was loading.")
cache_bypasses = _counter("cache_bypasses", "Writes that memcached could not be told of: their scope bypasses it.")
memcached_failures = _counter("memcached_failures", "Timeouts and errors, each of which opens the breaker.", "server")
breakers_open = _gauge("memcached_breakers_open", "Breakers that are open now, of all workers and servers.")

limit_denials = _counter("rate_limit_denials", "Requests refused with 429 by which limit.", "policy")
limit_fallbacks = _counter("rate_limit_fallbacks", "Hits counted by one process alone, memcached being down.", "policy")

logins = _counter("login_attempts", "succeeded, failed, locked, busy (too many at once).", "outcome")
lockouts = _counter("lockouts", "Emails locked after too many failures.")
replays = _counter("idempotent_replays", "Requests answered with what an earlier one had stored.")
payment_webhooks = _counter("payment_webhooks", "What came of each: an outcome, or the code of a refusal.", "outcome")


@functools.lru_cache(1024)
def series(metric: Any, *labels: str) -> Any:
    """`metric.labels(…)`, remembered where each request needs it: the library looks labels up for 3 µs."""
    return metric.labels(*labels)


def take_slot(slot: int) -> None:
    """Call in a worker right after the fork."""
    global _slot
    _slot = str(slot)
