"""`GET /orders`: pages that a walk can trust, whatever happens meanwhile."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.client import assert_problem

WRITERS = 4
STEP_S = 10.0


def place(client, count, **members):
    """The ids of `count` new orders, oldest first."""
    return [client.place({"currency": "EUR", "total_cents": 1, **members}).json()["id"] for _ in range(count)]


def pages(client, **params):
    """Every page of a walk, each asked for when it is needed."""
    while True:
        page = client.get("/orders", params=params).json()
        yield page
        if not page["has_more"]:
            return
        params["cursor"] = page["next_cursor"]


def walk(client, **params):
    return [order["id"] for page in pages(client, **params) for order in page["data"]]


def created_at(sql, order_ids, moments):
    for order_id, moment in zip(order_ids, moments, strict=True):
        sql.execute("UPDATE orders SET created_at = %s, updated_at = now() WHERE id = %s", [moment, order_id])


def cursor_of(client, **params):
    return client.get("/orders", params={"limit": 1, **params}).json()["next_cursor"]


def assert_parameters(response, *errors):
    assert_problem(response, 422, "validation_failed")
    assert {(error["parameter"], error["code"]) for error in response.json()["errors"]} == set(errors)


def test_a_user_without_orders_has_an_empty_page(alice):
    response = alice.get("/orders")

    assert response.json() == {"data": [], "has_more": False, "next_cursor": None}
    assert "Link" not in response.headers


def test_the_newest_order_comes_first(alice):
    ids = place(alice, 3)

    assert walk(alice) == ids[::-1]


def test_a_page_holds_20_orders_unless_told_otherwise(alice):
    place(alice, 21)
    page = alice.get("/orders").json()

    assert (len(page["data"]), page["has_more"]) == (20, True)


def test_a_walk_sees_each_order_once(alice):
    ids = place(alice, 7)

    assert walk(alice, limit=3) == ids[::-1]


def test_a_page_that_is_exactly_full_is_the_last(alice):
    place(alice, 2)
    response = alice.get("/orders", params={"limit": 2})

    assert (response.json()["has_more"], response.json()["next_cursor"]) == (False, None)
    assert "Link" not in response.headers


def test_the_link_leads_to_the_next_page(alice):
    ids = place(alice, 3)
    params = {"limit": 2, "status": "pending", "created_after": "2020-01-01T00:00:00+02:00", "include": "items"}
    first = alice.get("/orders", params=params)
    target = re.fullmatch(r'<(/orders\?[^>]+)>; rel="next"', first.headers["Link"])[1]

    assert parse_qs(urlsplit(target).query)["cursor"] == [first.json()["next_cursor"]]
    second = alice.get(target).json()
    assert ([order["id"] for order in second["data"]], "items" in second["data"][0]) == (ids[:1], True)


def test_a_page_is_kept_by_nobody_else(alice):
    assert alice.get("/orders").headers["Cache-Control"] == "private, no-cache"


def test_a_listed_order_is_the_order_as_it_is_read(alice):
    (order_id,) = place(alice, 1)

    assert alice.get("/orders").json()["data"] == [alice.get(f"/orders/{order_id}").json()]


def test_head_answers_as_get_without_a_body(alice):
    place(alice, 2)
    params = {"limit": 1}
    head, get = alice.http.head("/orders", params=params, headers=bearer(alice)), alice.get("/orders", params=params)

    assert (head.status_code, head.content, head.headers["Link"]) == (200, b"", get.headers["Link"])


def bearer(client):
    return {"Authorization": f"Bearer {client.access_token}"}


def test_a_walk_sees_each_earlier_order_once_while_others_are_placed(alice):
    earlier = place(alice, 30)
    placed, stop = [], threading.Event()
    news = threading.Condition()

    def write():
        while not stop.is_set():
            response = alice.place()
            with news:
                placed.append(response.json()["id"])
                news.notify_all()

    seen = []
    with ThreadPoolExecutor(WRITERS) as threads:
        writers = [threads.submit(write) for _ in range(WRITERS)]
        try:
            for page in pages(alice, limit=3):
                seen += [order["id"] for order in page["data"]]
                # The next page is not asked for before something new has come in front of it.
                count = len(placed)
                with news:
                    assert news.wait_for(lambda count=count: len(placed) > count, STEP_S)
        finally:
            stop.set()
        for writer in writers:
            writer.result()

    assert len(placed) >= 10
    assert len(seen) == len(set(seen))
    assert [order_id for order_id in seen if order_id in set(earlier)] == earlier[::-1]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
def test_orders_of_the_same_moment_are_each_seen_once(alice, sql, limit):
    ids = place(alice, 7)
    created_at(sql, ids, ["2026-01-01T00:00:00Z"] * 7)

    assert walk(alice, limit=limit) == sorted(ids, reverse=True)


def test_moments_that_differ_by_a_microsecond_are_told_apart(alice, sql):
    ids = place(alice, 3)
    created_at(sql, ids, [f"2026-01-01T00:00:00.00000{digit}Z" for digit in (2, 3, 1)])

    assert walk(alice, limit=1) == [ids[1], ids[0], ids[2]]


def test_a_walk_goes_on_when_the_order_at_its_border_leaves_the_filter(alice):
    ids = place(alice, 5)
    first = alice.get("/orders", params={"limit": 2, "status": "pending"}).json()
    alice.patch(f"/orders/{first['data'][-1]['id']}", json={"status": "cancelled"})

    assert walk(alice, limit=2, status="pending", cursor=first["next_cursor"]) == ids[2::-1]


def test_a_walk_goes_on_when_the_order_at_its_border_is_gone(alice, sql):
    ids = place(alice, 5)
    first = alice.get("/orders", params={"limit": 2}).json()
    # As if it had been erased: it is somewhere else now.
    created_at(sql, [ids[3]], ["2026-01-01T00:00:00Z"])

    assert walk(alice, limit=2, cursor=first["next_cursor"]) == [*ids[2::-1], ids[3]]


def test_orders_can_be_filtered_by_status(alice, sql):
    ids = place(alice, 3)
    alice.patch(f"/orders/{ids[0]}", json={"status": "cancelled"})
    sql.execute("UPDATE orders SET status = 'paid' WHERE id = %s", [ids[1]])

    assert [walk(alice, status=status) for status in ("cancelled", "paid", "pending")] == [[one] for one in ids]


@pytest.fixture
def three_days(alice, sql):
    ids = place(alice, 3)
    created_at(sql, ids, [f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3)])
    return ids


def test_created_after_is_exclusive(alice, three_days):
    assert walk(alice, created_after="2026-01-01T00:00:00Z") == [three_days[2], three_days[1]]


def test_created_before_is_exclusive(alice, three_days):
    assert walk(alice, created_before="2026-01-03T00:00:00Z") == [three_days[1], three_days[0]]


def test_filters_add_up(alice, three_days):
    window = {"created_after": "2026-01-01T00:00:00Z", "created_before": "2026-01-03T00:00:00Z"}

    assert walk(alice, status="pending", **window) == [three_days[1]]


def test_a_microsecond_decides(alice, three_days):
    assert walk(alice, created_after="2026-01-02T23:59:59.999999Z") == [three_days[2]]


def test_an_offset_is_heeded(alice, three_days):
    assert walk(alice, created_after="2026-01-02T01:59:59+02:00") == [three_days[2], three_days[1]]


def test_the_same_moment_spelled_otherwise_is_the_same_filter(alice, three_days):
    cursor = cursor_of(alice, created_after="2025-12-31T00:00:00Z")

    assert walk(alice, created_after="2025-12-31T02:00:00+02:00", cursor=cursor) == [three_days[1], three_days[0]]


@pytest.mark.parametrize("name", ["created_after", "created_before"])
@pytest.mark.parametrize(
    "moment",
    [
        "2026-01-01T00:00:00",
        "2026-01-01",
        "yesterday",
        "",
        "1767225600",
        "2026-02-30T00:00:00Z",
        "2026-01-01T00:00:00 02:00",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-01-01T00:00:00Z\0",
    ],
)
def test_a_moment_needs_a_date_a_time_and_an_offset(alice, name, moment):
    assert_parameters(alice.get("/orders", params={name: moment}), (name, "invalid_format"))


@pytest.mark.parametrize("status", ["refunded", "PENDING", "", "pending,paid"])
def test_an_unknown_status_is_refused(alice, status):
    assert_parameters(alice.get("/orders", params={"status": status}), ("status", "invalid_value"))


def test_all_wrong_parameters_are_told_at_once(alice):
    params = {"limit": "0", "status": "x", "created_after": "x", "include": "events", "colour": "red"}

    assert_parameters(
        alice.get("/orders", params=params),
        ("limit", "out_of_range"),
        ("status", "invalid_value"),
        ("created_after", "invalid_format"),
        ("include", "invalid_value"),
        ("colour", "unknown_field"),
    )


def test_a_page_can_include_the_items(alice):
    items = [{"sku": f"s-{n}", "name": "", "quantity": 1, "unit_price_cents": 1} for n in (2, 1)]
    with_items = alice.place({"currency": "EUR", "items": items}).json()
    place(alice, 1)

    listed = alice.get("/orders", params={"include": "items"}).json()["data"]
    assert [order["items"] for order in listed] == [[], items]
    assert listed[1] == with_items


def test_a_page_without_include_has_no_items(alice):
    place(alice, 1)

    assert "items" not in alice.get("/orders").json()["data"][0]


def test_include_and_limit_are_free_to_change_within_a_walk(alice):
    ids = place(alice, 5)
    cursor = cursor_of(alice)
    rest = alice.get("/orders", params={"cursor": cursor, "limit": 100, "include": "items"}).json()["data"]

    assert [order["id"] for order in rest] == ids[3::-1]
    assert all("items" in order for order in rest)


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("include", [{}, {"include": "items"}], ids=["bare", "with items"])
def test_a_page_takes_one_statement_whatever_its_length(alice, statements_of, count, include):
    place(alice, count)

    assert statements_of(alice.get("/orders", params={"limit": 100, **include})) == 1


def test_proof_6_nobody_sees_anothers_orders(alice, bob):
    place(alice, 2)
    alice.get("/orders")

    assert bob.get("/orders").json()["data"] == []


def test_proof_10_a_cursor_changed_in_any_character_is_invalid(alice):
    place(alice, 2)
    cursor = cursor_of(alice)

    for position, character in enumerate(cursor):
        changed = cursor[:position] + ("A" if character != "A" else "B") + cursor[position + 1 :]
        assert_problem(alice.get("/orders", params={"cursor": changed}), 400, "cursor_invalid")


SPOILED = {
    "empty": lambda cursor: "",
    "cut": lambda cursor: cursor[:-1],
    "cut in front": lambda cursor: cursor[1:],
    "padded": lambda cursor: cursor + "=",
    "doubled": lambda cursor: cursor * 2,
    "513 characters": lambda cursor: "A" * 513,
    "huge": lambda cursor: "A" * 3500,
    "blank": lambda cursor: " ",
    "not ASCII": lambda cursor: cursor[:-1] + "é",
    "JSON": lambda cursor: '[1,[0,"0"],["","",""]]',
    "a number": lambda cursor: "20",
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_proof_10_what_is_no_cursor_of_ours_is_invalid(alice, spoil):
    place(alice, 2)

    assert_problem(alice.get("/orders", params={"cursor": spoil(cursor_of(alice))}), 400, "cursor_invalid")


def test_proof_10_a_cursor_with_nul_is_refused(alice):
    response = alice.get("/orders", params={"cursor": "\0"})

    assert_parameters(response, ("cursor", "invalid_character"))


def test_proof_10_a_cursor_given_twice_is_refused(alice):
    assert_parameters(alice.get("/orders?cursor=a&cursor=b"), ("cursor", "invalid_type"))


def test_proof_10_another_users_cursor_is_invalid(alice, bob):
    place(alice, 2)
    place(bob, 2)

    assert_problem(alice.get("/orders", params={"cursor": cursor_of(bob)}), 400, "cursor_invalid")


def test_proof_10_a_cursor_of_another_list_is_invalid(alice):
    order_id = place(alice, 2)[0]
    alice.patch(f"/orders/{order_id}", json={"status": "cancelled"})
    history = f"/orders/{order_id}/events"
    of_events = alice.get(history, params={"limit": 1}).json()["next_cursor"]

    assert_problem(alice.get("/orders", params={"cursor": of_events}), 400, "cursor_invalid")
    assert_problem(alice.get(history, params={"cursor": cursor_of(alice)}), 400, "cursor_invalid")


FILTERS = {
    "status": ("pending", "paid"),
    "created_after": ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00.000001Z"),
    "created_before": ("2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z"),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("change", ["added", "dropped", "changed"])
def test_proof_10_a_cursor_under_another_filter_is_a_mismatch(alice, name, change):
    place(alice, 2)
    before, after = FILTERS[name]
    cursor = cursor_of(alice, **({} if change == "added" else {name: before}))
    response = alice.get("/orders", params={"cursor": cursor, **({} if change == "dropped" else {name: after})})

    assert_problem(response, 400, "cursor_mismatch")
    assert [error["parameter"] for error in response.json()["errors"]] == [name]


@pytest.mark.parametrize("limit", ["0", "-1", "101", "1000000000", "9" * 100])
def test_proof_11_a_limit_out_of_range_is_refused(alice, limit):
    assert_parameters(alice.get("/orders", params={"limit": limit}), ("limit", "out_of_range"))


@pytest.mark.parametrize("limit", ["abc", "", "1.0", "1e1", " 5", "+5", "0x10", "１", "1,2", "5\n", "9" * 1000])
def test_proof_11_a_limit_that_is_no_integer_is_refused(alice, limit):
    assert_parameters(alice.get("/orders", params={"limit": limit}), ("limit", "invalid_type"))


def test_proof_11_a_limit_given_twice_is_refused(alice):
    assert_parameters(alice.get("/orders?limit=1&limit=2"), ("limit", "invalid_type"))


@pytest.mark.parametrize("limit", [1, 100])
def test_proof_11_a_limit_at_its_bound_is_taken(alice, limit):
    assert alice.get("/orders", params={"limit": limit}).status_code == 200
