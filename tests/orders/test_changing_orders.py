"""`PATCH /orders/{id}`: a merge into what is there at that moment; what is settled stays settled."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client import assert_problem
from tests.orders.races import at_once, second_connection, wait_until_blocked

BARE = {"currency": "EUR", "total_cents": 100}
ITEM = {"sku": "s", "name": "n", "quantity": 2, "unit_price_cents": 50}
EDITS = {
    "currency": {"currency": "USD"},
    "total_cents": {"total_cents": 7},
    "items": {"items": [ITEM, ITEM]},
}


@pytest.fixture
def path(alice):
    """A pending order of Alice's without items."""
    return alice.place(BARE).headers["Location"]


@pytest.fixture
def with_items(alice):
    """A pending order of Alice's with one item of twice 50."""
    return alice.place({"currency": "EUR", "items": [ITEM]}).headers["Location"]


@pytest.fixture
def paid(path, sql):
    sql.execute("UPDATE orders SET status = 'paid' WHERE id = %s", [path.removeprefix("/orders/")])
    return path


@pytest.fixture
def cancelled(alice, path):
    alice.patch(path, json={"status": "cancelled"})
    return path


def read(client, path):
    return client.get(path, params={"include": "items"}).json()


def events(client, path):
    return [event["type"] for event in client.get(f"{path}/events", params={"limit": 100}).json()["data"]]


def assert_pointers(response, *errors):
    assert_problem(response, 422, "validation_failed")
    assert {(error["pointer"], error["code"]) for error in response.json()["errors"]} == set(errors)


def assert_unchanged(client, path, before):
    assert read(client, path) == before
    assert events(client, path) == ["order.created"]


# What a change does


@pytest.mark.parametrize("field", EDITS)
def test_a_pending_order_can_be_edited(alice, path, field):
    response = alice.patch(path, json=EDITS[field])

    assert response.status_code == 200
    assert response.json()[field] == EDITS[field][field]
    assert read(alice, path) == response.json()


def test_a_change_raises_the_version_and_writes_an_event(alice, path):
    order = alice.patch(path, json={"currency": "USD"}).json()

    assert order["version"] == 2
    assert events(alice, path) == ["order.created", "order.updated"]


def test_a_change_leaves_other_orders_alone(alice, path, with_items):
    other = read(alice, with_items)
    alice.patch(path, json={"currency": "USD", "items": [ITEM, ITEM]})

    alice.patch(path, json={"status": "cancelled"})

    assert_unchanged(alice, with_items, other)


def test_a_change_moves_updated_at_and_nothing_else_of_ours(alice, path):
    before, after = read(alice, path), alice.patch(path, json={"currency": "USD"}).json()

    assert after["updated_at"] > before["updated_at"]
    assert (after["id"], after["created_at"], after["status"]) == (before["id"], before["created_at"], "pending")


def test_the_answer_has_the_tag_of_the_order_with_its_items(alice, path):
    response = alice.patch(path, json={"currency": "USD"})

    assert response.headers["ETag"] == alice.get(path, params={"include": "items"}).headers["ETag"]
    assert response.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("count", [1, 2, 3], ids=["by fewer", "by as many", "by more"])
def test_items_are_replaced_whole(alice, sql, count):
    path = alice.place({"currency": "EUR", "items": [ITEM, ITEM]}).headers["Location"]
    new = [
        {"sku": f"{number}", "name": f"new {number}", "quantity": number + 3, "unit_price_cents": number + 60}
        for number in range(count)
    ]
    order = alice.patch(path, json={"items": new}).json()

    assert order["items"] == read(alice, path)["items"] == new
    order_id = path.removeprefix("/orders/")
    rows = sql.execute("SELECT sku FROM order_items WHERE order_id = %s ORDER BY position", [order_id]).fetchall()
    assert rows == [(f"{number}",) for number in range(count)]


def test_items_are_replaced_of_this_order_alone(alice, with_items):
    others = [alice.place({"currency": "EUR", "items": [ITEM, ITEM]}).headers["Location"] for _ in range(2)]
    alice.patch(with_items, json={"items": [{**ITEM, "sku": "new"}]})

    assert [read(alice, other)["items"] for other in others] == [[ITEM, ITEM]] * 2


