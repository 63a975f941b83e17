"""Conditional requests (RFC 9110, section 13): If-None-Match and If-Match on strong entity tags."""

from collections.abc import Callable

import falcon

from orders_api.web.resources import PRIVATE


def not_modified(req: falcon.Request, resp: falcon.Response, etag: str) -> bool:
    """Sets the ETag; True, and a 304, when the client has this representation already."""
    resp.set_headers(PRIVATE)
    resp.set_header("ETag", etag)
    given = req.if_none_match or []
    if "*" in given or any(tag.dumps().removeprefix("W/") == etag for tag in given if isinstance(tag, falcon.ETag)):
        resp.status = falcon.HTTP_304
        return True
    return False


def versions(req: falcon.Request, version_of: Callable[[str], int | None]) -> set[int] | None:
    """The versions that If-Match accepts; None for any. Weak tags never match (section 13.1.1)."""
    if req.get_header("If-Match") is None:
        return None
    given = req.if_match or []
    if "*" in given:
        return None
    strong = (version_of(tag) for tag in given if isinstance(tag, falcon.ETag) and not tag.is_weak)
    return {version for version in strong if version is not None}
