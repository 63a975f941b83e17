"""`@cached`: what a responder answers is remembered, for its user alone, until that user's next write."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import falcon

from orders_api.cache import Cache, Kind
from orders_api.memcached import Batch
from orders_api.web import conditional
from orders_api.web.resources import PRIVATE, Resource


@dataclass(frozen=True, slots=True)
class Representation:
    """A 200 as it is remembered: its body and the headers that are its own."""

    body: bytes
    etag: str = ""
    link: str = ""

    def pack(self) -> bytes:
        return f"{self.etag}\n{self.link}\n".encode() + self.body

    @classmethod
    def unpack(cls, packed: bytes) -> "Representation":
        etag, link, body = packed.split(b"\n", 2)
        return cls(body, etag.decode(), link.decode())

    def answer(self, req: falcon.Request, resp: falcon.Response) -> None:
        if self.etag and conditional.not_modified(req, resp, self.etag):
            return
        resp.set_headers(PRIVATE)
        if self.link:
            resp.set_header("Link", self.link)
        resp.data = self.body


Responder = Callable[..., Representation]


def cached(kind: Kind) -> Callable[[Responder], Callable[..., None]]:
    """Answers with the Representation that the responder returns, now or to an equal request before.

    The query is parsed only when the responder has to run: an equal one was valid.
    """

    def decorate(responder: Responder) -> Callable[..., None]:
        @functools.wraps(responder)
        def respond(self: Resource, req: falcon.Request, resp: falcon.Response, **params: str) -> None:
            def load() -> bytes:
                req.context.query = self.query.parse_query(req.params)
                return responder(self, req, **params).pack()

            Representation.unpack(req.context.lookup.value(load)).answer(req, resp)

        respond.kind = kind  # type: ignore[attr-defined]
        return respond

    return decorate


class Caching:
    """A step that looks ahead: asks for what the responder may have answered before."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def look_ahead(self, req: falcon.Request, resource: Resource, batch: Batch) -> None:
        bearer = req.context.bearer
        if resource.kind is not None and bearer and req.method in ("GET", "HEAD"):
            # Its length tells where the path ends: a path may hold any character, a question mark too.
            name = f"{len(req.path)}:{req.path}?{req.query_string}"
            req.context.lookup = self.cache.look_up(batch, resource.kind.scope(bearer.home), name)
