"""`POST /orders`: what is taken, what is refused, and what is stored then."""

import re
import secrets
from uuid import UUID

import pytest

from tests.client import LAMP, assert_problem

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ITEM = {"sku": "lamp-1", "name": "Lamp", "quantity": 1, "unit_price_cents": 1250}
TRILLION = 10**12


def pieces(**changes):
    return {"currency": "EUR", "items": [{**ITEM, **changes}]}


def amount(total_cents):
    return {"currency": "EUR", "total_cents": total_cents}


def errors_of(response):
    return {(error["pointer"], error["code"]) for error in response.json()["errors"]}


def rows_of(sql, client):
    tables = ("orders", "order_items", "order_events", "idempotency_keys")
    counts = ", ".join(f"(SELECT count(*) FROM {table} WHERE user_id = %(user)s)" for table in tables)
    return sql.execute(f"SELECT {counts}", {"user": client.user_id}).fetchone()


def assert_refused(client, order, sql, *errors):
    response = client.place(order)

    assert_problem(response, 422, "validation_failed")
    assert errors_of(response) == set(errors)
    assert rows_of(sql, client) == (0, 0, 0, 0)


def test_the_answer_is_the_whole_order(alice):
    response = alice.place({**LAMP, "metadata": {"gift": "yes"}})
    order = response.json()

    assert response.status_code == 201
    assert set(order) == {
        *("id", "status", "currency", "total_cents", "metadata", "version", "created_at", "updated_at", "items")
    }
    assert (order["status"], order["version"], order["currency"]) == ("pending", 1, LAMP["currency"])
    assert order["metadata"] == {"gift": "yes"}


def test_an_id_is_a_uuid_of_version_7(alice):
    assert UUID(alice.place().json()["id"]).version == 7


def test_times_are_rfc_3339_in_utc_with_microseconds(alice):
    order = alice.place().json()

    assert TIME.fullmatch(order["created_at"])
    assert order["created_at"] == order["updated_at"]


def test_the_location_leads_to_the_order(alice):
    response = alice.place()

    assert response.headers["Location"] == f"/orders/{response.json()['id']}"
    assert alice.get(response.headers["Location"], params={"include": "items"}).json() == response.json()


def test_the_etag_is_that_of_the_order_with_its_items(alice):
    response = alice.place()
    read = alice.get(response.headers["Location"], params={"include": "items"})

    assert response.headers["ETag"] == read.headers["ETag"]
    assert not response.headers["ETag"].startswith("W/")


def test_the_answer_is_kept_by_nobody_else(alice):
    assert alice.place().headers["Cache-Control"] == "private, no-cache"


def test_the_total_is_the_sum_of_the_items(alice):
    items = [{**ITEM, "quantity": 3, "unit_price_cents": 100}, {**ITEM, "quantity": 2, "unit_price_cents": 7}]

    assert alice.place({"currency": "EUR", "items": items}).json()["total_cents"] == 314


def test_an_order_can_be_a_total_without_items(alice):
    order = alice.place(amount(1250)).json()

    assert (order["total_cents"], order["items"]) == (1250, [])


def test_a_total_that_matches_its_items_is_taken(alice):
    assert alice.place({**pieces(), "total_cents": 1250}).status_code == 201


def test_a_total_that_differs_from_its_items_is_refused(alice, sql):
    assert_refused(alice, {**pieces(), "total_cents": 1251}, sql, ("#/total_cents", "sum_mismatch"))


def test_an_order_needs_a_total_or_items(alice, sql):
    assert_refused(alice, {"currency": "EUR"}, sql, ("#/total_cents", "required"))


def test_an_order_needs_a_currency(alice, sql):
    assert_refused(alice, {"total_cents": 1}, sql, ("#/currency", "required"))


def test_items_keep_their_order(alice):
    skus = [f"sku-{number}" for number in (9, 1, 5, 3, 7)]
    order = alice.place({"currency": "EUR", "items": [{**ITEM, "sku": sku} for sku in skus]}).json()

    read = alice.get(f"/orders/{order['id']}", params={"include": "items"}).json()
    assert [item["sku"] for item in read["items"]] == skus


