"""What every resource is: who may call it, what limits it, which query parameters it takes."""

from typing import Any, ClassVar

import falcon

from orders_api.errors import Problem
from orders_api.web.validation import NoParameters, Schema

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


NO_PARAMETERS = NoParameters()
# For bodies that belong to a user (RFC 9111): kept by nobody else, and never used without asking.
PRIVATE = {"Cache-Control": "private, no-cache"}


class Resource:
    """Authentication and limits are on; a resource that opts out says so in its class."""

    authenticated = True
    limits: ClassVar[tuple[str, ...]] = ("ip", "user")
    query: ClassVar[Schema] = NO_PARAMETERS
    accept_patch: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "on_get"):
            cls.on_head = cls.on_get  # type: ignore[attr-defined]

    @classmethod
    def allowed(cls) -> list[str]:
        return [m for m in METHODS if m == "OPTIONS" or hasattr(cls, f"on_{m.lower()}")]


class Methods:
    """Middleware: 405 with `Allow` before anything else; `Accept-Patch` on OPTIONS (RFC 5789)."""

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        allowed = resource.allowed()
        if req.method not in allowed:
            raise Problem("method_not_allowed", headers={"Allow": ", ".join(allowed)})
        if req.method == "OPTIONS" and resource.accept_patch:
            resp.set_header("Accept-Patch", resource.accept_patch)


class Queries:
    """Middleware: parses the query string by the resource's schema into `req.context.query`."""

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        if req.method != "OPTIONS":
            query = resource.query if req.method in ("GET", "HEAD") else NO_PARAMETERS
            req.context.query = query.parse_query(req.params)