def test_the_total_follows_new_items(alice, with_items):
    assert alice.patch(with_items, json={"items": [ITEM, ITEM, ITEM]}).json()["total_cents"] == 300


def test_new_items_with_a_total_that_matches_are_taken(alice, with_items):
    order = alice.patch(with_items, json={"items": [ITEM, ITEM], "total_cents": 200}).json()

    assert (order["total_cents"], len(order["items"])) == (200, 2)


def test_new_items_with_a_total_that_differs_are_refused(alice, with_items):
    before = read(alice, with_items)
    response = alice.patch(with_items, json={"items": [ITEM, ITEM], "total_cents": 100})

    assert_pointers(response, ("#/total_cents", "sum_mismatch"))
    assert_unchanged(alice, with_items, before)


def test_a_total_alone_must_match_the_items_that_are_there(alice, with_items):
    before = read(alice, with_items)

    assert_pointers(alice.patch(with_items, json={"total_cents": 101}), ("#/total_cents", "sum_mismatch"))
    assert_unchanged(alice, with_items, before)


def test_a_total_alone_that_matches_the_items_changes_nothing(alice, with_items):
    assert alice.patch(with_items, json={"total_cents": 100}).json()["version"] == 1


def test_several_fields_change_in_one_version_and_one_event(alice, path):
    order = alice.patch(path, json={"currency": "USD", "items": [ITEM], "metadata": {"a": "b"}}).json()

    assert (order["version"], order["currency"], order["total_cents"], order["metadata"]) == (2, "USD", 100, {"a": "b"})
    assert events(alice, path) == ["order.created", "order.updated"]


def test_a_merge_patch_is_taken_by_its_own_media_type(alice, path):
    headers = {"Content-Type": "application/merge-patch+json"}
    response = alice.patch(path, content='{"currency": "USD"}', headers=headers)

    assert (response.status_code, response.json()["currency"]) == (200, "USD")


# Metadata


def test_metadata_are_merged(alice, path):
    alice.patch(path, json={"metadata": {"a": "1", "b": "2"}})
    order = alice.patch(path, json={"metadata": {"b": "3", "c": "4"}}).json()

    assert order["metadata"] == {"a": "1", "b": "3", "c": "4"}


def test_null_removes_a_key(alice, path):
    alice.patch(path, json={"metadata": {"a": "1", "b": "2"}})

    assert alice.patch(path, json={"metadata": {"a": None}}).json()["metadata"] == {"b": "2"}


def test_null_in_place_of_the_metadata_empties_them(alice, path):
    alice.patch(path, json={"metadata": {"a": "1", "b": "2"}})

    assert alice.patch(path, json={"metadata": None}).json()["metadata"] == {}


def test_a_merge_can_not_pass_20_entries(alice, path):
    alice.patch(path, json={"metadata": {str(n): "x" for n in range(20)}})
    response = alice.patch(path, json={"metadata": {"20": "x"}})

    assert_pointers(response, ("#/metadata", "out_of_range"))
    assert len(read(alice, path)["metadata"]) == 20


def test_a_merge_can_remove_20_entries_and_add_20(alice, path):
    alice.patch(path, json={"metadata": {str(n): "x" for n in range(20)}})
    merge = {str(n): None for n in range(20)} | {f"new {n}": "y" for n in range(20)}

    assert alice.patch(path, json={"metadata": merge}).json()["metadata"] == {f"new {n}": "y" for n in range(20)}


@pytest.mark.parametrize("state", ["paid", "cancelled"])
def test_metadata_of_a_settled_order_can_change(alice, request, state):
    path = request.getfixturevalue(state)
    order = alice.patch(path, json={"metadata": {"a": "b"}}).json()

    assert (order["metadata"], order["status"]) == ({"a": "b"}, state)


def test_10_merges_at_once_lose_nothing(alice, path):
    answers = at_once(10, lambda number: alice.patch(path, json={"metadata": {f"k{number}": str(number)}}))

    assert {answer.status_code for answer in answers} == {200}
    order = read(alice, path)
    assert order["metadata"] == {f"k{number}": str(number) for number in range(10)}
    assert order["version"] == 11
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 12))
    assert events(alice, path) == ["order.created"] + ["order.updated"] * 10


@pytest.mark.parametrize("changes", [{"metadata": {"a": "b"}}, {"items": [ITEM, ITEM]}], ids=["order", "items"])
def test_a_change_takes_two_statements(alice, with_items, statements_of, changes):
    assert statements_of(alice.patch(with_items, json=changes)) == 2


