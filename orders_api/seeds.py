"""A demo user with a few orders, made through the services like any other."""

from typing import Any

from orders_api.accounts import services as accounts
from orders_api.errors import Problem
from orders_api.orders import services as orders

# sku, name, quantity, unit price in cents
ITEMS = (
    ("lamp-1", "Desk lamp", 2, 3_950),
    ("chair-7", "Chair", 4, 12_900),
    ("cable-3", "USB-C cable, 2 m", 10, 790),
    ("desk-2", "Standing desk", 1, 48_900),
    ("mug-5", "Mug", 6, 1_150),
)
TRACE_ID = "5eed" * 8  # the orders' first events say where they come from


def seed(email: str, password: str) -> bool:
    """Makes the demo user and five orders, once. Returns whether there was anything to do. The database is open."""
    try:
        user = accounts.register(email, password)
    except Problem as problem:
        if problem.code == "email_taken":
            return False
        raise
    for item in ITEMS:
        orders.place_order(user.id, _draft(*item), TRACE_ID)
    return True


def _draft(sku: str, name: str, quantity: int, unit_price_cents: int) -> dict[str, Any]:
    return {
        "currency": "EUR",
        "total_cents": quantity * unit_price_cents,
        "items": [{"sku": sku, "name": name, "quantity": quantity, "unit_price_cents": unit_price_cents}],
        "metadata": {"demo": "true"},
    }