def test_a_name_is_optional(alice):
    item = {name: value for name, value in ITEM.items() if name != "name"}

    assert alice.place({"currency": "EUR", "items": [item]}).json()["items"][0]["name"] == ""


def test_text_comes_back_as_it_was_given(alice):
    name = "  Lämpchen „€“ 💡\t<b>\\u0041</b> '; DROP TABLE orders; --  "
    order = alice.place({**pieces(name=name), "metadata": {name[:40]: name}}).json()

    read = alice.get(f"/orders/{order['id']}", params={"include": "items"}).json()
    assert (read["items"][0]["name"], read["metadata"]) == (name, {name[:40]: name})


def test_an_order_leaves_one_row_with_its_items_its_event_and_its_key(alice, sql):
    alice.place({"currency": "EUR", "items": [ITEM, ITEM]})

    assert rows_of(sql, alice) == (1, 2, 1, 1)


def test_the_event_tells_of_the_order(alice, sql):
    response = alice.place(LAMP)
    order = response.json()
    event = sql.execute(
        "SELECT sequence, order_id::text, type, data, trace_id FROM order_events WHERE user_id = %s", [alice.user_id]
    ).fetchone()

    data = {
        "version": 1,
        "status": "pending",
        "currency": order["currency"],
        "total_cents": order["total_cents"],
        "changed": [],
    }
    assert event == (1, order["id"], "order.created", data, response.headers["X-Trace-Id"])


