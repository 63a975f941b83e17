"""The table of what bypasses the cache: names that share a slot."""

from itertools import count

from orders_api.bypasses import Bypasses, _slot


def collision(name: str) -> str:
    """Another name in the slot of this one."""
    return next(other for other in map("session:{}".format, count()) if _slot(other) == _slot(name))


def test_a_shorter_bypass_of_another_name_in_the_slot_shortens_none():
    bypasses = Bypasses()
    bypasses.add("orders:alice", 60)
    bypasses.add(collision("orders:alice"), 0)

    assert bypasses.covers("orders:alice")


def test_a_longer_bypass_of_the_same_name_takes_the_place_of_a_shorter_one():
    bypasses = Bypasses()
    bypasses.add("orders:alice", 0)
    assert not bypasses.covers("orders:alice")
    bypasses.add("orders:alice", 60)

    assert bypasses.covers("orders:alice")
