"""The door, as the worker's edge sees it: who would be refused at once is refused before anything is made of it.

In a storm most are refused, and what that costs is taken from those who are accepted: 0.37 ms of a core by the
application, with WSGI's environment, the middleware and an exception; 0.09 here. The answer is the same, but for the
headers that gunicorn adds. Who needs another one gets it from the application, whose door is as closed.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
import orjson
from falcon.routing import CompiledRouter

from orders_api.admission import in_flight
from orders_api.errors import Problem
from orders_api.reporting import reporter
from orders_api.settings import Settings
from orders_api.web import problems
from orders_api.web.admission import priority_of
from orders_api.web.connections import Wsgi
from orders_api.web.rate_limits import Limiter, client_ip
from orders_api.web.resources import Resource
from orders_api.web.tracing import NOTHING_SPENT, Trace, account_for, server_timing

NOWHERE = None, None, None, None  # as the router tells a resource, its methods, the path's parameters, the template
# Whose answer is another one: it is waited for before the body is sent, or has to be readable for an origin.
NOT_PLAIN = frozenset({"EXPECT", "ORIGIN"})


class Shedding:
    """WSGI wrapper: says what the edge may answer in its place."""

    def __init__(self, application: Wsgi, router: CompiledRouter, limiter: Limiter, settings: Settings) -> None:
        self.application = application
        self.router = router
        self.limiter = limiter
        self.hops = settings.trusted_proxy_hops
        self.headers = "Vary: Origin\r\n" if settings.cors_origins else ""
        if settings.server_timing:
            self.headers += f"Server-Timing: {server_timing(NOTHING_SPENT)}\r\n"

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return self.application(environ, start_response)

    def refusal(self, request: Any) -> bytes | None:
        """The whole answer to a request that finds the door closed, counted and logged; None: ask the application.

        `request`: as gunicorn has read it (gunicorn.http.message.Request), its body not yet.
        """
        # A busy keep-alive client would otherwise keep a worker to itself. Before the door is looked at: the others
        # that have come are before this one then, and what is refused behind this edge costs more.
        gevent.sleep(0)
        began = time.perf_counter()
        if not in_flight.admission.full or not _is_plain(request):
            return None
        resource, _, _, route = self.router.find(request.path) or NOWHERE
        if not isinstance(resource, Resource) or request.method not in resource.methods:
            return None
        trace_id = _trace_id(request)
        socket_ip = request.peer_addr[0] if isinstance(request.peer_addr, tuple) else ""
        whose = client_ip(socket_ip, _header(request, "X-FORWARDED-FOR"), self.hops)
        priority = priority_of(request.method, resource, self.limiter.is_used_up(whose))
        if reporter.samples(trace_id) or not in_flight.turns_away(priority):
            return None
        return self._answer(request, str(route), trace_id, whose, time.perf_counter() - began)

    def _answer(self, request: Any, route: str, trace_id: str, whose: str, seconds: float) -> bytes:
        problem = Problem("overloaded", after_s=1)
        reporter.report(problem, f"{problem.code} {route}", trace_id, route=route, code=problem.code)
        status, code = problem.type.status, problem.code
        account_for(trace_id, request.method, route, status, code, seconds=seconds, client_ip=whose)
        body = orjson.dumps(problems.document(problem, trace_id))
        head = (
            f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {problems.MEDIA_TYPE}\r\nCache-Control: no-store\r\n"
            f"Retry-After: {problem.after_s}\r\nX-Trace-Id: {trace_id}\r\nX-Content-Type-Options: nosniff\r\n"
            f"{self.headers}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def _is_plain(request: Any) -> bool:
    """Whether the connection stays open, and the answer depends on nothing but the trace."""
    if request.version != (1, 1) or request.method == "HEAD" or request.should_close():
        return False
    return NOT_PLAIN.isdisjoint(name for name, _ in request.headers)


def _trace_id(request: Any) -> str:
    """The application's: in WSGI's environment lines of one name are one."""
    return Trace.of(_header(request, "TRACEPARENT"), _header(request, "SENTRY-TRACE")).id


def _header(request: Any, name: str) -> str:
    return ",".join(value for each, value in request.headers if each == name)
