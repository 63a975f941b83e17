"""Standard Webhooks signatures: HMAC-SHA256 over `id.timestamp.body` (standardwebhooks.com). Pure: no clock, no I/O."""

import base64
import hmac
import re
from collections.abc import Iterable

TOLERANCE_S = 300
VERSION = "v1"
_ID = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_TIMESTAMP = re.compile(r"[1-9]\d{0,11}", re.ASCII)  # one spelling of a number: what is signed is the text


def sign(secret: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """One entry of `webhook-signature`."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return f"{VERSION},{base64.b64encode(hmac.digest(secret, signed, 'sha256')).decode()}"


def is_signed(
    secrets: Iterable[bytes],
    webhook_id: str | None,
    timestamp: str | None,
    signature: str | None,
    body: bytes,
    now: float,
) -> bool:
    """Whether one of the secrets made one of the `v1` signatures, within five minutes of `now` (Unix time).

    The headers are as they came, None where there was none. Takes the same time wherever a signature differs.
    """
    if webhook_id is None or timestamp is None or signature is None:
        return False
    if not _ID.fullmatch(webhook_id) or not _TIMESTAMP.fullmatch(timestamp):
        return False
    if abs(now - int(timestamp)) > TOLERANCE_S:
        return False
    given = [entry.encode() for entry in signature.split(" ")]
    made = [sign(secret, webhook_id, int(timestamp), body).encode() for secret in secrets]
    matches = [hmac.compare_digest(ours, theirs) for ours in made for theirs in given]  # all of them, whichever fits
    return any(matches)
