"""Verified tokens are remembered for 30 seconds, and however many there are, not all of them for longer."""

import uuid

from orders_api.accounts import tokens as tokens_module
from orders_api.accounts.tokens import MAX_REMEMBERED, AccessTokens
from orders_api.settings import Key


class Clock:
    """In place of the module's `time`: the test turns it."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def time(self) -> float:
        return self.now_s

    monotonic = time


def remembered(tokens: AccessTokens) -> int:
    return len(tokens._verified) + len(tokens._before)


def verify_new(tokens: AccessTokens) -> None:
    tokens.verify(tokens.issue(uuid.uuid4(), uuid.uuid4()))


def test_old_ones_are_forgotten_while_new_ones_come(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(tokens_module, "time", clock)
    tokens = AccessTokens((Key("k", b"k" * 32),))
    for _ in range(10):
        for _ in range(5):
            verify_new(tokens)
        clock.now_s += tokens_module.REMEMBERED_S
    assert remembered(tokens) <= 10


def test_there_is_a_bound_for_all_that_come_at_once(monkeypatch):
    monkeypatch.setattr(tokens_module, "MAX_REMEMBERED", 8)
    tokens = AccessTokens((Key("k", b"k" * 32),))
    for _ in range(100):
        verify_new(tokens)
    assert remembered(tokens) <= 16 < MAX_REMEMBERED
