"""Whatever an owner and the payment provider do to orders, in any order, is what the model says.

`--hypothesis-profile=long` tries more of it; a failure is printed as the shortest list of steps that shows it.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from orders_api.orders.states import STATUSES
from tests.client import Client, assert_problem
from tests.conftest import Server
from tests.payments.model import Model, total_of
from tests.payments.provider import Provider, event

EXAMPLES_A_MACHINE = 5  # a life of orders takes as long as some hundred examples of anything without a server
STEPS_A_LIFE = 30

# Few names and small numbers: what is drawn twice is often the same, which is when merges and sums are interesting.
names = st.sampled_from("abc")
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
totals = st.integers(1, 4)
currencies = st.sampled_from(["EUR", "JPY"])
item = st.fixed_dictionaries(
    {"sku": names, "name": texts, "quantity": st.integers(1, 2), "unit_price_cents": st.integers(0, 2)}
)
items = st.lists(item, min_size=1, max_size=2).filter(total_of)
sums = st.fixed_dictionaries({"items": items}) | st.fixed_dictionaries({"total_cents": totals})
about = st.fixed_dictionaries({"currency": currencies}, optional={"metadata": st.dictionaries(names, texts)})
drafts = st.builds(lambda one, other: {**one, **other}, about, sums)
changes = {
    "currency": currencies,
    "items": items,
    "total_cents": totals,
    "metadata": st.none() | st.dictionaries(names, st.none() | texts, min_size=1),
    "status": st.sampled_from(STATUSES),
}
one_change = st.one_of(*(st.fixed_dictionaries({name: values}) for name, values in changes.items()))
amounts_off = st.sampled_from([0, 0, 0, 1])
patches = one_change | st.fixed_dictionaries({}, optional=changes)  # of several at once most are refused


class OrderMachine(RuleBasedStateMachine):
    """A user of a server, whose orders are no older than this machine, beside the model of them."""

    placed = Bundle("placed")

    def __init__(self, url: str) -> None:
        super().__init__()
        self.alice, self.provider, self.model = Client(url).register().login(), Provider(url), Model()
        self.first_answers: dict[str, tuple[dict[str, Any], httpx.Response]] = {}
        self.notices: list[tuple[str, dict[str, Any]]] = []
        self.followed: list[dict[str, Any]] = []
        self.cursor: dict[str, str] = {}

    @rule(target=placed, draft=drafts)
    def place(self, draft: dict[str, Any]) -> str:
        answer = self.alice.place(draft, key=f"key-{len(self.first_answers)}")
        assert answer.status_code == 201, answer.text
        order_id = answer.json()["id"]
        self.first_answers[order_id] = draft, answer
        self.model.place(order_id, draft)
        self._agree(order_id, answer)
        return order_id

    @rule(order_id=placed, other=st.none() | drafts)
    def place_under_the_same_key(self, order_id: str, other: dict[str, Any] | None) -> None:
        draft, first = self.first_answers[order_id]
        again = self.alice.place(other or draft, key=first.request.headers["Idempotency-Key"])
        if other in (None, draft):
            assert (again.status_code, again.content) == (201, first.content)
            assert again.headers["Idempotent-Replayed"] == "true"
            assert again.headers["ETag"] == first.headers["ETag"]
        else:
            assert_problem(again, 422, "idempotency_key_reused")

    @rule(order_id=placed, patch=patches, untouched=st.booleans())
    def edit(self, order_id: str, patch: dict[str, Any], untouched: bool) -> None:
        """`untouched`: only if it is still the order that was placed."""
        match = {"If-Match": self.first_answers[order_id][1].headers["ETag"]} if untouched else {}
        problems = self.model.edit(order_id, patch, 1 if untouched else None)
        answer = self.alice.patch(f"/orders/{order_id}", json=patch, headers=match)
        if problems:
            assert answer.json().get("code") in problems, answer.text
        else:
            self._agree(order_id, answer)
        self._read(order_id)

    @rule(order_id=placed, off=amounts_off)
    def pay(self, order_id: str, off: int) -> None:
        self._settle("payment.succeeded", order_id, off)

    @rule(order_id=placed, off=amounts_off)
    def refund(self, order_id: str, off: int) -> None:
        self._settle("payment.refunded", order_id, off)

    def _settle(self, kind: str, order_id: str, off: int) -> None:
        order = {"id": order_id, **self.model.orders[order_id]}
        self.model.pay(kind, order_id, order["total_cents"] + off, order["currency"])
        notice = event(kind, order, amount_cents=order["total_cents"] + off)
        self.notices.append((f"msg_{uuid.uuid4().hex}", notice))
        self._tell(-1)
        self._read(order_id)

    @precondition(lambda self: self.notices)
    @rule(which=st.integers(0))
    def tell_again(self, which: int) -> None:
        """Of a payment that was told before: nothing changes."""
        notice = self._tell(which % len(self.notices))
        self._read(notice["data"]["order_id"])

    @rule(order_id=placed, limit=st.integers(1, 3), status=st.none() | st.sampled_from(STATUSES))
    def look_around(self, order_id: str, limit: int, status: str | None) -> None:
        """Everywhere at once: reads change nothing, and would leave few steps for what does."""
        self._read(order_id)
        self._read_if_touched(order_id)
        self._walk(limit, status)
        self._read_history(order_id, limit)
        self._follow(limit)

    def _read(self, order_id: str) -> None:
        answer = self.alice.get(f"/orders/{order_id}?include=items")
        assert answer.status_code == 200, answer.text
        self._agree(order_id, answer)

    def _read_if_touched(self, order_id: str) -> None:
        tag = self.first_answers[order_id][1].headers["ETag"]
        answer = self.alice.get(f"/orders/{order_id}?include=items", headers={"If-None-Match": tag})
        assert answer.status_code == (304 if self.model.orders[order_id]["version"] == 1 else 200)

    def _walk(self, limit: int, status: str | None) -> None:
        wanted = {"include": "items", "limit": limit, **({"status": status} if status else {})}
        seen = [(order["id"], _modelled(order)) for order in self._all("/orders", wanted)]
        assert seen == [(i, o) for i, o in reversed(self.model.orders.items()) if status in (None, o["status"])]

    def _read_history(self, order_id: str, limit: int) -> None:
        history = self._all(f"/orders/{order_id}/events", {"limit": limit})
        told = [(event["type"], order_id, event["data"]["version"]) for event in history]
        assert told == [event for event in self.model.events if event[1] == order_id]

    def _follow(self, limit: int) -> None:
        """Goes on where it stopped the last time, as somebody who keeps the cursor."""
        more = True
        while more:
            page = self.alice.get("/events", params={"limit": limit, **self.cursor}).json()
            self.followed += page["data"]
            self.cursor, more = {"cursor": page["next_cursor"]}, page["has_more"]
        assert [(e["type"], e["order_id"], e["data"]["version"]) for e in self.followed] == self.model.events
        assert [e["sequence"] for e in self.followed] == list(range(1, len(self.followed) + 1))

    def teardown(self) -> None:
        self.alice.close()
        self.provider.close()

    def _tell(self, which: int) -> dict[str, Any]:
        webhook_id, notice = self.notices[which]
        assert self.provider.send(notice, webhook_id=webhook_id).status_code == 204
        return notice

    def _agree(self, order_id: str, answer: httpx.Response) -> None:
        assert _modelled(answer.json()) == self.model.orders[order_id]

    def _all(self, path: str, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
        more = True
        while more:
            page = self.alice.get(path, params=wanted).json()
            yield from page["data"]
            more, wanted = page["has_more"], {**wanted, "cursor": page["next_cursor"]}


def _modelled(order: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in order.items() if name not in ("id", "created_at", "updated_at")}


def test_whatever_happens_to_orders_is_what_the_model_says(server: Server) -> None:
    budget = hypothesis.settings(
        max_examples=hypothesis.settings.default.max_examples // EXAMPLES_A_MACHINE,
        stateful_step_count=STEPS_A_LIFE,
        report_multiple_bugs=False,  # to find the shortest list of steps for one takes long enough
    )
    run_state_machine_as_test(lambda: OrderMachine(server.url), settings=budget)
