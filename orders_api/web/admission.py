"""What a request is worth, and whose it is, when there are fewer places than requests."""

import falcon

from orders_api.admission import Caller, Priority, caller, in_flight
from orders_api.web.lookahead import LookAhead
from orders_api.web.rate_limits import Limiter, client_ip
from orders_api.web.resources import Resource


class AtTheDoor:
    """Middleware: waits for a place in the worker, which `Connections` gives back, or answers 503; and looks ahead.

    While places are to be had, memcached is asked without one: a cached read then holds its place for no time at all.
    While they are contended, who comes gets his first: to be refused should cost memcached nothing.
    """

    def __init__(self, look_ahead: LookAhead, limiter: Limiter, trusted_proxy_hops: int) -> None:
        self.look_ahead = look_ahead
        self.limiter = limiter
        self.hops = trusted_proxy_hops

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        req.context.client_ip = client_ip(req.remote_addr, req.get_header("X-Forwarded-For"), self.hops)
        who = Caller(priority_of(req.method, resource, self.limiter.is_used_up(req.context.client_ip)))
        caller.set(who)  # anew for each request: on a kept-alive connection the last one's would still stand
        needs_place = who.priority is not Priority.HEALTH  # that has to tell of a worker that is full
        waits_first = needs_place and in_flight.admission.contended
        if waits_first:
            in_flight.enter(who)
        self.look_ahead.ask(req, resource)
        if needs_place and not waits_first:
            in_flight.enter(who)


class Users:
    """Middleware: says whose the request is before anything asks the database, the session's own check included."""

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        if req.context.bearer:
            caller.set(caller.get()._replace(user_id=req.context.bearer.user_id))


def priority_of(method: str, resource: Resource, is_used_up: bool) -> Priority:
    """`is_used_up`: the limit of the address it comes from. What most likely is refused comes before nobody."""
    if is_used_up and resource.priority is not Priority.HEALTH:
        return Priority.LIST
    if resource.priority is not None:
        return resource.priority
    if method not in ("GET", "HEAD"):
        return Priority.WRITE
    return Priority.LIST if resource.lists else Priority.READ
