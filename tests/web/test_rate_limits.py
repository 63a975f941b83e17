"""Limits: exact over all processes, counted by the right address, and still there without memcached."""

import itertools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from orders_api.dev import EmbeddedMemcached
from tests.client import Client, assert_problem
from tests.web.patient import PATIENCE
from tests.web.raw import at_once, get, post

IP, USER, AUTH = 30, 20, 10
CROWD = 50
LIMIT_FIELD = re.compile(r'"(\w+)";r=(\d+);t=(\d+)')
_addresses = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def edge(serve_all: Callable[..., Any], module_memcached: str) -> Any:
    """A server behind one proxy of ours: each test comes from addresses of its own."""
    limits = {"RATE_LIMIT_IP": f"{IP}/minute", "RATE_LIMIT_USER": f"{USER}/minute", "RATE_LIMIT_AUTH": f"{AUTH}/minute"}
    return serve_all(MEMCACHED_SERVERS=module_memcached, TRUSTED_PROXY_HOPS="1", **limits, **PATIENCE)


@pytest.fixture
def limited(serve: Callable[..., Any], own_memcached: tuple[EmbeddedMemcached, str]) -> Callable[..., Any]:
    """`serve` with counters of the test's own."""
    return lambda **settings: serve(MEMCACHED_SERVERS=own_memcached[1], **PATIENCE, **settings)


@pytest.fixture
def person(edge: Any) -> Iterator[Client]:
    client = Client(edge.url)
    client.http.headers["X-Forwarded-For"] = new_address()
    client.register().login()
    yield client
    client.close()


def new_address() -> str:
    return next(_addresses)


def visit(server: Any, address: str | None = None, path: str = "/problems") -> httpx.Response:
    return httpx.get(server.url + path, headers={} if address is None else {"X-Forwarded-For": address})


def come_from(address: str) -> str:
    return f"X-Forwarded-For: {address}"


def statuses(port: int, requests: list[bytes]) -> dict[int, int]:
    answers = [answer.status for answer in at_once(port, requests)]
    return {status: answers.count(status) for status in set(answers)}


def use_up(server: Any, address: str) -> None:
    assert statuses(server.port, [get("/problems", come_from(address))] * IP) == {200: IP}


def test_proof_24_an_address_gets_exactly_its_limit_at_once(edge: Any):
    crowd = [get("/problems", come_from(new_address()))] * CROWD
    assert statuses(edge.port, crowd) == {200: IP, 429: CROWD - IP}


def test_proof_24_a_user_gets_exactly_its_limit_at_once(edge: Any, person: Client):
    """From wherever it comes."""
    token = f"Authorization: Bearer {person.access_token}"
    crowd = [get("/orders", token, come_from(new_address())) for _ in range(CROWD)]
    assert statuses(edge.port, crowd) == {200: USER, 429: CROWD - USER}


def test_proof_24_logins_get_exactly_their_limit_at_once(edge: Any):
    address = new_address()
    crowd = [post("/auth/login", come_from(address), body=b"{}")] * (IP - 5)
    assert statuses(edge.port, crowd) == {422: AUTH, 429: IP - 5 - AUTH}
    assert visit(edge, address).status_code == 200


def test_an_unauthenticated_request_counts_for_its_address(edge: Any):
    crowd = [get("/orders", come_from(new_address()))] * CROWD
    assert statuses(edge.port, crowd) == {401: IP, 429: CROWD - IP}


def test_an_authenticated_request_counts_for_both(edge: Any, person: Client):
    address = new_address()
    own = [get("/orders", f"Authorization: Bearer {person.access_token}", come_from(address))] * USER
    assert statuses(edge.port, own) == {200: USER}
    others = [get("/problems", come_from(address))] * CROWD
    assert statuses(edge.port, others) == {200: IP - USER, 429: CROWD - IP + USER}
    refused = person.get("/orders")
    assert_problem(refused, 429, "rate_limited")
    assert refused.headers["RateLimit"].startswith('"user";r=0;')


def test_one_user_does_not_use_up_the_limit_of_another(edge: Any, person: Client):
    token = f"Authorization: Bearer {person.access_token}"
    statuses(edge.port, [get("/orders", token, come_from(new_address())) for _ in range(CROWD)])
    bob = Client(edge.url)
    bob.http.headers["X-Forwarded-For"] = new_address()
    assert bob.register().login().get("/orders").status_code == 200
    bob.close()


def test_who_has_a_token_of_a_session_that_ended_uses_up_nothing_of_its_user(edge: Any, person: Client):
    ended = f"Authorization: Bearer {person.access_token}"
    person.post("/auth/logout")
    assert statuses(edge.port, [get("/orders", ended, come_from(new_address())) for _ in range(CROWD)]) == {401: CROWD}
    person.login()
    answer = person.get("/orders", headers={"X-Forwarded-For": new_address()})
    assert answer.headers["RateLimit"].startswith(f'"user";r={USER - 2};'), "the logout, and this one"


def test_what_is_refused_for_its_address_counts_for_no_user(edge: Any, person: Client):
    address = new_address()
    use_up(edge, address)
    own = get("/orders", f"Authorization: Bearer {person.access_token}", come_from(address))
    assert statuses(edge.port, [own] * USER) == {429: USER}
    answer = person.get("/orders", headers={"X-Forwarded-For": new_address()})
    assert answer.headers["RateLimit"].startswith(f'"user";r={USER - 1};')


