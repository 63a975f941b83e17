"""One trace id for everything a request does: its header, its errors, its log line (W3C Trace Context)."""

import re
import secrets
import time

import falcon
import structlog

from orders_api import logs, metrics
from orders_api.db import Statements, statements
from orders_api.web.resources import METHODS, Resource

# Version 00 has exactly these four fields; later ones may add more. ff and ids of zeros alone are invalid.
_TRACEPARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?",
    re.ASCII,
)


def trace_id_of(traceparent: str | None) -> str:
    """The trace id of a valid traceparent, else a new one."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match and not (match["version"] == "00" and match["more"]):
        return match["trace"]
    return secrets.token_hex(16)


class Tracing:
    """Middleware: gives the request its trace id and its account of statements; writes its log line."""

    def __init__(self, *, server_timing: bool) -> None:
        self.server_timing = server_timing

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        req.context.trace_id = trace_id_of(req.get_header("traceparent"))
        req.context.started = time.perf_counter()
        req.context.statements = Statements()
        statements.set(req.context.statements)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(trace_id=req.context.trace_id)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: Resource | None, req_succeeded: bool
    ) -> None:
        spent: Statements = req.context.statements
        verdict = req.context.lookup.verdict if hasattr(req.context, "lookup") else None
        resp.set_header("X-Trace-Id", req.context.trace_id)
        resp.set_header("X-Content-Type-Options", "nosniff")
        if self.server_timing:
            cache = f', cache;desc="{verdict}"' if verdict else ""
            resp.set_header("Server-Timing", f'db;dur={spent.ms:.1f};desc="{spent.count} statements"{cache}')
        _count(req, resp, spent, verdict)
        logs.write(
            "request",
            trace_id=req.context.trace_id,
            method=req.method,
            route=req.uri_template,
            status=int(str(resp.status)[:3]),
            code=getattr(req.context, "problem", None),
            duration_ms=round((time.perf_counter() - req.context.started) * 1000, 1),
            statements=spent.count,
            database_ms=round(spent.ms, 1),
            cache=verdict,
            user_id=str(req.context.user_id) if hasattr(req.context, "user_id") else None,
            client_ip=getattr(req.context, "client_ip", None),
        )


def _count(req: falcon.Request, resp: falcon.Response, spent: Statements, verdict: str | None) -> None:
    method = req.method if req.method in METHODS else "other"  # a client may invent any number of them
    seconds = time.perf_counter() - req.context.started
    metrics.requests.labels(method, req.uri_template or "-", str(resp.status)[:3], verdict or "-").observe(seconds)
    if spent.count:
        metrics.statements.inc(spent.count)
        metrics.database_seconds.inc(spent.ms / 1000)
    if hasattr(req.context, "problem"):
        metrics.problems.labels(req.context.problem).inc()
