"""One trace id for everything a request does: its header, its errors, its log line (W3C Trace Context)."""

import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import falcon

from orders_api import logs, metrics
from orders_api.db import Statements, statements
from orders_api.reporting import recording, reporter
from orders_api.values import parse_id
from orders_api.web.connections import Wsgi
from orders_api.web.resources import Resource

# Version 00 has exactly these four fields; later ones may add more. ff and ids of zeros alone are invalid.
_TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})-[0-9a-f]{2}"
    r"(?P<more>-.*)?",
    re.ASCII,
)
_SENTRY_TRACE = re.compile(r"(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})(-[01])?", re.ASCII)
TRACE = "orders_api.trace"  # in the WSGI environment
OTHER = "other"  # methods: a client may invent any number of them
NOTHING_SPENT = Statements()
UNRECORDED = frozenset({"/healthz", "/readyz", "/metrics"})


class Trace(NamedTuple):
    """Which trace a request belongs to, and under which span of a caller that told."""

    id: str
    parent_span_id: str | None = None

    @classmethod
    def of(cls, traceparent: str | None, sentry_trace: str | None = None) -> "Trace":
        """The caller's, by a valid traceparent or else a valid sentry-trace; a new one where there is neither."""
        match = _TRACEPARENT.fullmatch(traceparent or "")
        if match and match["version"] == "00" and match["more"]:
            match = None
        match = match or _SENTRY_TRACE.fullmatch(sentry_trace or "")
        return cls(match["trace"], match["span"]) if match else cls(secrets.token_hex(16))


class Traced:
    """WSGI wrapper: knows the trace before anything else, and records it where it is sampled."""

    def __init__(self, application: Wsgi) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        trace = environ[TRACE] = Trace.of(environ.get("HTTP_TRACEPARENT"), environ.get("HTTP_SENTRY_TRACE"))
        if not reporter.samples(trace.id) or environ["PATH_INFO"] in UNRECORDED:
            return self.application(environ, start_response)
        with reporter.transaction("no route", "http.server", *trace):
            return self.application(environ, start_response)


class Tracing:
    """Middleware: gives the request its trace id and its account of statements; writes its log line."""

    def __init__(self, *, server_timing: bool) -> None:
        self.server_timing = server_timing

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.trace_id = req.env[TRACE].id
        req.context.started = time.perf_counter()
        req.context.statements = Statements()
        statements.set(req.context.statements)
        logs.trace_id.set(req.context.trace_id)

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        req.context.order_id = params.get("order_id", "")

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: Resource | None, req_succeeded: bool
    ) -> None:
        spent: Statements = req.context.statements
        verdict = req.context.lookup.verdict if hasattr(req.context, "lookup") else None
        resp.set_header("X-Trace-Id", req.context.trace_id)
        resp.set_header("X-Content-Type-Options", "nosniff")
        if self.server_timing:
            resp.set_header("Server-Timing", server_timing(spent, verdict))
        status, known = int(str(resp.status)[:3]), resource is not None and req.method in resource.methods
        if recording():
            name = f"{req.method if known else OTHER} {req.uri_template}" if req.uri_template else None
            reporter.tag(name, status, **tags_of(req))
        account_for(
            req.context.trace_id,
            req.method,
            req.uri_template,
            status,
            getattr(req.context, "problem", None),
            known=known,
            seconds=time.perf_counter() - req.context.started,
            spent=spent,
            verdict=verdict,
            user_id=str(req.context.user_id) if hasattr(req.context, "user_id") else None,
            client_ip=getattr(req.context, "client_ip", None),
        )


def account_for(
    trace_id: str,
    method: str,
    route: str | None,
    status: int,
    code: str | None,
    *,
    known: bool = True,
    seconds: float = 0.0,
    spent: Statements = NOTHING_SPENT,
    verdict: str | None = None,
    user_id: str | None = None,
    client_ip: str | None = None,
) -> None:
    """Counts an answer and writes its log line. `known`: whether the method is one of the route's."""
    series = metrics.series(metrics.requests, method if known else OTHER, route or "-", str(status), verdict or "-")
    series.observe(seconds)
    if spent.count:
        metrics.statements.inc(spent.count)
        metrics.database_seconds.inc(spent.ms / 1000)
    if code:
        metrics.series(metrics.problems, code).inc()
    logs.write(
        "request",
        trace_id=trace_id,
        method=method,
        route=route,
        status=status,
        code=code,
        duration_ms=round(seconds * 1000, 1),
        statements=spent.count,
        database_ms=round(spent.ms, 1),
        cache=verdict,
        user_id=user_id,
        client_ip=client_ip,
    )


def server_timing(spent: Statements, verdict: str | None = None) -> str:
    cache = f', cache;desc="{verdict}"' if verdict else ""
    return f'db;dur={spent.ms:.1f};desc="{spent.count} statements"{cache}'


def tags_of(req: falcon.Request) -> dict[str, Any]:
    """By what a request is found again: its code, its user, its order, as far as they are known.

    What a client calls an order is parsed here, and not in each request: few are told of.
    """
    return {
        "code": getattr(req.context, "problem", None),
        "user_id": getattr(req.context, "user_id", None),
        "order_id": parse_id(str(getattr(req.context, "order_id", ""))),
    }