@pytest.mark.parametrize("changes", [{"metadata": {"ours": "1"}}, {"items": [ITEM] * 3}], ids=["order", "items"])
def test_a_change_that_was_overtaken_is_one_of_what_is_there_then(alice, with_items, sql, server, changes):
    order_id = with_items.removeprefix("/orders/")
    with second_connection(server.database_url) as quicker, ThreadPoolExecutor(1) as threads:
        quicker.execute("UPDATE orders SET version = 2, metadata = %s WHERE id = %s", ['{"theirs": "2"}', order_id])
        quicker.execute("UPDATE order_items SET quantity = 9 WHERE order_id = %s", [order_id])
        change = threads.submit(alice.patch, with_items, json=changes)
        wait_until_blocked(sql, quicker)
        quicker.commit()

        assert change.result().json()["version"] == 3
    order = read(alice, with_items)
    assert order == change.result().json()
    assert order["metadata"] == {"theirs": "2"} | changes.get("metadata", {})
    assert order["items"] == changes.get("items", [{**ITEM, "quantity": 9}])
    assert events(alice, with_items) == ["order.created", "order.updated"]


# Changes that change nothing

NO_CHANGES = {
    "an empty patch": {},
    "the same currency": {"currency": "EUR"},
    "the same total": {"total_cents": 100},
    "the same items": {"items": [ITEM]},
    "the present status": {"status": "pending"},
    "no metadata": {"metadata": {}},
    "metadata that are empty already": {"metadata": None},
    "a key that is not there removed": {"metadata": {"a": None}},
}


@pytest.mark.parametrize("changes", NO_CHANGES.values(), ids=NO_CHANGES)
def test_what_changes_nothing_keeps_the_version_and_writes_no_event(alice, with_items, changes):
    before = read(alice, with_items)
    response = alice.patch(with_items, json=changes)

    assert (response.status_code, response.json()) == (200, before)
    assert_unchanged(alice, with_items, before)


@pytest.mark.parametrize("state", ["paid", "cancelled"])
def test_naming_the_present_status_of_a_settled_order_changes_nothing(alice, request, state):
    path = request.getfixturevalue(state)
    before = read(alice, path)

    assert alice.patch(path, json={"status": state, "currency": "EUR"}).json() == before


# Status


def test_the_owner_can_cancel_a_pending_order(alice, path):
    order = alice.patch(path, json={"status": "cancelled"}).json()

    assert (order["status"], order["version"]) == ("cancelled", 2)
    assert events(alice, path) == ["order.created", "order.cancelled"]


def test_an_order_can_be_edited_and_cancelled_at_once(alice, path):
    order = alice.patch(path, json={"status": "cancelled", "total_cents": 7, "metadata": {"why": "x"}}).json()

    assert (order["status"], order["total_cents"], order["metadata"]) == ("cancelled", 7, {"why": "x"})
    assert order["version"] == 2
    assert events(alice, path) == ["order.created", "order.updated", "order.cancelled"]


def test_an_order_is_cancelled_once_by_10_at_once(alice, path):
    answers = at_once(10, lambda _: alice.patch(path, json={"status": "cancelled"}))

    assert {answer.status_code for answer in answers} == {200}
    assert events(alice, path) == ["order.created", "order.cancelled"]


@pytest.mark.parametrize("state", ["path", "cancelled"])
def test_nobody_can_say_that_an_order_is_paid(alice, request, state):
    path = request.getfixturevalue(state)
    before = read(alice, path)

    assert_problem(alice.patch(path, json={"status": "paid"}), 403, "transition_forbidden")
    assert read(alice, path) == before


@pytest.mark.parametrize(("state", "wanted"), [("paid", "cancelled"), ("paid", "pending"), ("cancelled", "pending")])
def test_any_other_step_is_refused_with_what_is_allowed(alice, request, state, wanted):
    path = request.getfixturevalue(state)
    response = alice.patch(path, json={"status": wanted})

    assert_problem(response, 409, "transition_invalid")
    assert response.json()["allowed"] == []
    assert read(alice, path)["status"] == state


