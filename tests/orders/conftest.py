"""What tests of orders need besides Alice, Bob and rows."""

import re

import pytest


@pytest.fixture
def statements_of():
    """How many statements a response cost, from its Server-Timing."""

    def count(response) -> int:
        return int(re.search(r'desc="(\d+) statements"', response.headers["Server-Timing"])[1])

    return count
