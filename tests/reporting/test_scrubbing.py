"""What is left of an error when everything that anybody sent is taken out of it."""

import json
import subprocess
import sys

import pytest

from orders_api import scrubbing
from tests.conftest import ROOT

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"  # kingfisher:ignore
MESSAGES = {
    "quoted": ("invalid literal for int() with base 10: 'canary'", "invalid literal for int() with base 10: …"),
    "quoted twice": ('no such key: "canary"', "no such key: …"),
    "of PostgreSQL": (
        "DETAIL: Key (email_key)=(canary, b) already exists.",
        "DETAIL: Key … already exists.",
    ),
    "a key that closes early": ("Key (email, name)=(a) canary, c) exists.", "Key … exists."),
    "a row": ("DETAIL:  Failing row contains (1, canary, Lamp, null).", "DETAIL: Failing row contains …."),
    "with an apostrophe": ("it's 'canary' and canary's", "it…s"),
    "both quotes": ("bad pa'ss\"canary and more", "bad pa…"),
    "two lines": ("bad 'x\n  canary'", "bad …"),
    "cut inside": ("bad '" + "canary " * 100 + "'", "bad …"),
    "an address": ("no way to canary@example.com now", "no way to … now"),
    "a token": (f"bad token {TOKEN}", "bad token …"),
    "a plain one": ("relation does not exist", "relation does not exist"),
}
VARIABLES = {
    "a number": (17, 17),
    "nothing": (None, None),
    "a switch": (True, True),
    "a number's text": ("17", "17"),
    "an id": ("UUID('01a20814-b875-742d-bb03-f50f739fc0a4')", "UUID('01a20814-b875-742d-bb03-f50f739fc0a4')"),
    "an object": ("<Order: x>", "…"),
    "a class": ("<class orders>", "<class orders>"),
    "a text": ("'canary'", "…"),
    "bytes": ("b'canary'", "…"),
    "a document": ({"password": "'canary'"}, "…"),
    "a list": (["'canary'"], "…"),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_loses_its_quotations(kind: str):
    message, left = MESSAGES[kind]
    assert scrubbing.message(message) == left


def test_a_stack_in_the_log_says_where_and_nothing_that_was_sent():
    code = (
        "from orders_api import logs; import structlog; logs.configure()\n"
        "try: int('canary' * 2)\n"
        "except ValueError as e:\n"
        "  try: raise RuntimeError(\"x 'y'\\n  canary'\") from e\n"
        "  except RuntimeError: structlog.get_logger().exception('unexpected error')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    line = json.loads(done.stdout)
    assert "ValueError: invalid literal for int() with base 10: …" in line["exception"]
    assert "RuntimeError: x …" in line["exception"]
    assert "Traceback (most recent call last):" in line["exception"]
    assert "canary" not in done.stdout


def test_a_long_message_is_cut():
    assert len(scrubbing.message("so " * 1000)) == scrubbing.MAX_CHARACTERS


@pytest.mark.parametrize("kind", VARIABLES)
def test_a_variable_is_shown_if_it_is_nobodys(kind: str):
    value, left = VARIABLES[kind]
    assert scrubbing.variable(value) == left


def test_the_worst_message_costs_nothing_to_speak_of():
    for text in ("'" * 65536, "=(" * 32768, "a@" * 32768, "x" * 65536):
        assert len(scrubbing.message(text)) <= scrubbing.MAX_CHARACTERS
