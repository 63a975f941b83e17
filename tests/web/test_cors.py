"""Cross-origin requests: from the origins that were listed, and from no other."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.client import plain_http

SHOP = "https://shop.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-evil"}


@pytest.fixture(scope="module")
def listed(serve_all: Callable[..., Any]) -> Iterator[httpx.Client]:
    server = serve_all(CORS_ORIGINS=f"{SHOP}, http://localhost:3000", WEB_CONCURRENCY="1")
    with plain_http(base_url=server.url) as http:
        yield http


def test_a_listed_origin_may_ask(listed: httpx.Client):
    for origin in (SHOP, "http://localhost:3000"):
        answer = listed.options("/orders", headers={"Origin": origin, **PREFLIGHT})
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        assert "Idempotency-Key" in answer.headers["Access-Control-Allow-Headers"]
        assert "x-evil" not in str(answer.headers).lower()
        assert "Origin" in answer.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_listed_origin_may_read_answers_and_errors(listed: httpx.Client):
    for path in ("/healthz", "/orders", "/nowhere"):
        answer = listed.get(path, headers={"Origin": SHOP})
        assert answer.headers["Access-Control-Allow-Origin"] == SHOP
        exposed = answer.headers["Access-Control-Expose-Headers"]
        assert {"ETag", "Location", "Retry-After", "X-Trace-Id"} <= set(exposed.split(", "))


UNLISTED = (
    "https://evil.example",
    "https://shop.example.evil.example",
    "http://shop.example",
    f"{SHOP}:8443",
    "null",
    "",
)


def test_an_unlisted_origin_gets_nothing(listed: httpx.Client):
    for origin in UNLISTED:
        preflight = listed.options("/orders", headers={"Origin": origin, **PREFLIGHT})
        for answer in (preflight, listed.get("/orders", headers={"Origin": origin})):
            assert "Access-Control-Allow-Origin" not in answer.headers, origin
            assert "Access-Control-Allow-Headers" not in answer.headers, origin
            assert "Origin" in answer.headers["Vary"]  # a cache must not give it the answer of a listed one


def test_without_the_setting_no_origin_may_ask(http: httpx.Client):
    answer = http.options("/orders", headers={"Origin": SHOP, **PREFLIGHT})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