def test_the_event_has_the_trace_id_of_the_clients_traceparent(alice, sql):
    trace_id = secrets.token_hex(16)
    headers = {"Idempotency-Key": "k", "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    alice.post("/orders", json=LAMP, headers=headers)

    stored = sql.execute("SELECT trace_id FROM order_events WHERE user_id = %s", [alice.user_id]).fetchall()
    assert stored == [(trace_id,)]


def test_placing_an_order_takes_at_most_8_statements(alice, statements_of):
    alice.place()

    assert statements_of(alice.place()) <= 8


def test_placing_100_items_takes_as_many_statements_as_one(alice, statements_of):
    alice.place()
    one = statements_of(alice.place(pieces()))

    assert statements_of(alice.place({"currency": "EUR", "items": [ITEM] * 100})) == one


def test_all_errors_are_told_at_once(alice, sql):
    order = {
        "total_cents": "1",
        "items": [{"sku": "", "quantity": 1.0}, ITEM, {**ITEM, "x/y~z é": 1, "quantity": 0}],
        "metadata": {"a": 1, "b": "fine", "c": "x" * 501},
        "colour": "red",
    }
    assert_refused(
        alice,
        order,
        sql,
        ("#/currency", "required"),
        ("#/total_cents", "invalid_type"),
        ("#/items/0/sku", "out_of_range"),
        ("#/items/0/quantity", "invalid_type"),
        ("#/items/0/unit_price_cents", "required"),
        ("#/items/2/x~1y~0z%20%C3%A9", "unknown_field"),
        ("#/items/2/quantity", "out_of_range"),
        ("#/metadata/a", "invalid_type"),
        ("#/metadata/c", "out_of_range"),
        ("#/colour", "unknown_field"),
    )


@pytest.mark.parametrize("body", [[], "order", 1, None, True])
def test_a_body_that_is_no_object_is_refused_as_a_whole(alice, sql, body):
    response = alice.post("/orders", content=b"null", headers=json_headers()) if body is None else alice.place(body)

    assert_problem(response, 422, "validation_failed")
    assert errors_of(response) == {("#", "invalid_type")}
    assert rows_of(sql, alice) == (0, 0, 0, 0)


def json_headers():
    return {"Content-Type": "application/json", "Idempotency-Key": "k"}


WITHIN_BOUNDS = {
    "quantity 1": pieces(quantity=1),
    "quantity 10,000": pieces(quantity=10_000),
    "a price of 0 beside another": {"currency": "EUR", "items": [ITEM, {**ITEM, "unit_price_cents": 0}]},
    "price 10^10": pieces(unit_price_cents=10**10),
    "sku of 1": pieces(sku="x"),
    "sku of 64": pieces(sku="x" * 64),
    "sku of 64 emojis": pieces(sku="💡" * 64),
    "name of 0": pieces(name=""),
    "name of 200": pieces(name="ä" * 200),
    "1 item": {"currency": "EUR", "items": [ITEM]},
    "100 items": {"currency": "EUR", "items": [ITEM] * 100},
    "100 items as long as they can be": {
        "currency": "EUR",
        "items": [{"sku": "x" * 64, "name": "x" * 200, "quantity": 1, "unit_price_cents": 10**10}] * 100,
    },
    "total 1": amount(1),
    "total 10^12": amount(TRILLION),
    "a sum of 10^12": pieces(quantity=100, unit_price_cents=10**10),
    "no metadata": {**amount(1), "metadata": {}},
    "20 metadata": {**amount(1), "metadata": {str(n): "x" for n in range(20)}},
    "a metadata key of 40": {**amount(1), "metadata": {"k" * 40: "x"}},
    "a metadata value of 500": {**amount(1), "metadata": {"k": "x" * 500}},
    "an empty metadata value": {**amount(1), "metadata": {"k": ""}},
}


@pytest.mark.parametrize("order", WITHIN_BOUNDS.values(), ids=WITHIN_BOUNDS)
def test_what_is_at_its_bound_is_taken(alice, order):
    response = alice.place(order)

    assert response.status_code == 201, response.text


BEYOND_BOUNDS = {
    "quantity 0": (pieces(quantity=0), "#/items/0/quantity"),
    "quantity 10,001": (pieces(quantity=10_001), "#/items/0/quantity"),
    "price −1": (pieces(unit_price_cents=-1), "#/items/0/unit_price_cents"),
    "price 10^10 + 1": (pieces(unit_price_cents=10**10 + 1), "#/items/0/unit_price_cents"),
    "sku of 0": (pieces(sku=""), "#/items/0/sku"),
    "sku of 65": (pieces(sku="x" * 65), "#/items/0/sku"),
    "name of 201": (pieces(name="x" * 201), "#/items/0/name"),
    "no items": ({"currency": "EUR", "items": []}, "#/items"),
    "101 items": ({"currency": "EUR", "items": [ITEM] * 101}, "#/items"),
    "total 0": (amount(0), "#/total_cents"),
    "total 10^12 + 1": (amount(TRILLION + 1), "#/total_cents"),
    "a sum of 0": (pieces(unit_price_cents=0), "#/items"),
    "21 metadata": ({**amount(1), "metadata": {str(n): "x" for n in range(21)}}, "#/metadata"),
    "a metadata key of 41": ({**amount(1), "metadata": {"k" * 41: "x"}}, f"#/metadata/{'k' * 41}"),
    "a metadata value of 501": ({**amount(1), "metadata": {"k": "x" * 501}}, "#/metadata/k"),
}


@pytest.mark.parametrize(("order", "pointer"), BEYOND_BOUNDS.values(), ids=BEYOND_BOUNDS)
def test_what_is_beyond_its_bound_is_refused(alice, sql, order, pointer):
    assert_refused(alice, order, sql, (pointer, "out_of_range"))


WRONG_TYPES = {
    "items as an object": ({"currency": "EUR", "items": {}}, "#/items"),
    "items null": ({"currency": "EUR", "items": None}, "#/items"),
    "an item as a string": ({"currency": "EUR", "items": ["lamp"]}, "#/items/0"),
    "an item null": ({"currency": "EUR", "items": [None]}, "#/items/0"),
    "total null": ({"currency": "EUR", "total_cents": None}, "#/total_cents"),
    "sku as a number": (pieces(sku=1), "#/items/0/sku"),
    "name null": (pieces(name=None), "#/items/0/name"),
    "metadata null": ({**amount(1), "metadata": None}, "#/metadata"),
    "metadata as a list": ({**amount(1), "metadata": []}, "#/metadata"),
    "metadata value null": ({**amount(1), "metadata": {"k": None}}, "#/metadata/k"),
    "metadata value as an object": ({**amount(1), "metadata": {"k": {}}}, "#/metadata/k"),
    "currency as a list": ({"currency": ["EUR"], "total_cents": 1}, "#/currency"),
    "currency null": ({"currency": None, "total_cents": 1}, "#/currency"),
}


@pytest.mark.parametrize(("order", "pointer"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_a_wrong_type_is_refused(alice, sql, order, pointer):
    assert_refused(alice, order, sql, (pointer, "invalid_type"))


NUL = {
    "sku": (pieces(sku="a\0b"), "#/items/0/sku"),
    "name": (pieces(name="\0"), "#/items/0/name"),
    "metadata value": ({**amount(1), "metadata": {"k": "a\0"}}, "#/metadata/k"),
    "metadata key": ({**amount(1), "metadata": {"a\0b": "x"}}, "#/metadata/a%00b"),
}


@pytest.mark.parametrize(("order", "pointer"), NUL.values(), ids=NUL)
def test_proof_14_a_nul_character_is_refused(alice, sql, order, pointer):
    assert_refused(alice, order, sql, (pointer, "invalid_character"))


@pytest.mark.parametrize("field", ["status", "user_id", "id", "created_at", "updated_at", "version"])
def test_proof_7_what_is_ours_to_say_is_an_unknown_field(alice, bob, sql, field):
    values = {"status": "paid", "user_id": bob.user_id, "id": bob.user_id, "version": 7}
    order = {**LAMP, field: values.get(field, "2020-01-01T00:00:00Z")}

    assert_refused(alice, order, sql, (f"#/{field}", "unknown_field"))


AMOUNTS = {"-1": "-1", "0": "0", "1.0": "1.0", "1e0": "1e0", "string": '"1"', "true": "true", "2^63": str(2**63)}


def as_json(client, text):
    return client.post("/orders", content=text, headers=json_headers())


@pytest.mark.parametrize("text", AMOUNTS.values(), ids=AMOUNTS)
def test_proof_8_a_total_that_is_no_amount_is_refused(alice, sql, text):
    response = as_json(alice, f'{{"currency": "EUR", "total_cents": {text}}}')

    assert_problem(response, 422, "validation_failed")
    assert [error["pointer"] for error in response.json()["errors"]] == ["#/total_cents"]
    assert rows_of(sql, alice) == (0, 0, 0, 0)


@pytest.mark.parametrize("field", ["quantity", "unit_price_cents"])
@pytest.mark.parametrize("text", [text for text in AMOUNTS.values() if text != "0"])
def test_proof_8_an_item_that_has_no_amount_is_refused(alice, sql, field, text):
    item = {"quantity": "1", "unit_price_cents": "1", field: text}
    members = ", ".join(f'"{name}": {value}' for name, value in item.items())
    response = as_json(alice, f'{{"currency": "EUR", "items": [{{"sku": "a", {members}}}]}}')

    assert_problem(response, 422, "validation_failed")
    assert [error["pointer"] for error in response.json()["errors"]] == [f"#/items/0/{field}"]
    assert rows_of(sql, alice) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "items",
    [
        [{**ITEM, "quantity": 10_000, "unit_price_cents": 10**10}] * 100,
        [{**ITEM, "quantity": 100, "unit_price_cents": 10**10}, {**ITEM, "unit_price_cents": 1}],
    ],
    ids=["10^16", "10^12 + 1"],
)
def test_proof_8_a_sum_that_overflows_is_refused(alice, sql, items):
    assert_refused(alice, {"currency": "EUR", "items": items}, sql, ("#/items", "out_of_range"))


REFUSED_CURRENCIES = ["usd", "Usd", "XXX", "XTS", "XAU", "BGN", "ANG", "ZWL", "ABC", "", " EUR", "EUR ", "EURO", "978"]
LOOK_ALIKES = ["ЕUR", "ＥＵＲ", "EUR\u200b", "UЅD"]


@pytest.mark.parametrize("currency", REFUSED_CURRENCIES + LOOK_ALIKES)
def test_proof_8_a_currency_that_is_not_in_use_is_refused(alice, sql, currency):
    assert_refused(alice, {"currency": currency, "total_cents": 1}, sql, ("#/currency", "invalid_value"))


@pytest.mark.parametrize("currency", ["EUR", "USD", "JPY", "KWD", "XCG", "ZWG", "XOF"])
def test_proof_8_a_currency_in_use_is_taken(alice, currency):
    assert alice.place({"currency": currency, "total_cents": 1}).json()["currency"] == currency