@pytest.mark.parametrize("status", ["refunded", "Cancelled", "", None, 1])
def test_an_unknown_status_is_refused(alice, path, status):
    assert_problem(alice.patch(path, json={"status": status}), 422, "validation_failed")


@pytest.mark.parametrize("state", ["paid", "cancelled"])
@pytest.mark.parametrize("field", EDITS)
def test_a_settled_order_can_not_be_edited(alice, request, state, field):
    path = request.getfixturevalue(state)
    before = read(alice, path)

    assert_problem(alice.patch(path, json=EDITS[field]), 409, "order_not_editable")
    assert read(alice, path) == before


def test_a_refused_edit_takes_its_metadata_with_it(alice, paid):
    assert_problem(alice.patch(paid, json={"metadata": {"a": "b"}, "currency": "USD"}), 409, "order_not_editable")
    assert read(alice, paid)["metadata"] == {}


def test_a_refused_step_takes_its_edits_with_it(alice, path):
    before = read(alice, path)

    assert_problem(alice.patch(path, json={"status": "paid", "currency": "USD"}), 403, "transition_forbidden")
    assert_unchanged(alice, path, before)


@pytest.mark.parametrize("changes", [{"status": "cancelled"}, {"total_cents": 1}], ids=["cancel", "edit"])
def test_a_payment_that_commits_first_wins(alice, path, sql, server, changes):
    with second_connection(server.database_url) as payment, ThreadPoolExecutor(1) as threads:
        payment.execute("UPDATE orders SET status = 'paid' WHERE id = %s", [path.removeprefix("/orders/")])
        late = threads.submit(alice.patch, path, json=changes)
        wait_until_blocked(sql, payment)
        payment.commit()

        assert late.result().status_code == 409
    assert (read(alice, path)["status"], read(alice, path)["total_cents"]) == ("paid", 100)


def test_an_order_held_too_long_is_answered_as_busy(alice, path, server):
    with second_connection(server.database_url) as holder:
        holder.execute("SELECT 1 FROM orders WHERE id = %s FOR UPDATE", [path.removeprefix("/orders/")])
        response = alice.patch(path, json={"currency": "USD"})

    assert_problem(response, 503, "overloaded")
    assert response.headers["Retry-After"] == "1"
    assert read(alice, path)["version"] == 1


# If-Match


@pytest.mark.parametrize("params", [{}, {"include": "items"}], ids=["bare", "with items"])
def test_if_match_takes_the_tag_of_either_representation(alice, path, params):
    tag = alice.get(path, params=params).headers["ETag"]

    assert alice.patch(path, json={"currency": "USD"}, headers={"If-Match": tag}).status_code == 200


@pytest.mark.parametrize("given", ["*", '"x", {tag}', '{tag} , W/"1.7"'])
def test_if_match_takes_any_and_lists(alice, path, given):
    headers = {"If-Match": given.format(tag=alice.get(path).headers["ETag"])}

    assert alice.patch(path, json={"currency": "USD"}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "given", ["W/{tag}", '"x"', '""', "", '"1.0"', '"1.2"', '"2.1"', '"1.1.other"', '"1.01x"', '"1.٣"', "garbage"]
)
def test_if_match_that_does_not_match_changes_nothing(alice, path, given):
    before = read(alice, path)
    value = given.format(tag=alice.get(path).headers["ETag"]).encode()
    response = alice.patch(path, json={"currency": "USD"}, headers={"If-Match": value})

    assert_problem(response, 412, "version_conflict")
    assert_unchanged(alice, path, before)


def test_a_stale_tag_is_answered_with_the_present_one(alice, path):
    stale = alice.get(path).headers["ETag"]
    alice.patch(path, json={"currency": "USD"})
    response = alice.patch(path, json={"currency": "JPY"}, headers={"If-Match": stale})

    assert_problem(response, 412, "version_conflict")
    assert response.headers["ETag"] == alice.get(path, params={"include": "items"}).headers["ETag"]
    retry = alice.patch(path, json={"currency": "JPY"}, headers={"If-Match": response.headers["ETag"]})
    assert (retry.status_code, retry.json()["version"]) == (200, 3)


def test_a_stale_tag_is_refused_even_where_nothing_would_change(alice, path):
    assert_problem(alice.patch(path, json={}, headers={"If-Match": '"1.7"'}), 412, "version_conflict")


