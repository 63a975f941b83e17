# Before anything else: psycopg chooses how it waits when it is imported, and unpatched it blocks the whole worker.
from gevent import monkey

monkey.patch_all()

import atexit
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import psycopg.waiting

import orders_api.bypasses  # noqa: F401  (before the fork: the workers share its table)
from orders_api.logs import LOGGING
from orders_api.settings import SettingError, Settings

EX_CONFIG = 78  # sysexits.h: something is wrong with the configuration
# Python looks for cycles when there are so many objects more than the last time. At its own 700 (3.11) that is often
# while many requests are in flight, and few of theirs are cycles.
COLLECT_AFTER = 10_000

try:
    settings = Settings.from_env()
except SettingError as error:
    print(f"orders-api: {error}", file=sys.stderr)
    sys.exit(EX_CONFIG)

wsgi_app = "orders_api.wsgi:application"
# In development nobody else on the network should reach the demo user.
bind = f"{'0.0.0.0' if settings.production else '127.0.0.1'}:{settings.port}"  # noqa: S104
workers = settings.web_concurrency
worker_class = "orders_api.web.edge.Worker"
# It counts idle keep-alive connections too; the work itself is bounded by the application's admission.
worker_connections = 1000
preload_app = False  # sockets and pools are never shared between workers
control_socket_disable = True

# A request is over within 24 s (orders_api/db.py) < graceful 25 s < the 30 s of a platform's router and its SIGKILL.
timeout = 30  # a heartbeat: it ends a worker whose loop hangs, not a slow request
graceful_timeout = 25
keepalive = 5  # seconds; longer ones delay the end of a worker
if workers > 1:  # a single worker would be missing while it is replaced
    max_requests = 100_000
    max_requests_jitter = 20_000

limit_request_line = 8190  # the most it takes: a cursor that is too long should reach the application
limit_request_fields = 64
limit_request_field_size = 8190
forwarded_allow_ips = ""  # the scheme and the client are the application's to decide (TRUSTED_PROXY_HOPS)

accesslog = None  # the application logs each request itself, with its trace id
errorlog = "-"
logconfig_dict = LOGGING

if Path("/dev/shm").is_dir():  # noqa: S108  (a heartbeat file on a slow disk can stall a worker)
    worker_tmp_dir = "/dev/shm"  # noqa: S108

# At its end Python looks through all there is for cycles: a third of what a start and a stop cost the processor.
atexit.register(gc.freeze)

# Where the workers count. By USR2 a new master inherits the old one's environment, and needs a folder of its own.
_METRICS, _OURS = "PROMETHEUS_MULTIPROC_DIR", f"orders-metrics-{os.getpid()}-"
if not settings.metrics_token:
    os.environ.pop(_METRICS, None)
elif _OURS not in os.environ.get(_METRICS, ""):
    os.environ[_METRICS] = tempfile.mkdtemp(prefix=_OURS, dir=globals().get("worker_tmp_dir"))


def pre_fork(server, worker):
    """The lowest number that no living worker has."""
    taken = {getattr(other, "slot", None) for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)


def post_fork(server, worker):
    from orders_api import metrics

    metrics.take_slot(worker.slot)


def child_exit(server, worker):
    """A worker that is gone has nothing in flight any more; what it counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    if _METRICS in os.environ:
        mark_process_dead(worker.slot)


def on_exit(server):
    if _METRICS in os.environ:
        shutil.rmtree(os.environ[_METRICS], ignore_errors=True)


def post_worker_init(worker):
    """A worker that would block on its database must not serve. What is loaded by now is there for good."""
    wait_c = getattr(psycopg.waiting, "wait_c", None)
    assert wait_c is None or psycopg.waiting.wait is not wait_c, "psycopg was imported before gevent's patch"
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def worker_exit(server, worker):
    """Gives the connections back, so that PostgreSQL logs no lost client for each; reports what is left to report."""
    from orders_api.db import db
    from orders_api.reporting import reporter

    for what, shut in (("the pool", db.shut), ("the reporter", reporter.shut)):
        try:
            shut()
        except Exception as error:  # the worker is leaving anyway
            worker.log.warning("%s did not close: %s", what, type(error).__name__)