def test_the_headers_count_down(edge: Any):
    address, remaining = new_address(), []
    for _ in range(3):
        answer = visit(edge, address)
        assert answer.headers["RateLimit-Policy"] == f'"ip";q={IP};w=60'
        policy, left, reset_s = LIMIT_FIELD.fullmatch(answer.headers["RateLimit"]).groups()
        assert policy == "ip"
        assert 1 <= int(reset_s) <= 60
        remaining.append(int(left))
    assert remaining == [IP - 1, IP - 2, IP - 3]


def test_over_the_limit_the_answer_says_when_to_come_back(edge: Any):
    address = new_address()
    use_up(edge, address)
    answer = visit(edge, address)

    problem = assert_problem(answer, 429, "rate_limited")
    _, left, reset_s = LIMIT_FIELD.fullmatch(answer.headers["RateLimit"]).groups()
    assert left == "0"
    assert int(answer.headers["Retry-After"]) >= int(reset_s) >= 1
    assert problem["retry"]["after_s"] == int(answer.headers["Retry-After"])


def test_the_limit_with_the_smallest_share_left_is_shown(edge: Any, person: Client):
    person.http.headers["X-Forwarded-For"] = new_address()
    answer = person.get("/orders")
    assert answer.headers["RateLimit-Policy"] == f'"user";q={USER};w=60'
    assert answer.headers["RateLimit"].startswith(f'"user";r={USER - 1};')

    shared = new_address()
    statuses(edge.port, [get("/problems", come_from(shared))] * (IP // 2))
    answer = person.get("/orders", headers={"X-Forwarded-For": shared})
    assert answer.headers["RateLimit"].startswith(f'"ip";r={IP - IP // 2 - 1};')


def test_health_is_never_limited(edge: Any):
    address = new_address()
    use_up(edge, address)
    assert visit(edge, address).status_code == 429
    for path in ("/healthz", "/readyz"):
        answer = visit(edge, address, path)
        assert answer.status_code == 200
        assert "RateLimit" not in answer.headers


def test_after_the_window_the_limit_starts_anew(limited: Callable[..., Any]):
    server = limited(RATE_LIMIT_IP="1/second", WEB_CONCURRENCY="1")
    assert 429 in {visit(server).status_code for _ in range(5)}
    time.sleep(2.1)  # memcached's clock has whole seconds
    assert visit(server).status_code == 200


# Whose address


def test_a_forged_address_dodges_nothing_without_a_proxy(limited: Callable[..., Any]):
    server = limited(RATE_LIMIT_IP="3/minute", TRUSTED_PROXY_HOPS="0")
    answers = [visit(server, f"192.0.2.{number}").status_code for number in range(5)]
    assert answers == [200, 200, 200, 429, 429]


def test_behind_a_proxy_the_last_address_counts(edge: Any):
    address, other = new_address(), new_address()
    use_up(edge, address)
    assert visit(edge, f"203.0.113.1, {address}").status_code == 429
    assert visit(edge, f"203.0.113.2, {address}").status_code == 429
    assert visit(edge, f"{address}, {other}").status_code == 200


def test_behind_two_proxies_the_last_but_one_counts(limited: Callable[..., Any]):
    server = limited(RATE_LIMIT_IP="1/minute", TRUSTED_PROXY_HOPS="2")
    assert visit(server, "198.51.100.9, 192.0.2.1, 10.0.0.1").status_code == 200
    assert visit(server, "198.51.100.8, 192.0.2.1, 10.0.0.2").status_code == 429
    assert visit(server, "192.0.2.1, 192.0.2.2, 10.0.0.1").status_code == 200


def test_addresses_of_one_64_are_one_client(edge: Any):
    use_up(edge, "2001:db8:1:2::1")
    assert visit(edge, "2001:db8:1:2:ffff::1").status_code == 429
    assert visit(edge, "2001:DB8:0001:0002:0:0:0:1").status_code == 429
    assert visit(edge, "2001:db8:1:3::1").status_code == 200


# Without memcached


def test_proof_24_with_memcached_gone_requests_go_on_and_each_process_counts(
    limited: Callable[..., Any], own_memcached: tuple[EmbeddedMemcached, str]
):
    server = limited(RATE_LIMIT_IP="10/minute")
    assert visit(server).status_code == 200

    own_memcached[0].stop()

    assert visit(server).status_code == 200
    seen = statuses(server.port, [get("/problems")] * 60)
    # Two processes with ten each, of which one or two were spent before.
    assert set(seen) <= {200, 429}
    assert 9 <= seen[200] <= 19
    assert statuses(server.port, [get("/healthz")] * 20) == {200: 20}


def test_a_process_alone_is_exact_without_memcached(
    limited: Callable[..., Any], own_memcached: tuple[EmbeddedMemcached, str]
):
    server = limited(RATE_LIMIT_IP="11/minute", WEB_CONCURRENCY="1")
    own_memcached[0].stop()
    assert visit(server).headers["RateLimit"] == '"ip";r=10;t=60'
    assert statuses(server.port, [get("/problems")] * 40) == {200: 10, 429: 30}
