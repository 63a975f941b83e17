"""`/metrics`: what all workers counted, and how things stand now (Prometheus text format)."""

import hmac
import time
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import falcon
import gevent
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

import orders_api
from orders_api import metrics
from orders_api.admission import Priority, in_flight
from orders_api.db import db, problem_of
from orders_api.errors import Problem
from orders_api.memcached import Memcached
from orders_api.web.authentication import token_of
from orders_api.web.operations import Answer, operation
from orders_api.web.resources import Resource

SAMPLED_S = 1.0
# psycopg_pool counts these since the worker's start; ours go on when a worker is replaced.
FAILURES = {"connections_errors": "not_made", "connections_lost": "lost"}

Figures = Callable[[], Mapping[str, tuple[float, str]]]


class MetricsByToken(Resource):
    """`/metrics`, for whoever knows METRICS_TOKEN. `figures`: gauges read from the database, each with its help."""

    authenticated = False
    limits: ClassVar[tuple[str, ...]] = ("ip",)  # the token can't be guessed at any speed
    priority = Priority.HEALTH

    def __init__(self, token: str | None, release: str | None, figures: Figures) -> None:
        self.exists = token is not None
        self.token = token or ""
        self.counted, self.now = CollectorRegistry(), CollectorRegistry()
        if self.exists:
            MultiProcessCollector(self.counted)
        self.now.register(_Build(release))
        self.now.register(_FromDatabase(figures))

    @operation(
        "metrics",
        "What was counted, over all workers",
        "For Prometheus. Without the setting `METRICS_TOKEN` there is no such route.",
        Answer(200, "The text format of Prometheus.", media_types=("text/plain",)),
        problems=("token_missing", "token_invalid", "route_not_found", "internal_error"),
        security="metrics",
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        if not hmac.compare_digest(token_of(req).encode(), self.token.encode()):
            raise Problem("token_invalid")
        resp.content_type = CONTENT_TYPE_LATEST
        resp.set_header("Cache-Control", "no-store")
        # On a thread: to read the files of all workers takes a while, and the worker would stand still.
        counted = gevent.get_hub().threadpool.apply(generate_latest, (self.counted,))
        resp.data = counted + generate_latest(self.now)


class _Build:
    def __init__(self, release: str | None) -> None:
        self.labels = {"version": orders_api.__version__, "release": release or ""}

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(f"{metrics.PREFIX}build_info", "Which build answers.", labels=list(self.labels))
        build.add_metric(list(self.labels.values()), 1)
        yield build


class _FromDatabase:
    """Without a database the figures are left out, and the rest is told: that is when somebody looks."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures

    def collect(self) -> Iterator[Metric]:
        found: Mapping[str, tuple[float, str]] = {}
        up = True
        try:
            found = self.figures()
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                raise
            up = problem.code != "database_unavailable"  # not where it merely has too much to do
        for name, (value, help_text) in found.items():
            yield GaugeMetricFamily(f"{metrics.PREFIX}{name}", help_text, value=value)
        yield GaugeMetricFamily(f"{metrics.PREFIX}database_up", "Whether the database answered this scrape.", value=up)


def sample_forever(memcached: Memcached) -> None:
    """Writes down once a second how this worker stands: a scrape reaches only one of them."""
    seen = dict.fromkeys(FAILURES, 0)
    while True:
        door, pool = in_flight.admission, db.pool_statistics()
        metrics.in_flight.set(door.in_use)
        metrics.waiting.set(door.waiting)
        metrics.pool_in_use.set(db.admission.in_use)
        metrics.pool_waiting.set(db.admission.waiting)
        metrics.pool_size.set(pool.get("pool_size", 0))
        metrics.breakers_open.set(memcached.broken)
        for name, kind in FAILURES.items():
            count = pool.get(name, seen[name])  # at the end there is no pool any more
            metrics.pool_failures.labels(kind).inc(count - seen[name])
            seen[name] = count
        time.sleep(SAMPLED_S)


def start_sampling(memcached: Memcached) -> None:
    gevent.spawn(sample_forever, memcached)
