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
        self.registry = CollectorRegistry()
        if self.exists:
            MultiProcessCollector(self.registry)
        self.registry.register(_Build(release))
        self.registry.register(_FromDatabase(figures))

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
        resp.data = generate_latest(self.registry)


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
        try:
            found = self.figures()
        except Exception as error:
            if problem_of(error) is None:
                raise
            found = {}
        for name, (value, help_text) in found.items():
            yield GaugeMetricFamily(f"{metrics.PREFIX}{name}", help_text, value=value)
        yield GaugeMetricFamily(
            f"{metrics.PREFIX}database_up", "Whether the database answered this scrape.", value=bool(found)
        )


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
            metrics.pool_failures.labels(kind).inc(pool.get(name, 0) - seen[name])
            seen[name] = pool.get(name, 0)
        time.sleep(SAMPLED_S)


def start_sampling(memcached: Memcached) -> None:
    gevent.spawn(sample_forever, memcached)
