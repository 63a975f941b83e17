"""`GET /orders/{id}`: one order, its tag, and nothing of anybody else's."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from tests.client import LAMP, assert_problem
from tests.orders.races import second_connection, wait_until_blocked


@pytest.fixture
def path(alice):
    return alice.place(LAMP).headers["Location"]


def tag_of(client, path, **params):
    return client.get(path, params=params).headers["ETag"]


def head(client, path, **headers):
    return client.http.head(path, headers={"Authorization": f"Bearer {client.access_token}", **headers})


def alike(response):
    """A problem without what is each request's own."""
    return {name: value for name, value in response.json().items() if name != "trace_id"}


def test_an_order_is_read_as_it_was_placed(alice):
    placed = alice.place(LAMP)
    order = {name: value for name, value in placed.json().items() if name != "items"}

    assert alice.get(placed.headers["Location"]).json() == order


def test_an_order_is_read_with_its_items_on_request(alice):
    placed = alice.place(LAMP)

    assert alice.get(placed.headers["Location"], params={"include": "items"}).json() == placed.json()


def test_an_order_without_items_includes_none(alice):
    path = alice.place({"currency": "EUR", "total_cents": 1}).headers["Location"]

    assert alice.get(path, params={"include": "items"}).json()["items"] == []


@pytest.mark.parametrize("query", ["include=events", "include=", "include=items,items", "include=items&include=items"])
def test_there_is_nothing_else_to_include(alice, path, query):
    assert_problem(alice.get(f"{path}?{query}"), 422, "validation_failed")


@pytest.mark.parametrize("query", ["fields=id", "limit=1", "=", "Include=items"])
def test_an_unknown_parameter_is_refused(alice, path, query):
    response = alice.get(f"{path}?{query}")

    assert_problem(response, 422, "validation_failed")
    assert [error["code"] for error in response.json()["errors"]] == ["unknown_field"]


def test_the_tag_is_strong_and_kept_by_nobody_else(alice, path):
    response = alice.get(path)

    assert response.headers["ETag"].startswith('"')
    assert response.headers["Cache-Control"] == "private, no-cache"


def test_the_tag_stays_while_the_order_does(alice, path):
    assert tag_of(alice, path) == tag_of(alice, path)


def test_the_two_representations_have_two_tags(alice, path):
    assert tag_of(alice, path) != tag_of(alice, path, include="items")


@pytest.mark.parametrize("params", [{}, {"include": "items"}], ids=["bare", "with items"])
def test_the_tag_changes_with_the_order(alice, path, params):
    before = tag_of(alice, path, **params)
    alice.patch(path, json={"metadata": {"a": "b"}})

    assert tag_of(alice, path, **params) != before


@pytest.mark.parametrize("params", [{}, {"include": "items"}], ids=["bare", "with items"])
def test_who_has_the_order_already_gets_304(alice, path, params):
    tag = tag_of(alice, path, **params)
    response = alice.get(path, params=params, headers={"If-None-Match": tag})

    assert (response.status_code, response.content) == (304, b"")
    assert (response.headers["ETag"], response.headers["Cache-Control"]) == (tag, "private, no-cache")


@pytest.mark.parametrize("given", ["*", "W/{tag}", '"x", {tag}', '"x",W/"y" , {tag}'])
def test_any_tag_of_a_list_will_do(alice, path, given):
    headers = {"If-None-Match": given.format(tag=tag_of(alice, path))}

    assert alice.get(path, headers=headers).status_code == 304


@pytest.mark.parametrize("given", ['"x"', '""', "", "garbage", '"1.1', '"1.0"', '"1.11"'])
def test_who_has_something_else_gets_the_order(alice, path, given):
    assert alice.get(path, headers={"If-None-Match": given}).status_code == 200


def test_the_tag_of_the_other_representation_is_something_else(alice, path):
    headers = {"If-None-Match": tag_of(alice, path, include="items")}

    assert alice.get(path, headers=headers).status_code == 200


def test_a_stale_tag_gets_the_order(alice, path):
    stale = tag_of(alice, path)
    alice.patch(path, json={"metadata": {"a": "b"}})
    response = alice.get(path, headers={"If-None-Match": stale})

    assert (response.status_code, response.json()["metadata"]) == (200, {"a": "b"})


def test_head_has_the_headers_of_get_and_no_body(alice, path):
    response, get = head(alice, path), alice.get(path)

    assert (response.status_code, response.content) == (200, b"")
    for name in ("ETag", "Cache-Control", "Content-Type", "Content-Length"):
        assert response.headers[name] == get.headers[name]


def test_head_answers_304_too(alice, path):
    assert head(alice, path, **{"If-None-Match": tag_of(alice, path)}).status_code == 304


