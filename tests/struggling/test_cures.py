"""The struggling service: each symptom is there before its cure and gone behind it, on a small data set."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from orders_api.dev import EmbeddedMemcached
from perf.struggling import load, probes
from perf.struggling.site import Site
from perf.struggling.tree import CURES


class Symptom(NamedTuple):
    cure: str
    ask: Callable[[Site], Any]
    ill: Callable[[Any], bool]
    well: Callable[[Any], bool]


def index_of(query: str) -> Callable[[Site], Any]:
    return lambda site: probes.plans(site)[query]["index"]


SYMPTOMS = [
    Symptom(
        "1-index-on-items",
        index_of("items of an order"),
        lambda index: index is None,
        lambda index: index == "order_items_order_id",
    ),
    Symptom(
        "2-index-on-status",
        index_of("newest of a status"),
        lambda index: index is None,
        lambda index: index == "orders_status_newest",
    ),
    Symptom("3-eager-loading", probes.statements, lambda count: count == 21, lambda count: count == 2),
    Symptom(
        "4-shared-cache",
        lambda site: probes.stampede(site, held_s=0.6),
        lambda found: found["loads"] + found["failed"] > 5,
        lambda found: found["loads"] <= 2 and found["failed"] == 0,
    ),
    Symptom(
        "5-bounded-pool",
        probes.crowd,
        lambda found: found["errors"] > 0 and found["told_to_come_back"] == 0,
        lambda found: found["errors"] == 0 and found["told_to_come_back"] > 0,
    ),
    Symptom(
        "6-signed-webhooks",
        probes.forged_webhooks,
        lambda found: found["paid"] == found["sent"] and found["refused"] == found["audited"] == 0,
        lambda found: (
            found["refused"] == found["audited"] == found["sent"] and found["paid"] == 0 and found["signed_one"] == 204
        ),
    ),
    Symptom(
        "7-secrets-out",
        probes.scan,
        lambda finds: any("in the files" in find for find in finds),
        lambda finds: not any("in the files" in find for find in finds),
    ),
]


def test_there_is_a_symptom_for_each_cure():
    assert [symptom.cure for symptom in SYMPTOMS] == [cure.stem for cure in CURES]


@pytest.mark.skipif(not EmbeddedMemcached.available(), reason="needs memcached on the PATH")
def test_each_cure_mends_its_symptom_and_the_secrets_can_be_rotated():
    with Site(orders=2000, durable=False, workers=1) as site:
        for symptom in SYMPTOMS:
            before = symptom.ask(site)
            assert symptom.ill(before), (symptom.cure, before)
            assert site.cure() == symptom.cure
            after = symptom.ask(site)
            assert symptom.well(after), (symptom.cure, after)

        # The history keeps what was committed: therefore it is rotated.
        assert probes.gate(site, after) == {"allowed": 2, "without": 0, "with_a_new_one": 1}
        assert probes.rotate(site) == {
            "both": [200, 204, 200, 204],
            "new": [200, 204],
            "old": [401, 401],
            "old_login_works": False,
        }


def test_a_schedule_is_the_same_each_time_and_counts_from_the_intended_time():
    first, again = load.schedule(20), load.schedule(20)

    assert load.digest(first) == load.digest(again) != load.digest(load.schedule(21))
    assert [arrival.at for arrival in first] == sorted(arrival.at for arrival in first)
