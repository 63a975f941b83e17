"""Sentry: a trace of some requests, an event for what went wrong on our side, and nothing that is anybody's secret.

The SDK is touched only for what is sent. Its own Falcon integration costs each request 0.11 ms, sampled or not (a whole
cached read: at most 0.36), and makes an event of 0.8 ms of every refusal: an overloaded service would spend itself on
reports.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import sentry_sdk
import structlog
from sentry_sdk.tracing import Span, Transaction
from sentry_sdk.utils import event_from_exception

from orders_api import scrubbing
from orders_api.settings import Settings

log = structlog.get_logger("orders_api.reporting")

# Of errors of one kind, in one process. A defect that every request meets is reported, not multiplied.
EVENT_EVERY_S = 1.0
FLUSH_S = 2.0
QUEUED = 100  # envelopes that wait for a slow Sentry; what comes past that is dropped

_NOTHING: AbstractContextManager[None] = nullcontext()
_recording: ContextVar[Transaction | None] = ContextVar("recording", default=None)


class Reporter:
    """One process's way to Sentry. Until it is opened with a DSN, everything here does nothing."""

    def __init__(self) -> None:
        self.on = False
        self.rate = 0.0
        self._key = b""
        self._reported_at: dict[tuple[str, ...], float] = {}

    def open(self, settings: Settings) -> None:
        """Call after the fork: the SDK sends from a thread of its own."""
        if settings.sentry_dsn is not None:
            self.decide_as(settings.sentry_dsn, settings.sentry_traces_rate)
            sentry_sdk.init(
                dsn=settings.sentry_dsn,
                release=settings.release or "",  # None: the SDK would ask git
                debug=False,
                keep_alive=False,
                environment=settings.environment,
                traces_sample_rate=1.0,  # of what we decided to record
                integrations=[],
                default_integrations=False,
                auto_enabling_integrations=False,
                auto_session_tracking=False,
                enable_backpressure_handling=False,
                send_default_pii=False,
                max_request_body_size="never",
                max_breadcrumbs=0,
                transport_queue_size=QUEUED,
                shutdown_timeout=FLUSH_S,
                in_app_include=["orders_api"],
                before_send=_without_secrets,
            )

    def decide_as(self, dsn: str, rate: float) -> None:
        """Which traces are recorded from here on."""
        self.on, self.rate, self._key = True, rate, hashlib.sha256(dsn.encode()).digest()

    def shut(self) -> None:
        """Sends what is left, for two seconds at the most."""
        if self.on:
            sentry_sdk.flush(FLUSH_S)

    def samples(self, trace_id: str) -> bool:
        """Whether a trace is recorded: decided by its id, so that all who report to one Sentry agree."""
        if not self.on:
            return False
        # Keyed: a caller chooses the id, and not all ids are random at their beginning.
        digest = hashlib.blake2b(trace_id.encode(), key=self._key, digest_size=4).digest()
        return int.from_bytes(digest) < self.rate * 2**32

    @contextmanager
    def transaction(self, name: str, op: str, trace_id: str, parent_span_id: str | None = None) -> Iterator[None]:
        """Records what happens inside, `span`s included."""
        transaction = Transaction(
            name=name, op=op, source="route", trace_id=trace_id, parent_span_id=parent_span_id, sampled=True
        )
        with sentry_sdk.isolation_scope(), sentry_sdk.start_transaction(transaction):
            transaction.sample_rate = self.rate
            token = _recording.set(transaction)
            try:
                yield
            finally:
                _recording.reset(token)

    def tag(self, name: str | None = None, status: int | None = None, **tags: Any) -> None:
        """Says more of what is being recorded here and now: what it is called, its HTTP status, tags."""
        transaction = _recording.get()
        if transaction is None:
            return
        if name is not None:
            transaction.name = name
        if status is not None:
            transaction.set_http_status(status)
        for tag, value in tags.items():
            if value is not None:
                transaction.set_tag(tag, str(value))

    def report(self, error: BaseException, kind: str, trace_id: str, **tags: Any) -> None:
        """An event for an error of ours. `kind`: of equal ones there is one a second."""
        if self._is_due((type(error).__name__, kind)):
            with _unharmed():
                options = sentry_sdk.get_client().options
                mechanism = {"type": "orders_api", "handled": False}
                event, hint = event_from_exception(error, client_options=options, mechanism=mechanism)
                self._send(event, hint, trace_id, tags)

    def warn(self, message: str, kind: str, trace_id: str, **tags: Any) -> None:
        """An event for what a person should look at, though nothing went wrong with us. One a second of a kind."""
        if self._is_due((message, kind)):
            with _unharmed():
                self._send({"level": "warning", "message": message}, None, trace_id, tags)

    def _is_due(self, kind: tuple[str, ...]) -> bool:
        now = time.monotonic()
        if not self.on or now - self._reported_at.get(kind, -EVENT_EVERY_S) < EVENT_EVERY_S:
            return False
        self._reported_at[kind] = now
        return True

    def _send(self, event: Any, hint: Any, trace_id: str, tags: dict[str, Any]) -> None:
        with sentry_sdk.isolation_scope() as scope:
            sentry_sdk.continue_trace({"sentry-trace": f"{trace_id}-{trace_id[16:]}"})
            for name, value in tags.items():
                if value is not None:
                    scope.set_tag(name, str(value))
            if tags.get("user_id"):
                scope.set_user({"id": str(tags["user_id"])})
            sentry_sdk.capture_event(event, hint=hint)


def recording() -> bool:
    """Whether what happens here and now is being recorded."""
    return _recording.get() is not None


def span(op: str, name: str) -> AbstractContextManager[Any]:
    """A part of what is being recorded; nothing where nothing is. `name` tells what, never whose or how much."""
    transaction = _recording.get()
    return _NOTHING if transaction is None else _part(transaction, op, name)


@contextmanager
def _unharmed() -> Iterator[None]:
    """Who reports an error must not meet another."""
    try:
        yield
    except Exception as failure:
        log.warning("not reported", error=type(failure).__name__)


@contextmanager
def _part(transaction: Transaction, op: str, name: str) -> Iterator[Span]:
    # Not by the SDK's scopes: they would nest what merely happens one after the other, at twice the cost.
    part = transaction.start_child(op=op, name=name)
    try:
        yield part
    finally:
        part.finish()


def _without_secrets(event: Any, _hint: Any) -> Any:
    for raised in event.get("exception", {}).get("values", []):
        raised["value"] = scrubbing.message(raised.get("value") or "")
        for frame in raised.get("stacktrace", {}).get("frames", []):
            frame["vars"] = {name: scrubbing.variable(value) for name, value in frame.get("vars", {}).items()}
    return event


reporter = Reporter()
