"""Limits: exact over all processes, counted by the right address, and still there without memcached."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from orders_api.dev import EmbeddedMemcached
from orders_api.web.rate_limits import client_ip, network_of
from tests.client import Client, assert_problem
from tests.web.raw import at_once, get, post

LIMIT = 30
CROWD = 50


@pytest.fixture
def limited(serve: Callable[..., Any], own_memcached: tuple[EmbeddedMemcached, str]) -> Callable[..., Any]:
    """`serve` with counters of the test's own."""
    return lambda **settings: serve(MEMCACHED_SERVERS=own_memcached[1], **settings)


@pytest.fixture
def visitor() -> Iterator[Callable[..., httpx.Response]]:
    """Asks a server from an address that a proxy of ours would report."""
    with httpx.Client(timeout=10) as http:

        def ask(server: Any, forwarded_for: str | None = None, path: str = "/problems") -> httpx.Response:
            headers = {} if forwarded_for is None else {"X-Forwarded-For": forwarded_for}
            return http.get(server.url + path, headers=headers)

        yield ask


def statuses(port: int, requests: list[bytes]) -> dict[int, int]:
    answers = [answer.status for answer in at_once(port, requests)]
    return {status: answers.count(status) for status in set(answers)}


def test_proof_24_an_address_gets_exactly_its_limit_at_once(limited: Callable[..., Any]):
    server = limited(RATE_LIMIT_IP=f"{LIMIT}/minute")
    assert statuses(server.port, [get("/problems")] * CROWD) == {200: LIMIT, 429: CROWD - LIMIT}


def test_proof_24_a_user_gets_exactly_its_limit_at_once(limited: Callable[..., Any]):
    server = limited(RATE_LIMIT_USER=f"{LIMIT}/minute")
    alice, bob = Client(server.url).register().login(), Client(server.url).register().login()

    crowd = [get("/orders", f"Authorization: Bearer {alice.access_token}")] * CROWD
    assert statuses(server.port, crowd) == {200: LIMIT, 429: CROWD - LIMIT}
    assert bob.get("/orders").status_code == 200
    alice.close()
    bob.close()


def test_proof_24_logins_get_exactly_their_limit_at_once(limited: Callable[..., Any]):
    server = limited(RATE_LIMIT_AUTH=f"{LIMIT}/minute")
    assert statuses(server.port, [post("/auth/login", body=b"{}")] * CROWD) == {422: LIMIT, 429: CROWD - LIMIT}
    assert statuses(server.port, [get("/problems")] * 3) == {200: 3}


def test_an_unauthenticated_request_counts_for_its_address(limited: Callable[..., Any]):
    server = limited(RATE_LIMIT_IP="3/minute")
    assert statuses(server.port, [get("/orders")] * 5) == {401: 3, 429: 2}


def test_an_authenticated_request_counts_for_both(limited: Callable[..., Any]):
    server = limited(RATE_LIMIT_IP="5/minute", RATE_LIMIT_USER="100/minute")
    alice = Client(server.url).register().login()
    crowd = [get("/orders", f"Authorization: Bearer {alice.access_token}")] * 5
    assert statuses(server.port, crowd) == {200: 3, 429: 2}
    alice.close()


LIMIT_FIELD = re.compile(r'"(\w+)";r=(\d+);t=(\d+)')


def test_the_headers_count_down(limited: Callable[..., Any], visitor: Callable[..., httpx.Response]):
    server = limited(RATE_LIMIT_IP="3/minute")
    remaining = []
    for _ in range(3):
        answer = visitor(server)
        assert answer.headers["RateLimit-Policy"] == '"ip";q=3;w=60'
        policy, left, reset_s = LIMIT_FIELD.fullmatch(answer.headers["RateLimit"]).groups()
        assert policy == "ip"
        assert 1 <= int(reset_s) <= 60
        remaining.append(int(left))
    assert remaining == [2, 1, 0]


def test_over_the_limit_the_answer_says_when_to_come_back(
    limited: Callable[..., Any], visitor: Callable[..., httpx.Response]
):
    server = limited(RATE_LIMIT_IP="1/minute")
    visitor(server)
    answer = visitor(server)

    problem = assert_problem(answer, 429, "rate_limited")
    _, left, reset_s = LIMIT_FIELD.fullmatch(answer.headers["RateLimit"]).groups()
    assert left == "0"
    assert int(answer.headers["Retry-After"]) >= int(reset_s) >= 1
    assert problem["retry"]["after_s"] == int(answer.headers["Retry-After"])


def test_after_the_window_the_limit_starts_anew(limited: Callable[..., Any], visitor: Callable[..., httpx.Response]):
    server = limited(RATE_LIMIT_IP="1/second")
    seen = {visitor(server).status_code for _ in range(2)}
    assert 200 in seen
    time.sleep(2.1)  # memcached expires by whole seconds
    assert visitor(server).status_code == 200


def test_the_limit_with_the_smallest_share_left_is_shown(limited: Callable[..., Any]):
    server = limited(RATE_LIMIT_IP="1000/minute", RATE_LIMIT_USER="10/minute")
    alice = Client(server.url).register().login()
    answer = alice.get("/orders")
    assert answer.headers["RateLimit-Policy"] == '"user";q=10;w=60'
    assert answer.headers["RateLimit"].startswith('"user";r=9;')
    alice.close()


