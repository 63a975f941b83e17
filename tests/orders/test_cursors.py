"""Keyset cursors: what they hold comes back, and nothing else is taken for one."""

import base64
import hmac
import random
import string
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orders_api.errors import Problem
from orders_api.settings import Key
from orders_api.values import new_id
from orders_api.web.pagination import MAX_CHARACTERS, Cursors
from tests.mutations import changed

OLD, NEW = Key("old", b"o" * 32), Key("new", b"n" * 32)
WHEN = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
WHO = UUID("0193573a-0000-7000-8000-000000000001")


# As cursors have always been: with the key NEW, for `orders:1`, a walk over paid orders that were created after WHEN.
FROM_BEFORE = (
    "WzEsWzE3OTU0MjgwMDAxMjM0NTYsIjAxOTM1NzNhMDAwMDcwMDA4MDAwMDAwMDAwMDAwMDAxIl0sWyIyNjhhZDcwZSIsImIzODVmZTYzIiwiIl1d"
    "eZYFCfb5QeI7XUptqP9CXg"
)


def cursor_of(cursors, position=(WHEN, WHO), scope="orders:1", filters=None):
    walk = cursors.walk(scope, None, filters or {})
    return walk.page(["shown", "more"], 1, lambda _: position).next_cursor


def moments(count=200):
    """Any microsecond that PostgreSQL and Python both know, the ends among them."""
    chance = random.Random(7)
    first, last = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
    spread = (last - first) // timedelta(microseconds=1)
    return [first, last] + [first + timedelta(microseconds=chance.randrange(spread)) for _ in range(count)]


def test_a_position_comes_back_to_the_microsecond():
    cursors = Cursors((NEW,))

    for moment in moments():
        position = (moment, new_id())
        assert cursors.walk("orders:1", cursor_of(cursors, position), {}).time_and_id() == position


@pytest.mark.parametrize("number", [0, 1, 2**63 - 1])
def test_a_number_comes_back(number):
    cursors = Cursors((NEW,))

    assert cursors.walk("orders:1", cursor_of(cursors, (number,)), {}).number() == number


def test_a_walk_without_a_cursor_begins_at_the_beginning():
    walk = Cursors((NEW,)).walk("orders:1", None, {})

    assert (walk.time_and_id(), walk.number()) == (None, 0)


def test_the_last_page_has_no_cursor():
    walk = Cursors((NEW,)).walk("orders:1", None, {})

    assert walk.page(["last"], 1, lambda _: (1,)).next_cursor is None


def test_a_page_shows_no_more_than_its_limit():
    page = Cursors((NEW,)).walk("orders:1", None, {}).page([1, 2, 3], 2, lambda row: (row,))

    assert page.rows == [1, 2]


def test_the_longest_cursor_is_short_enough_to_be_read():
    filters = {"status": "cancelled", "created_after": WHEN, "created_before": WHEN}

    assert len(cursor_of(Cursors((NEW,)), filters=filters)) < MAX_CHARACTERS / 2


def test_a_cursor_needs_no_escape_in_a_query():
    cursors = Cursors((NEW,))

    for moment in moments(50):
        assert cursor_of(cursors, (moment, new_id())).replace("-", "").replace("_", "").isalnum()


def test_any_other_bit_makes_a_cursor_invalid():
    cursors = Cursors((NEW,))
    good = cursor_of(cursors)
    raw = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))

    for position in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(Problem, match="cursor_invalid"):
            cursors.walk("orders:1", base64.urlsafe_b64encode(changed).rstrip(b"=").decode(), {})


@pytest.mark.parametrize(
    "text", ["", "A", "=", "null", "W10", "é", "\0", " ", "A" * 512, "A" * 513, "A" * 65536, "../.."]
)
def test_what_is_no_cursor_is_invalid(text):
    with pytest.raises(Problem, match="cursor_invalid"):
        Cursors((NEW,)).walk("orders:1", text, {})


@pytest.mark.parametrize("spelled", ["{}=", "{}==", " {}", "{} ", "{}\n", "{}A"])
def test_a_cursor_has_one_spelling(spelled):
    cursors = Cursors((NEW,))

    with pytest.raises(Problem, match="cursor_invalid"):
        cursors.walk("orders:1", spelled.format(cursor_of(cursors)), {})


