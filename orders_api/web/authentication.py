"""Bearer tokens (RFC 6750): who is asking. What a token means is told by the accounts, given in from outside."""

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

import falcon

from orders_api.errors import Problem
from orders_api.memcached import Batch
from orders_api.web.resources import Resource


class Bearer(Protocol):
    """Whose token it is, as its signature says."""

    @property
    def user_id(self) -> UUID: ...

    @property
    def home(self) -> str:
        """The user's id as text."""

    @property
    def session_id(self) -> UUID: ...

    def check_open(self) -> None:
        """Raises a Problem when the session has ended."""


Identify = Callable[[str, Batch], Bearer]


class Authentication:
    """Middleware: sets `user_id` and `session_id` on the context, except where a resource opts out."""

    def __init__(self, identify: Identify) -> None:
        self.identify = identify

    def look_ahead(self, req: falcon.Request, resource: Resource, batch: Batch) -> None:
        """What is wrong with the token is said after the limits of its sender have had their say."""
        req.context.bearer = req.context.refusal = None
        # A CORS preflight carries no credentials.
        if resource.authenticated and req.method != "OPTIONS":
            try:
                req.context.bearer = self.identify(token_of(req), batch)
            except Problem as refusal:
                req.context.refusal = refusal

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        if req.context.refusal:
            raise req.context.refusal
        bearer = req.context.bearer
        if bearer:
            bearer.check_open()
            req.context.user_id, req.context.session_id = bearer.user_id, bearer.session_id


def token_of(req: falcon.Request) -> str:
    """The bearer token of a request. Raises token_missing."""
    scheme, _, token = (req.get_header("Authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem("token_missing")
    return token.strip()
