"""`/webhook-endpoints`: up to ten a user, on the public internet."""

import uuid

import pytest

from orders_api.orders.models import EVENT_TYPES
from orders_api.webhooks.services import MAX_ENDPOINTS
from tests.client import assert_problem
from tests.orders.races import at_once

NOBODY = str(uuid.uuid4())


def add(client, **fields):
    return client.post("/webhook-endpoints", json={"url": "https://shop.example/hook", **fields})


def test_a_new_endpoint_shows_its_secret_once(alice):
    answer = add(alice, description="the shop", event_types=["order.paid"])
    made = answer.json()
    path = answer.headers["Location"]

    assert (answer.status_code, path) == (201, f"/webhook-endpoints/{made['id']}")
    assert answer.headers["Cache-Control"] == "no-store"
    assert made.pop("secret").startswith("whsec_")
    assert made["event_types"] == ["order.paid"]
    assert (made["state"], made["disabled_reason"], made["description"]) == ("enabled", None, "the shop")
    assert alice.get(path).json() == made
    assert alice.get("/webhook-endpoints").json() == {"data": [made]}


def test_without_types_it_is_told_of_all(alice):
    assert add(alice).json()["event_types"] == list(EVENT_TYPES)


def test_a_deleted_endpoint_is_gone(alice):
    path = add(alice).headers["Location"]
    assert alice.request("DELETE", path).status_code == 204
    assert_problem(alice.get(path), 404, "endpoint_not_found")
    assert_problem(alice.request("DELETE", path), 404, "endpoint_not_found")


def test_ten_are_the_most_also_of_those_that_come_at_once(alice):
    answers = at_once(MAX_ENDPOINTS + 5, lambda _: add(alice))
    assert sorted(answer.status_code for answer in answers) == [201] * MAX_ENDPOINTS + [409] * 5
    assert_problem(add(alice), 409, "endpoint_limit_reached")


def test_proof_6_somebody_elses_endpoint_is_as_one_that_is_not_there(alice, bob):
    path = add(alice).headers["Location"]
    for there in (path, f"/webhook-endpoints/{NOBODY}", "/webhook-endpoints/none"):
        assert_problem(bob.get(there), 404, "endpoint_not_found")
        assert_problem(bob.request("DELETE", there), 404, "endpoint_not_found")
        assert_problem(bob.get(f"{there}/deliveries"), 404, "endpoint_not_found")
        assert_problem(bob.post(f"{there}/rotate"), 404, "endpoint_not_found")
        assert_problem(bob.post(f"{there}/deliveries/1/redeliver"), 404, "endpoint_not_found")
    assert bob.get("/webhook-endpoints").json() == {"data": []}
    assert alice.get(path).status_code == 200


@pytest.mark.parametrize("sequence", ["1", "0", "-1", "x", "9" * 30, "\u0661"])
def test_an_unknown_delivery_is_not_found(alice, sequence):
    path = add(alice).headers["Location"]
    assert_problem(alice.post(f"{path}/deliveries/{sequence}/redeliver"), 404, "delivery_not_found")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"url": 7}, "#/url"),
        ({"url": "ftp://shop.example/"}, "#/url"),
        ({"description": "x" * 201}, "#/description"),
        ({"event_types": []}, "#/event_types"),
        ({"event_types": "order.paid"}, "#/event_types"),
        ({"event_types": ["order.paid", "order.lost"]}, "#/event_types/1"),
        ({"event_types": ["order.paid", "order.paid"]}, "#/event_types"),
        ({"secret": "mine"}, "#/secret"),
    ],
)
def test_a_wrong_field_is_pointed_out(alice, fields, pointer):
    document = assert_problem(add(alice, **fields), 422, "validation_failed")
    assert [error["pointer"] for error in document["errors"]] == [pointer]


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "localhost", "[::ffff:10.0.0.1]", "169.254.169.254"])
def test_outside_of_development_nobody_reaches_our_network(serve_public, host):
    document = assert_problem(add(serve_public, url=f"https://{host}/hook"), 422, "validation_failed")
    assert document["errors"][0]["pointer"] == "#/url"
    assert "public internet" in document["errors"][0]["detail"]


@pytest.fixture(scope="module")
def serve_public(databases, memcached):
    """A user of a server that is not told to allow private addresses."""
    from tests.client import Client
    from tests.conftest import serving

    for serve in serving(databases, memcached):
        client = Client(serve().url).register().login()
        yield client
        client.close()
