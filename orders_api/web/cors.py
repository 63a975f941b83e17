"""Cross-origin requests from the origins in CORS_ORIGINS (Fetch standard)."""

from typing import Any

import falcon

EXPOSED = (
    "ETag, Idempotent-Original-Trace-Id, Idempotent-Replayed, Link, Location, RateLimit, RateLimit-Policy,"
    " Retry-After, WWW-Authenticate, X-Trace-Id"
)
ALLOWED = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match"
ALLOWED += ", traceparent, tracestate, sentry-trace, baggage"


class Cors(falcon.CORSMiddleware):
    """Falcon's, with a fixed list of request headers: what a client sends is not echoed."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        super().__init__(allow_origins=list(origins), expose_headers=EXPOSED)

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: Any, req_succeeded: bool) -> None:
        super().process_response(req, resp, resource, req_succeeded)
        if resp.get_header("Access-Control-Allow-Headers") is not None:
            resp.set_header("Access-Control-Allow-Headers", ALLOWED)
        resp.append_header("Vary", "Origin")
