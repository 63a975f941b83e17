"""What may be said of an error where others read it: its shape, never what somebody sent."""

import re
from typing import Any

HIDDEN = "…"
MAX_CHARACTERS = 500
# Quoted text, PostgreSQL's `Key (email)=(…)`, addresses, and whatever is long enough to be a token.
_TOLD = re.compile(r"""'[^']*'|"[^"]*"|=\([^)]*\)|\S+@\S+|[\w+/=.-]{24,}""")
_PLAIN = re.compile(r"-?\d{1,19}(\.\d+)?|True|False|None|UUID\('[0-9a-f-]{36}'\)|datetime\.[\w.(), =]+|<[\w. ]+>")


def message(text: str) -> str:
    """An error's message without its quotations."""
    return _TOLD.sub(HIDDEN, text[:MAX_CHARACTERS])


def variable(value: Any) -> Any:
    """A local variable: numbers, ids, times and the names of objects; of anything else only that it was there."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else HIDDEN