def test_health_is_never_limited(limited: Callable[..., Any], visitor: Callable[..., httpx.Response]):
    server = limited(RATE_LIMIT_IP="1/minute")
    assert {visitor(server).status_code for _ in range(2)} == {200, 429}
    for path in ("/healthz", "/readyz"):
        answers = [visitor(server, path=path) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        assert all("RateLimit" not in answer.headers for answer in answers)


# Whose address


def test_a_forged_address_dodges_nothing_without_a_proxy(
    limited: Callable[..., Any], visitor: Callable[..., httpx.Response]
):
    server = limited(RATE_LIMIT_IP="3/minute", TRUSTED_PROXY_HOPS="0")
    answers = [visitor(server, f"192.0.2.{number}").status_code for number in range(5)]
    assert answers == [200, 200, 200, 429, 429]


def test_behind_a_proxy_the_last_address_counts(limited: Callable[..., Any], visitor: Callable[..., httpx.Response]):
    server = limited(RATE_LIMIT_IP="1/minute", TRUSTED_PROXY_HOPS="1")
    assert visitor(server, "203.0.113.1, 192.0.2.1").status_code == 200
    assert visitor(server, "203.0.113.2, 192.0.2.1").status_code == 429
    assert visitor(server, "203.0.113.2, 192.0.2.2").status_code == 200


def test_behind_two_proxies_the_last_but_one_counts(
    limited: Callable[..., Any], visitor: Callable[..., httpx.Response]
):
    server = limited(RATE_LIMIT_IP="1/minute", TRUSTED_PROXY_HOPS="2")
    assert visitor(server, "198.51.100.9, 192.0.2.1, 10.0.0.1").status_code == 200
    assert visitor(server, "198.51.100.8, 192.0.2.1, 10.0.0.2").status_code == 429
    assert visitor(server, "192.0.2.1, 192.0.2.2, 10.0.0.1").status_code == 200


def test_addresses_of_one_64_are_one_client(limited: Callable[..., Any], visitor: Callable[..., httpx.Response]):
    server = limited(RATE_LIMIT_IP="1/minute", TRUSTED_PROXY_HOPS="1")
    assert visitor(server, "2001:db8:1:2::1").status_code == 200
    assert visitor(server, "2001:db8:1:2:ffff::1").status_code == 429
    assert visitor(server, "2001:DB8:0001:0002:0:0:0:1").status_code == 429
    assert visitor(server, "2001:db8:1:3::1").status_code == 200


@pytest.mark.parametrize(
    ("header", "hops", "expected"),
    [
        (None, 0, "10.9.8.7"),
        ("192.0.2.1", 0, "10.9.8.7"),
        (None, 1, "10.9.8.7"),
        ("", 1, "10.9.8.7"),
        ("192.0.2.1", 1, "192.0.2.1"),
        ("192.0.2.1", 2, "10.9.8.7"),
        ("a, 192.0.2.1", 1, "192.0.2.1"),
        ("192.0.2.1, a", 1, "10.9.8.7"),
        ("192.0.2.1,", 1, "10.9.8.7"),
        ("192.0.2.1:4711", 1, "192.0.2.1"),
        ("[2001:db8::1]:4711", 1, "2001:db8::1"),
        ("2001:db8::1", 1, "2001:db8::1"),
        ("192.0.2.1\t", 1, "192.0.2.1"),
        ("1.2.3.4.5", 1, "10.9.8.7"),
        ("x" * 8000, 1, "10.9.8.7"),
        (",".join(["192.0.2.9"] * 1000), 3, "192.0.2.9"),
    ],
)
def test_the_client_is_the_nth_from_the_right(header: str | None, hops: int, expected: str):
    assert client_ip("10.9.8.7", header, hops) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
    ],
)
def test_what_counts_as_one_client(one: str, other: str, same: bool):
    assert (network_of(one) == network_of(other)) is same


# Without memcached


def test_proof_24_with_memcached_gone_requests_go_on_and_each_process_counts(
    limited: Callable[..., Any], own_memcached: tuple[EmbeddedMemcached, str], visitor: Callable[..., httpx.Response]
):
    server = limited(RATE_LIMIT_IP="10/minute")
    assert visitor(server).status_code == 200

    own_memcached[0].stop()

    assert visitor(server).status_code == 200
    seen = statuses(server.port, [get("/problems")] * 60)
    # Two processes with ten each, of which one or two were spent before.
    assert set(seen) <= {200, 429}
    assert 9 <= seen[200] <= 19
    assert statuses(server.port, [get("/healthz")] * 20) == {200: 20}


def test_a_process_alone_is_exact_without_memcached(
    limited: Callable[..., Any], own_memcached: tuple[EmbeddedMemcached, str]
):
    server = limited(RATE_LIMIT_IP="10/minute", WEB_CONCURRENCY="1")
    own_memcached[0].stop()
    assert statuses(server.port, [get("/problems")] * 40) == {200: 10, 429: 30}
