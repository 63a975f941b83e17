"""`orders-api deliver`: sends what is due, some at a time, until it is told to stop. Any number may run at once."""

import signal
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from uuid import UUID

import psycopg
import structlog
from peewee import PeeweeException

from orders_api.db import db
from orders_api.errors import Problem
from orders_api.reporting import reporter
from orders_api.webhooks import dispatch, sender
from orders_api.webhooks.dispatch import Job, Result

log = structlog.get_logger("orders_api.webhooks")

THREADS = 16
POLL_S = 0.5
GRACE_S = sender.TIMEOUT_S + 5  # for what is on its way when we are told to stop
AFTER_TROUBLE_S = 2.0

Flying = dict[Future[Result], Job]


class Worker:
    """All statements are made by one thread, all requests by others."""

    def __init__(self, *, allow_private: bool) -> None:
        self.allow_private = allow_private
        # Not an Event: set by a handler that interrupts its own wait(), it would wait for its own lock, for good.
        self.over = False

    def heed_signals(self) -> None:
        """From now on SIGTERM and SIGINT end `run`, also when they come before it."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)

    def _stop(self, *_: object) -> None:
        self.over = True

    def pause(self, seconds: float) -> None:
        """Not cut short by a signal; so it is short."""
        if not self.over:
            time.sleep(seconds)

    def run(self) -> None:
        """Returns after a signal, when the attempts that are on their way are written down."""
        flying: Flying = {}
        with ThreadPoolExecutor(THREADS, "deliver") as threads:
            while not self.over:
                self._turn(threads, flying)
            give_up = time.monotonic() + GRACE_S
            while flying and time.monotonic() < give_up:
                self._land(flying)

    def _turn(self, threads: ThreadPoolExecutor, flying: Flying) -> None:
        try:
            dispatch.fan_out()
            jobs = dispatch.claim(THREADS - len(flying), _busy(flying)) if len(flying) < THREADS else []
        except (PeeweeException, psycopg.Error, Problem) as error:
            log.warning("the database can't be asked", error=type(error).__name__)
            db.close()
            self.pause(AFTER_TROUBLE_S)
            return
        for job in jobs:
            flying[threads.submit(self._attempt, job)] = job
        if flying:
            self._land(flying)
        else:
            self.pause(POLL_S)

    def _attempt(self, job: Job) -> Result:
        """Goes on with the trace of the request that made the event."""
        if not reporter.samples(job.trace_id):
            return sender.attempt(job, allow_private=self.allow_private)
        with reporter.transaction("deliver webhook", "queue.process", job.trace_id):
            result = sender.attempt(job, allow_private=self.allow_private)
            reporter.tag(
                status=result.status,
                endpoint_id=job.endpoint_id,
                order_id=job.order_id,
                user_id=job.user_id,
                attempt=job.number,
            )
            return result

    def _land(self, flying: Flying) -> None:
        """Writes down what has come back within a moment. What can't be written is sent again: its lease ends."""
        done, _ = wait(flying, timeout=POLL_S, return_when=FIRST_COMPLETED)
        for future in done:
            job, result = flying.pop(future), future.result()
            log.info(
                "webhook attempt",
                trace_id=job.trace_id,
                endpoint_id=str(job.endpoint_id),
                sequence=job.sequence,
                number=job.number,
                status=result.status,
                error=result.error,
                duration_ms=result.duration_ms,
            )
            try:
                dispatch.record(job, result)
            except (PeeweeException, psycopg.Error, Problem) as error:
                log.warning("an attempt could not be written down", error=type(error).__name__)
                db.close()


def _busy(flying: Flying) -> list[UUID]:
    """Users who have their share of this worker. One with fewer may get a few over it: the share counts a claim."""
    return [
        user_id
        for user_id, count in Counter(job.user_id for job in flying.values()).items()
        if count >= dispatch.PER_USER
    ]
