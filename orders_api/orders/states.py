"""An order's status, and who may take which step."""

from orders_api.errors import Problem

STATUSES = ("pending", "paid", "cancelled")
OWNER_STEPS = {"pending": ("cancelled",), "paid": (), "cancelled": ()}
EDITABLE = "pending"


def check_owner_step(current: str, wanted: str) -> None:
    """Raises transition_forbidden for `paid`, transition_invalid for any other step an owner can't take."""
    if wanted in OWNER_STEPS[current]:
        return
    if wanted == "paid":
        raise Problem("transition_forbidden")
    allowed = list(OWNER_STEPS[current])
    raise Problem(
        "transition_invalid",
        f"An order that is {current} can't become {wanted}.",
        members={"allowed": allowed},
    )
