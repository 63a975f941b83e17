"""What a request is worth, and whose it is, when there are fewer database connections than requests."""

import falcon

from orders_api.admission import Caller, Door, Priority, caller
from orders_api.web.resources import Resource


class AtTheDoor:
    """Middleware: 503 at once when the worker is out of breath."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        self.door.check(_priority(req.method, resource))


class Classes:
    """Middleware: names the caller before anything asks the database, the session's own check included.

    Set anew for each request: on a kept-alive connection the last one's would still stand.
    """

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        bearer = getattr(req.context, "bearer", None)
        caller.set(Caller(_priority(req.method, resource), bearer.user_id if bearer else None))


def _priority(method: str, resource: Resource) -> Priority:
    if resource.priority is not None:
        return resource.priority
    if method not in ("GET", "HEAD"):
        return Priority.WRITE
    return Priority.LIST if resource.lists else Priority.READ
