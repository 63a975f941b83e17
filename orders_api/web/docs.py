"""`/docs`: the API to read and to try, from files of ours and of swagger-ui-dist alone: it asks nobody else."""

import functools
import gzip
import hashlib
import re
from importlib.resources import files
from typing import ClassVar

import falcon

from orders_api.errors import Problem
from orders_api.web import conditional
from orders_api.web.operations import Answer, operation
from orders_api.web.resources import Resource

# Scripts and styles come from us alone; what a page was made to show can neither run nor be sent elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGES = files("orders_api.web") / "pages"
TYPES = {
    "docs.css": "text/css; charset=utf-8",
    "docs.js": "text/javascript; charset=utf-8",
    "favicon.svg": "image/svg+xml",
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
}
ASSET_TYPES = tuple(dict.fromkeys(media_type.partition(";")[0] for media_type in TYPES.values()))
_GZIP = re.compile(r"\s*gzip\s*(;\s*q=(1(\.0*)?|0?\.\d*[1-9]\d*)\s*)?", re.IGNORECASE | re.ASCII)
OF_PAGES = ("ETag", "Content-Security-Policy", "Referrer-Policy", "Content-Encoding")


class Page:
    """A file of the package, as it is sent."""

    def __init__(self, name: str, media_type: str) -> None:
        self.name, self.media_type = name, media_type

    # Each when somebody first asks for it: most workers never show the page.
    @functools.cached_property
    def body(self) -> bytes:
        file = PAGES / self.name
        return (file if file.is_file() else PAGES / "swagger-ui" / self.name).read_bytes()

    @functools.cached_property
    def zipped(self) -> bytes:
        return gzip.compress(self.body, 6, mtime=0)

    @functools.cached_property
    def tag(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:16]

    def answer(self, req: falcon.Request, resp: falcon.Response) -> None:
        zips = _takes_gzip(req.get_header("Accept-Encoding") or "")
        # Two representations, two strong tags (RFC 9110, 8.8.3.3).
        unchanged = conditional.not_modified(req, resp, f'"{self.tag}-gzip"' if zips else f'"{self.tag}"')
        resp.set_header("Cache-Control", "public, max-age=300")
        resp.set_header("Content-Security-Policy", POLICY)
        resp.set_header("Referrer-Policy", "no-referrer")
        resp.set_header("Vary", "Accept-Encoding")
        if unchanged:
            return
        resp.content_type = self.media_type
        resp.data = self.zipped if zips else self.body
        if zips:
            resp.set_header("Content-Encoding", "gzip")


def _takes_gzip(accepted: str) -> bool:
    return any(_GZIP.fullmatch(coding) for coding in accepted.split(","))


class Docs(Resource):
    """`/docs`"""

    authenticated = False
    limits: ClassVar[tuple[str, ...]] = ("ip",)

    def __init__(self) -> None:
        self.page = Page("docs.html", "text/html; charset=utf-8")

    @operation(
        "docs",
        "The API to read and to try",
        "A page for a browser. It works offline.",
        Answer(200, "The page.", headers=OF_PAGES, media_types=("text/html",)),
        Answer(304, "You have it already.", headers=OF_PAGES),
        headers=("If-None-Match",),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        self.page.answer(req, resp)


class DocsAsset(Resource):
    """`/docs/{asset}`: what the page consists of."""

    authenticated = False
    limits: ClassVar[tuple[str, ...]] = ("ip",)

    def __init__(self) -> None:
        self.pages = {name: Page(name, media_type) for name, media_type in TYPES.items()}

    @operation(
        "docs_asset",
        "A part of that page",
        "Its scripts and styles.",
        Answer(200, "The part.", headers=OF_PAGES, media_types=ASSET_TYPES),
        Answer(304, "You have it already.", headers=OF_PAGES),
        headers=("If-None-Match",),
        problems=("route_not_found",),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, asset: str) -> None:
        if asset not in self.pages:
            raise Problem("route_not_found")
        self.pages[asset].answer(req, resp)