def test_head_of_an_unknown_order_is_404_without_a_body(alice):
    response = head(alice, f"/orders/{uuid.uuid4()}")

    assert (response.status_code, response.content) == (404, b"")


@pytest.mark.parametrize("params", [{}, {"include": "items"}], ids=["bare", "with items"])
def test_reading_takes_one_statement(alice, path, statements_of, params):
    assert statements_of(alice.get(path, params=params)) == 1


@pytest.mark.parametrize("page", [False, True], ids=["one", "page"])
def test_the_items_are_those_of_the_version_they_come_with(alice, path, sql, server, page):
    with second_connection(server.database_url) as writer, ThreadPoolExecutor(1) as threads:
        writer.execute("LOCK TABLE order_items IN ACCESS EXCLUSIVE MODE")
        reading = threads.submit(alice.get, "/orders" if page else path, params={"include": "items"})
        wait_until_blocked(sql, writer)
        writer.execute("UPDATE order_items SET quantity = 9 WHERE user_id = %s", [alice.user_id])
        writer.execute("UPDATE orders SET version = 2, total_cents = 9 * 625 WHERE user_id = %s", [alice.user_id])
        writer.commit()
        order = reading.result().json()["data"][0] if page else reading.result().json()

    assert (order["version"], order["total_cents"], order["items"][0]["quantity"]) == (2, 9 * 625, 9)


def test_items_are_read_as_they_were_placed_whatever_they_are_called(alice):
    names = ['"', "\\u0041\\", "\u2028", "Ä😀", "[]", "%(id)s", "9" * 60]
    items = [
        {"sku": name, "name": name, "quantity": 1 + number, "unit_price_cents": 10**9 + number}
        for number, name in enumerate(names)
    ]
    placed = alice.place({"currency": "EUR", "items": items})

    assert placed.json()["items"] == items
    assert alice.get(placed.headers["Location"], params={"include": "items"}).json() == placed.json()
    assert alice.get("/orders", params={"include": "items"}).json()["data"] == [placed.json()]


def test_a_user_reads_what_that_user_wrote_from_any_worker(alice, path):
    for version in range(2, 12):
        alice.patch(path, json={"metadata": {"n": str(version)}})
        # Connections of their own: whichever worker accepts them.
        for _ in range(2):
            assert alice.get(path, headers={"Connection": "close"}).json()["version"] == version


MALFORMED = {
    "a word": "xyz",
    "a number": "1",
    "a word between": "00000000-0000-7000-8000-00000000000g",
    "too short": "0193573a-0000-7000-8000-00000000001",
    "too long": "0193573a-0000-7000-8000-0000000000011",
    "without hyphens": "0193573a000070008000000000000001",
    "in braces": "{0193573a-0000-7000-8000-000000000001}",
    "a URN": "urn:uuid:0193573a-0000-7000-8000-000000000001",
    "with a line feed": "0193573a-0000-7000-8000-000000000001\n",
    "NUL": "\0",
    "not ASCII": "é",
    "SQL": "' OR 1=1 --",
    "long": "x" * 3000,
}


@pytest.mark.parametrize("order_id", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("below", ["", "/events"])
def test_proof_6_a_malformed_id_is_answered_as_an_unknown_one(alice, order_id, below):
    unknown = alice.get(f"/orders/{uuid.uuid4()}{below}")
    malformed = alice.get(f"/orders/{quote(order_id, safe='')}{below}")

    assert_problem(malformed, 404, "order_not_found")
    assert alike(malformed) == alike(unknown)


def test_an_id_in_upper_case_is_the_same_id(alice, path):
    order_id = path.removeprefix("/orders/").upper()

    assert alice.get(f"/orders/{order_id}").json() == alice.get(path).json()


@pytest.mark.parametrize("below", ["", "?include=items", "/events"])
def test_proof_6_anothers_order_is_answered_as_an_unknown_one(alice, bob, path, below):
    alice.get(path + below)
    foreign, unknown = bob.get(path + below), bob.get(f"/orders/{uuid.uuid4()}{below}")

    assert_problem(foreign, 404, "order_not_found")
    assert alike(foreign) == alike(unknown)
    assert set(foreign.headers) == set(unknown.headers)


def test_proof_6_anothers_tag_finds_nothing(alice, bob, path):
    response = bob.get(path, headers={"If-None-Match": tag_of(alice, path)})

    assert_problem(response, 404, "order_not_found")
    assert "ETag" not in response.headers


def test_proof_6_anothers_order_costs_as_many_statements_as_an_unknown_one(alice, bob, path, statements_of):
    bob.get(path)

    assert statements_of(bob.get(path)) == statements_of(bob.get(f"/orders/{uuid.uuid4()}"))
