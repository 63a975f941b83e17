"""Bearer tokens (RFC 6750): who is asking. What a token means is told by the accounts, given in from outside."""

from collections.abc import Callable
from uuid import UUID

import falcon

from orders_api.errors import Problem
from orders_api.web.resources import Resource

Identify = Callable[[str], tuple[UUID, UUID]]


class Authentication:
    """Middleware: sets `user_id` and `session_id` on the context, except where a resource opts out."""

    def __init__(self, identify: Identify) -> None:
        self.identify = identify

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        # A CORS preflight carries no credentials.
        if resource.authenticated and req.method != "OPTIONS":
            req.context.user_id, req.context.session_id = self.identify(_bearer(req.get_header("Authorization")))


def _bearer(header: str | None) -> str:
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem("token_missing")
    return token.strip()