@pytest.mark.parametrize("scope", ["orders:2", "events:1", "orders:", "orders:1\n"])
def test_a_cursor_is_bound_to_its_walk(scope):
    cursors = Cursors((NEW,))

    with pytest.raises(Problem, match="cursor_invalid"):
        cursors.walk(scope, cursor_of(cursors, scope="orders:1"), {})


def test_a_cursor_of_an_older_key_of_the_ring_is_taken():
    cursor = cursor_of(Cursors((OLD,)))

    assert Cursors((NEW, OLD)).walk("orders:1", cursor, {}).time_and_id() == (WHEN, WHO)


def test_a_cursor_of_a_key_that_left_the_ring_is_invalid():
    with pytest.raises(Problem, match="cursor_invalid"):
        Cursors((NEW,)).walk("orders:1", cursor_of(Cursors((OLD,))), {})


def test_the_first_key_of_the_ring_signs():
    cursor = cursor_of(Cursors((NEW, OLD)))

    assert Cursors((NEW,)).walk("orders:1", cursor, {}).time_and_id() == (WHEN, WHO)


def test_a_walk_that_an_earlier_release_began_goes_on():
    filters = {"status": "paid", "created_after": WHEN}

    assert Cursors((NEW,)).walk("orders:1", FROM_BEFORE, filters).time_and_id() == (WHEN, WHO)
    assert cursor_of(Cursors((NEW,)), filters=filters) == FROM_BEFORE


def test_a_cursor_of_another_version_is_invalid():
    def signed(payload):
        mac = hmac.digest(NEW.secret, b"orders:1\n" + payload, "sha256")[:16]
        return base64.urlsafe_b64encode(payload + mac).rstrip(b"=").decode()

    assert Cursors((NEW,)).walk("orders:1", signed(b'[1,[7],["","",""]]'), {}).number() == 7
    with pytest.raises(Problem, match="cursor_invalid"):
        Cursors((NEW,)).walk("orders:1", signed(b'[2,[7],["","",""]]'), {})


def test_all_filters_that_changed_are_named():
    cursors = Cursors((NEW,))
    cursor = cursor_of(cursors, filters={"status": "paid", "created_after": WHEN})

    with pytest.raises(Problem, match="cursor_mismatch") as raised:
        cursors.walk("orders:1", cursor, {"status": "pending", "created_before": WHEN})

    assert [error.parameter for error in raised.value.errors] == ["status", "created_after", "created_before"]


# Any of them

positions = st.tuples(st.datetimes(timezones=st.just(UTC)), st.uuids()) | st.tuples(st.integers(0, 2**63 - 1))
filters = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["pending", "paid", "cancelled"]),
        "created_after": st.datetimes(timezones=st.just(UTC)),
        "created_before": st.datetimes(timezones=st.just(UTC)),
    },
)
cursors_written = st.builds(lambda *given: cursor_of(Cursors((NEW,)), *given), positions, st.just("s"), filters)


def assert_invalid(text, *known):
    assume(text not in known)
    with pytest.raises(Problem, match="cursor_invalid"):
        Cursors((NEW,)).walk("s", text, {})


@given(st.data())
def test_a_cursor_that_was_changed_in_any_way_is_invalid(data):
    cursor = data.draw(cursors_written)

    assert_invalid(data.draw(changed(st.just(cursor))), cursor)


@given(cursors_written)
def test_no_other_last_character_will_do(cursor):
    for last in string.ascii_letters + string.digits + "-_":
        if last != cursor[-1]:
            with pytest.raises(Problem, match="cursor_invalid"):
                Cursors((NEW,)).walk("s", cursor[:-1] + last, {})


@given(cursors_written, cursors_written, st.data())
def test_parts_of_two_cursors_are_none(one, other, data):
    cut, from_there = data.draw(st.integers(0, len(one))), data.draw(st.integers(0, len(other)))

    assert_invalid(one[:cut] + other[from_there:], one, other)


@given(positions, filters, filters | st.none())
def test_a_cursor_names_exactly_the_filters_that_changed(position, before, after):
    after = before if after is None else after
    cursor = cursor_of(Cursors((NEW,)), position, "s", before)
    differing = [name for name in ("status", "created_after", "created_before") if before.get(name) != after.get(name)]
    if differing:
        with pytest.raises(Problem, match="cursor_mismatch") as raised:
            Cursors((NEW,)).walk("s", cursor, after)
        assert [error.parameter for error in raised.value.errors] == differing
    else:
        walk = Cursors((NEW,)).walk("s", cursor, after)
        assert (walk.time_and_id() if len(position) == 2 else (walk.number(),)) == position
