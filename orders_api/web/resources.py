"""What every resource is: who may call it, what limits it, which query parameters it takes."""

from typing import Any, ClassVar

import falcon

from orders_api.admission import Priority
from orders_api.cache import Kind
from orders_api.errors import Problem
from orders_api.web.validation import NoParameters, Schema

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NO_PARAMETERS = NoParameters()
# For bodies that belong to a user (RFC 9111): kept by nobody else, and never used without asking.
PRIVATE = {"Cache-Control": "private, no-cache"}


class Resource:
    """Authentication and limits are on; a resource that opts out says so in its class."""

    exists = True  # under the present settings; it is described all the same
    authenticated = True
    limits: ClassVar[tuple[str, ...]] = ("ip", "user")
    limits_failures = False  # counts who fails, and nobody else
    query: ClassVar[Schema] = NO_PARAMETERS
    accept_patch: ClassVar[str | None] = None
    methods: ClassVar[tuple[str, ...]] = ()
    lists = False  # GET costs many rows, and is the first thing to be shed
    priority: ClassVar[Priority | None] = None  # None: by the method
    kind: ClassVar[Kind | None] = None  # of what `@cached` remembers of GET

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "on_get"):
            cls.on_head = cls.on_get  # type: ignore[attr-defined]
            cls.kind = getattr(cls.on_get, "kind", None)
        cls.methods = tuple(method for method in METHODS if hasattr(cls, f"on_{method.lower()}"))

    def on_options(self, req: falcon.Request, resp: falcon.Response, **params: str) -> None:
        """What can be done here (RFC 9110, 9.3.7), and with which patch formats (RFC 5789)."""
        resp.set_header("Allow", ", ".join(self.methods))
        if self.accept_patch:
            resp.set_header("Accept-Patch", self.accept_patch)


class Methods:
    """Middleware: 405 with `Allow` before anything else is asked of a request."""

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        if req.method not in resource.methods:
            raise Problem("method_not_allowed", headers={"Allow": ", ".join(resource.methods)})


class Queries:
    """Middleware: parses the query string by the resource's schema into `req.context.query`."""

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        reads = req.method in ("GET", "HEAD")
        if req.method != "OPTIONS" and not (reads and resource.kind):  # what is cached is parsed when it is loaded
            query = resource.query if reads else NO_PARAMETERS
            req.context.query = query.parse_query(req.params)
