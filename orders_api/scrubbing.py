"""What may be said of an error where others read it: its shape, never what somebody sent."""

import re
from typing import Any

HIDDEN = "…"
MAX_CHARACTERS = 500
# From the first quote or parenthesis to the last, or to the end: what is quoted may hold either, and PostgreSQL tells
# whole rows in parentheses. Besides addresses, and whatever is long enough to be a token.
_TOLD = re.compile(r"""'(?:.*'|.*)|"(?:.*"|.*)|\((?!\))(?:.*\)|.*)|\S+@\S+|[\w+/=.-]{24,}""", re.DOTALL)
_PLAIN = re.compile(r"-?\d{1,19}(\.\d+)?|True|False|None|UUID\('[0-9a-f-]{36}'\)|datetime\.[\w.(), =]+|<[\w. ]+>")


def message(text: str) -> str:
    """An error's message on one line, without its quotations."""
    return _TOLD.sub(HIDDEN, " ".join(text[:MAX_CHARACTERS].split()))


def variable(value: Any) -> Any:
    """A local variable: numbers, ids, times and the names of objects; of anything else only that it was there."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else HIDDEN
