"""An order's status: which steps its owner may take."""

import pytest

from orders_api.errors import Problem
from orders_api.orders.states import OWNER_STEPS, STATUSES, check_owner_step

STEPS = [(current, wanted) for current in STATUSES for wanted in STATUSES if current != wanted]


def test_a_pending_order_can_be_cancelled():
    check_owner_step("pending", "cancelled")


@pytest.mark.parametrize("current", [status for status in STATUSES if status != "paid"])
def test_nobody_can_say_that_an_order_is_paid(current):
    with pytest.raises(Problem, match="transition_forbidden"):
        check_owner_step(current, "paid")


@pytest.mark.parametrize(
    ("current", "wanted"), [step for step in STEPS if step != ("pending", "cancelled") and step[1] != "paid"]
)
def test_any_other_step_is_invalid_and_the_allowed_ones_are_told(current, wanted):
    with pytest.raises(Problem, match="transition_invalid") as raised:
        check_owner_step(current, wanted)

    assert raised.value.members == {"allowed": list(OWNER_STEPS[current])}


def test_every_status_says_which_steps_leave_it():
    assert set(OWNER_STEPS) == set(STATUSES)