def test_one_of_10_at_once_with_the_same_tag_wins(alice, path):
    headers = {"If-Match": alice.get(path).headers["ETag"]}
    answers = at_once(10, lambda n: alice.patch(path, json={"metadata": {"n": str(n)}}, headers=headers))

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9
    winner = next(answer for answer in answers if answer.status_code == 200)
    assert read(alice, path) == winner.json()


# What is refused


@pytest.mark.parametrize("field", ["id", "user_id", "created_at", "updated_at", "version", "colour"])
def test_proof_7_immutable_and_unknown_fields_are_refused_alike(alice, bob, path, field):
    before = read(alice, path)

    assert_pointers(alice.patch(path, json={field: bob.user_id, "currency": "USD"}), (f"#/{field}", "unknown_field"))
    assert_unchanged(alice, path, before)


REFUSED = {
    "currency null": ({"currency": None}, "#/currency", "invalid_type"),
    "currency unknown": ({"currency": "XXX"}, "#/currency", "invalid_value"),
    "total null": ({"total_cents": None}, "#/total_cents", "invalid_type"),
    "total 0": ({"total_cents": 0}, "#/total_cents", "out_of_range"),
    "total 1.0": ({"total_cents": 1.0}, "#/total_cents", "invalid_type"),
    "total true": ({"total_cents": True}, "#/total_cents", "invalid_type"),
    "items null": ({"items": None}, "#/items", "invalid_type"),
    "no items": ({"items": []}, "#/items", "out_of_range"),
    "101 items": ({"items": [ITEM] * 101}, "#/items", "out_of_range"),
    "an item without a sku": ({"items": [{"quantity": 1, "unit_price_cents": 1}]}, "#/items/0/sku", "required"),
    "metadata as a list": ({"metadata": []}, "#/metadata", "invalid_type"),
    "a metadata value as a number": ({"metadata": {"a": 1}}, "#/metadata/a", "invalid_type"),
    "a metadata value of 501": ({"metadata": {"a": "x" * 501}}, "#/metadata/a", "out_of_range"),
    "a list": ([], "#", "invalid_type"),
}


@pytest.mark.parametrize(("changes", "pointer", "code"), REFUSED.values(), ids=REFUSED)
def test_a_change_keeps_to_the_rules_of_a_new_order(alice, path, changes, pointer, code):
    before = read(alice, path)

    assert_pointers(alice.patch(path, json=changes), (pointer, code))
    assert_unchanged(alice, path, before)


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/json-patch+json", "application/x-www-form-urlencoded"]
)
def test_another_media_type_is_refused_with_those_that_are_taken(alice, path, media_type):
    response = alice.patch(path, content="{}", headers={"Content-Type": media_type})

    assert_problem(response, 415, "media_type_unsupported")
    assert response.headers["Accept-Patch"] == "application/json, application/merge-patch+json"


def test_options_tells_which_patches_are_taken(alice, path):
    response = alice.http.options(path)

    assert response.headers["Accept-Patch"] == "application/json, application/merge-patch+json"
    assert "PATCH" in response.headers["Allow"]


def test_orders_are_not_placed_by_merge_patch(alice):
    headers = {"Content-Type": "application/merge-patch+json", "Idempotency-Key": "k"}

    assert_problem(alice.post("/orders", content="{}", headers=headers), 415, "media_type_unsupported")


@pytest.mark.parametrize("method", ["DELETE", "PUT", "POST"])
def test_orders_are_not_deleted_or_put(alice, path, method):
    response = alice.http.request(method, path, headers={"Authorization": f"Bearer {alice.access_token}"})

    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "GET, HEAD, PATCH, OPTIONS"
    assert alice.get(path).status_code == 200


def test_proof_6_anothers_order_is_not_there_to_be_changed(alice, bob, path):
    before = read(alice, path)

    assert_problem(bob.patch(path, json={"status": "cancelled"}), 404, "order_not_found")
    assert_problem(bob.patch(path, json={}, headers={"If-Match": '"1.7"'}), 404, "order_not_found")
    assert_unchanged(alice, path, before)


@pytest.mark.parametrize("order_id", ["xyz", str(uuid.UUID(int=0)), "%00"])
def test_an_order_that_is_not_there_can_not_be_changed(alice, order_id):
    assert_problem(alice.patch(f"/orders/{order_id}", json={}), 404, "order_not_found")
