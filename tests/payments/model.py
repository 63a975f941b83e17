"""One user's orders as the contract tells of them (CONTRACT 4 and 7), without a server, a database or a cache."""

from typing import Any

STEPS = {
    "payment.succeeded": ("pending", "paid", "order.paid"),
    "payment.refunded": ("paid", "cancelled", "order.refunded"),
}
SETTLED = ("currency", "total_cents", "items")  # what nobody edits once an order is paid or cancelled


class Model:
    """`orders` by id, oldest first; `events` as (type, order id, version), oldest first."""

    def __init__(self) -> None:
        self.orders: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[str, str, int]] = []

    def place(self, order_id: str, draft: dict[str, Any]) -> None:
        total = {"total_cents": total_of(draft.get("items", []))}
        new = {"status": "pending", "version": 0, "items": [], "metadata": {}, **total, **draft}
        self._store(order_id, new, ["order.created"])

    def edit(self, order_id: str, patch: dict[str, Any], version: int | None) -> set[str]:
        """The problems, any of which may be the answer; where there is none it is done. `version`: of If-Match."""
        order = self.orders[order_id]
        total = {"total_cents": total_of(patch["items"])} if "items" in patch else {}
        edited = {"metadata": {}, **merge(order, {**total, **patch})}
        now, wanted, edited["status"] = order["status"], edited["status"], order["status"]
        illegal = now != wanted and (now, wanted) != ("pending", "cancelled")
        problems = {
            "version_conflict": version not in (None, order["version"]),
            "transition_forbidden": illegal and wanted == "paid",
            "transition_invalid": illegal and wanted != "paid",
            "validation_failed": edited["items"] and edited["total_cents"] != total_of(edited["items"]),
            "order_not_editable": now != "pending" and any(edited[name] != order[name] for name in SETTLED),
        }
        if not any(problems.values()):
            told = ["order.updated"] * (edited != order) + ["order.cancelled"] * (now != wanted)
            self._store(order_id, {**edited, "status": wanted}, told)
        return {code for code, applies in problems.items() if applies}

    def pay(self, kind: str, order_id: str, amount_cents: int, currency: str) -> None:
        order, (before, after, told) = self.orders[order_id], STEPS[kind]
        if (order["status"], order["total_cents"], order["currency"]) == (before, amount_cents, currency):
            self._store(order_id, {**order, "status": after}, [told])

    def _store(self, order_id: str, order: dict[str, Any], told: list[str]) -> None:
        self.orders[order_id] = {**order, "version": order["version"] + bool(told)}
        self.events += [(kind, order_id, self.orders[order_id]["version"]) for kind in told]


def total_of(items: list[dict[str, Any]]) -> int:
    return sum(item["quantity"] * item["unit_price_cents"] for item in items)


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    target = target if isinstance(target, dict) else {}
    merged = {**target, **{name: merge(target.get(name), value) for name, value in patch.items()}}
    return {name: value for name, value in merged.items() if value is not None}
