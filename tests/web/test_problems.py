"""Every refusal is a problem document, complete and explained; the methods and parameters of every route."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import psycopg
import pytest

from orders_api.errors import PROBLEMS
from tests.client import LAMP, Client, assert_problem

NOBODY = "/orders/00000000-0000-7000-8000-000000000000"
ROUTES = {
    "/auth/register": "POST, OPTIONS",
    "/auth/login": "POST, OPTIONS",
    "/auth/refresh": "POST, OPTIONS",
    "/auth/logout": "POST, OPTIONS",
    "/auth/me": "GET, HEAD, OPTIONS",
    "/orders": "GET, HEAD, POST, OPTIONS",
    NOBODY: "GET, HEAD, PATCH, OPTIONS",
    f"{NOBODY}/events": "GET, HEAD, OPTIONS",
    "/events": "GET, HEAD, OPTIONS",
    "/idempotency-keys/k": "GET, HEAD, OPTIONS",
    "/webhooks/payments": "POST, OPTIONS",
    "/webhook-endpoints": "GET, HEAD, POST, OPTIONS",
    "/webhook-endpoints/e": "GET, HEAD, DELETE, OPTIONS",
    "/webhook-endpoints/e/rotate": "POST, OPTIONS",
    "/webhook-endpoints/e/deliveries": "GET, HEAD, OPTIONS",
    "/webhook-endpoints/e/deliveries/1/redeliver": "POST, OPTIONS",
    "/problems": "GET, HEAD, OPTIONS",
    "/problems/overloaded": "GET, HEAD, OPTIONS",
    "/openapi.json": "GET, HEAD, OPTIONS",
    "/docs": "GET, HEAD, OPTIONS",
    "/docs/docs.js": "GET, HEAD, OPTIONS",
    "/healthz": "GET, HEAD, OPTIONS",
    "/readyz": "GET, HEAD, OPTIONS",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "FROBNICATE")
# CONTRACT 2.
CONTRACT = {
    400: "malformed_json idempotency_key_missing idempotency_key_invalid cursor_invalid cursor_mismatch",
    401: "token_missing token_invalid token_expired credentials_invalid refresh_token_invalid signature_invalid",
    403: "transition_forbidden",
    404: "route_not_found order_not_found idempotency_key_not_found problem_not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "media_type_unsupported",
    409: "email_taken idempotency_key_in_progress idempotency_key_expired transition_invalid order_not_editable",
    412: "version_conflict",
    422: "validation_failed idempotency_key_reused",
    429: "rate_limited account_locked",
    500: "internal_error",
    503: "overloaded database_unavailable",
}
# Of routes that the contract does not have.
BESIDES = {404: "endpoint_not_found delivery_not_found", 409: "endpoint_limit_reached"}
STATUS = {code: status for table in (CONTRACT, BESIDES) for status, codes in table.items() for code in codes.split()}


# The shape


def refusals(alice: Client) -> dict[str, httpx.Response]:
    """One answer of each kind of refusal."""
    json_type = {"Content-Type": "application/json"}
    path = alice.place(key="taken").headers["Location"]
    return {
        "route_not_found": alice.get("/nowhere"),
        "method_not_allowed": alice.request("DELETE", path),
        "token_missing": alice.http.get("/orders"),
        "token_invalid": alice.http.get("/orders", headers={"Authorization": "Bearer x.y.z"}),
        "credentials_invalid": alice.http.post("/auth/login", json={"email": "no@example.com", "password": "x" * 9}),
        "refresh_token_invalid": alice.http.post("/auth/refresh", json={"refresh_token": "x"}),
        "media_type_unsupported": alice.http.post("/auth/login", content=b"{}"),
        "body_too_large": alice.http.post("/auth/login", content=b" " * 65537, headers=json_type),
        "malformed_json": alice.http.post("/auth/login", content=b"{", headers=json_type),
        "validation_failed": alice.place({}),
        "idempotency_key_missing": alice.post("/orders", json=LAMP),
        "idempotency_key_reused": alice.place({"currency": "EUR", "total_cents": 1}, key="taken"),
        "order_not_found": alice.get(NOBODY),
        "problem_not_found": alice.get("/problems/nothing"),
        "cursor_invalid": alice.get("/orders?cursor=x"),
        "transition_forbidden": alice.patch(path, json={"status": "paid"}),
        "version_conflict": alice.patch(path, json={"total_cents": 2}, headers={"If-Match": '"9"'}),
        "email_taken": alice.http.post("/auth/register", json={"email": alice.email, "password": alice.password}),
    }


def test_every_refusal_is_a_complete_problem(alice: Client):
    for code, answer in refusals(alice).items():
        document = assert_problem(answer, STATUS[code], code)
        assert document["type"] == f"/problems/{code}"
        assert document["title"] == PROBLEMS[code].title
        assert re.fullmatch(r"[0-9a-f]{32}", document["trace_id"])
        assert set(document["retry"]) == {"safe", "same_key", "after_s"}
        assert isinstance(document["retry"]["safe"], bool)
        assert isinstance(document["retry"]["same_key"], bool)
        assert answer.headers["Cache-Control"] == "no-store"


def test_errors_stand_only_where_something_is_to_blame(alice: Client):
    blaming = {code for code, answer in refusals(alice).items() if "errors" in answer.json()}
    assert "validation_failed" in blaming
    assert blaming <= {"validation_failed", "cursor_invalid", "cursor_mismatch"}


def test_a_401_of_a_bearer_route_carries_a_challenge(http: httpx.Client):
    answer = http.get("/orders")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert "error=" not in answer.headers["WWW-Authenticate"]


def test_a_wrong_token_is_named_in_the_challenge(http: httpx.Client):
    answer = http.get("/orders", headers={"Authorization": "Bearer x"})
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_all_that_is_wrong_is_listed_at_once(alice: Client):
    order = {"currency": "usd", "items": [{"sku": "", "quantity": 0, "unit_price_cents": "1"}], "user_id": "x"}
    problem = assert_problem(alice.place(order), 422, "validation_failed")
    pointers = {error["pointer"] for error in problem["errors"]}
    fields = {"#/items/0/sku", "#/items/0/quantity", "#/items/0/unit_price_cents"}
    assert pointers == {"#/currency", "#/user_id", *fields}
    assert all(error["code"] and error["detail"] for error in problem["errors"])


# Routes and methods


@pytest.mark.parametrize("path", ["/", "/nowhere", "/orders/x/y/z", "/auth", "/healthz/x", "//orders", "/%2e%2e/etc"])
def test_an_unknown_path_is_not_found(http: httpx.Client, path: str):
    assert_problem(http.get(path), 404, "route_not_found")


@pytest.mark.parametrize("route", ROUTES)
def test_proof_16_every_other_method_is_refused_with_those_allowed(http: httpx.Client, route: str):
    for method in METHODS:
        if method not in ROUTES[route].split(", "):
            answer = http.request(method, route)
            assert answer.status_code == 405, method
            assert answer.headers["Allow"] == ROUTES[route]
            if method != "HEAD":
                assert_problem(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("route", ROUTES)
def test_options_lists_the_methods_without_a_token(http: httpx.Client, route: str):
    answer = http.options(route)
    assert answer.status_code == 200
    assert answer.headers["Allow"] == ROUTES[route]


def test_options_of_an_order_says_how_it_is_patched(http: httpx.Client):
    accepted = http.options(NOBODY).headers["Accept-Patch"]
    assert accepted == "application/json, application/merge-patch+json"


@pytest.mark.parametrize(
    "route",
    ["/auth/me", "/orders", "/orders?limit=1", "/problems", "/problems/overloaded", "/healthz", "/readyz", NOBODY],
)
def test_head_answers_as_get_without_the_body(alice: Client, route: str):
    got, head = alice.get(route), alice.request("HEAD", route)
    assert head.status_code == got.status_code
    assert head.content == b""
    for name in ("Content-Type", "Content-Length", "Cache-Control", "ETag"):
        assert head.headers.get(name) == got.headers.get(name), name


def test_head_of_an_order_has_its_tag(alice: Client):
    placed = alice.place()
    head = alice.request("HEAD", placed.headers["Location"])
    assert head.status_code == 200
    assert head.headers["ETag"] == alice.get(placed.headers["Location"]).headers["ETag"]


@pytest.mark.parametrize("route", ROUTES)
def test_an_unknown_parameter_is_refused_on_every_route(alice: Client, route: str):
    method = ROUTES[route].split(",")[0]
    if route == "/auth/logout":
        alice.login()
    problem = assert_problem(alice.request(method, f"{route}?surprise=1", json=None), 422, "validation_failed")
    assert [(error["parameter"], error["code"]) for error in problem["errors"]] == [("surprise", "unknown_field")]


def test_a_parameter_of_a_read_is_unknown_to_a_write(alice: Client):
    problem = assert_problem(alice.post("/orders?limit=1", json=LAMP), 422, "validation_failed")
    assert problem["errors"][0]["parameter"] == "limit"


# The pages about problems


def test_the_table_has_the_contracts_codes_and_those_of_webhook_endpoints():
    assert {code: kind.status for code, kind in PROBLEMS.items()} == STATUS


def test_problems_lists_every_code_with_its_status(http: httpx.Client):
    listed = http.get("/problems").json()["data"]
    assert {entry["code"]: entry["status"] for entry in listed} == STATUS


@pytest.mark.parametrize("code", STATUS)
def test_every_type_resolves(http: httpx.Client, code: str):
    explained = http.get(f"/problems/{code}", headers={"Accept": "application/json"})
    assert explained.headers["Content-Type"] == "application/json"
    entry = explained.json()
    assert (entry["type"], entry["code"], entry["status"]) == (f"/problems/{code}", code, STATUS[code])
    assert entry["title"]
    assert entry["cure"]


BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("code", STATUS)
def test_a_browser_gets_a_page_about_a_problem(http: httpx.Client, code: str):
    page = http.get(f"/problems/{code}", headers=BROWSER)
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Vary"] == "Accept"
    assert code in page.text


def test_a_browser_gets_a_page_with_links_to_all_problems(http: httpx.Client):
    page = http.get("/problems", headers=BROWSER).text
    assert all(f'href="/problems/{code}"' in page for code in STATUS)


def test_an_unknown_problem_is_not_found(http: httpx.Client):
    assert_problem(http.get("/problems/nothing"), 404, "problem_not_found")


def test_an_unknown_problem_echoes_nothing(http: httpx.Client):
    answer = http.get("/problems/%3Cscript%3E", headers=BROWSER)
    assert_problem(answer, 404, "problem_not_found")
    assert "script" not in answer.text


@pytest.mark.parametrize("accept", ["", "nonsense", ";;;", "text/html;q=x", "a/b/c", "*", "text/*;q=2", "/" * 4000])
def test_a_strange_accept_header_is_no_server_error(http: httpx.Client, accept: str):
    assert http.get("/problems", headers={"Accept": accept}).status_code == 200


CANARY = "canary-9f2c"
NAMED = {"email": f"{CANARY}@shop.example", "password": f"{CANARY} password"}
SECRETIVE = {
    "a wrong password": ("POST", "/auth/login", {"json": NAMED}, 401),
    "a password of the wrong type": ("POST", "/auth/login", {"json": {**NAMED, "password": [CANARY]}}, 422),
    "a password that is too long": ("POST", "/auth/register", {"json": {**NAMED, "password": CANARY * 30}}, 422),
    "a password where there should be none": ("POST", "/auth/register", {"json": {**NAMED, "again": CANARY}}, 422),
    "JSON that is cut": ("POST", "/auth/login", {"content": f'{{"password": "{CANARY}'}, 400),
    "JSON that is none": ("POST", "/auth/login", {"content": f'{{"password": {CANARY}}}'}, 400),
    "a refresh token": ("POST", "/auth/refresh", {"json": {"refresh_token": CANARY}}, 401),
    "an access token": ("GET", "/auth/me", {"headers": {"Authorization": f"Bearer {CANARY}"}}, 401),
    "a token in the query": ("GET", "/auth/me", {"params": {"access_token": CANARY}}, 401),
    "a signature": ("POST", "/webhooks/payments", {"headers": {"webhook-signature": CANARY}, "json": {}}, 401),
}


@pytest.mark.parametrize(("method", "path", "sent", "status"), SECRETIVE.values(), ids=SECRETIVE)
def test_proof_19_no_error_repeats_a_secret(
    server: Any, http: httpx.Client, method: str, path: str, sent: dict[str, Any], status: int
):
    headers = {"Content-Type": "application/json", **sent.get("headers", {})}
    answer = http.request(method, path, **{**sent, "headers": headers})

    assert answer.status_code == status, answer.text
    assert CANARY not in answer.text + str(answer.headers)
    assert CANARY not in server.log()


# Our own defects


@pytest.fixture
def broken(serve: Callable[..., Any]) -> Any:
    """A server whose database has lost the table of items."""
    server = serve()
    with psycopg.connect(server.database_url, autocommit=True) as sql:
        sql.execute("DROP TABLE order_items CASCADE")
    return server


def test_proof_20_an_unexpected_error_tells_nothing_and_the_service_goes_on(broken: Any):
    carol = Client(broken.url).register().login()

    answer = carol.place(key="k-500")
    problem = assert_problem(answer, 500, "internal_error")
    for secret in ("order_items", "relation", "SELECT", "INSERT", "Traceback", ".py", "psycopg", "peewee", "/work"):
        assert secret not in answer.text
    assert problem["retry"] == {"safe": True, "same_key": True, "after_s": 1}
    assert problem["trace_id"] in broken.log()

    assert all(carol.get("/auth/me").status_code == 200 for _ in range(20))
    assert carol.get("/orders").json()["data"] == []
    assert_problem(carol.get("/idempotency-keys/k-500"), 404, "idempotency_key_not_found")
    carol.close()


def test_both_forms_of_an_explanation_say_that_they_vary(http: httpx.Client):
    for accept in ("application/json", "text/html"):
        assert http.get("/problems/overloaded", headers={"Accept": accept}).headers["Vary"] == "Accept"
