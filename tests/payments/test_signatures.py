"""Signatures: the published vectors, an independent signer, and everything that is not quite one."""

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from orders_api.payments.signatures import is_signed, sign

# From the specification's reference implementations (github.com/standard-webhooks/standard-webhooks).
SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def accepted(
    *, webhook_id=ID, timestamp=str(TIMESTAMP), signature=SIGNATURE, body=BODY, now=TIMESTAMP, secrets=(SECRET,)
):
    return is_signed(secrets, webhook_id, timestamp, signature, body, now)


def test_the_published_vector():
    assert sign(SECRET, ID, TIMESTAMP, BODY) == SIGNATURE
    assert accepted()


@given(st.binary(min_size=24, max_size=64), st.text(st.characters(codec="utf-8"), max_size=200))
def test_another_signer_and_we_agree(secret, text):
    theirs = Webhook(base64.b64encode(secret).decode())
    now = datetime.now(UTC)
    signature = theirs.sign(ID, now, text)

    assert sign(secret, ID, int(now.timestamp()), text.encode()) == signature
    assert is_signed([secret], ID, str(int(now.timestamp())), signature, text.encode(), now.timestamp())


@pytest.mark.parametrize("off", [301, -301])
def test_more_than_five_minutes_off_is_none(off):
    assert not accepted(now=TIMESTAMP + off)
    assert accepted(now=TIMESTAMP + off + (1 if off < 0 else -1))


@pytest.mark.parametrize(
    "change",
    [
        {"webhook_id": None},
        {"timestamp": None},
        {"signature": None},
        {"signature": ""},
        {"signature": SIGNATURE.removeprefix("v1,")},
        {"signature": SIGNATURE.replace("v1,", "v0,")},
        {"signature": SIGNATURE.replace("v1,", "v1a,")},
        {"signature": SIGNATURE[:-2] + "A="},
        {"signature": SIGNATURE.upper()},
        {"signature": "v1,\u00e9\u20ac"},
        {"webhook_id": ID + "x"},
        {"webhook_id": ""},
        {"webhook_id": "a b"},
        {"webhook_id": "x" * 256},
        {"timestamp": str(TIMESTAMP + 1)},
        {"timestamp": f"{TIMESTAMP}.0"},
        {"timestamp": f" {TIMESTAMP}"},
        {"timestamp": "\u0661" * 10},
        {"timestamp": "9" * 5000},
        {"timestamp": "nan"},
        {"body": BODY.replace(b": ", b":")},
        {"body": b""},
        {"secrets": ()},
        {"secrets": (SECRET[:-1],)},
    ],
)
def test_what_differs_in_anything_is_none(change):
    assert not accepted(**change)


def test_any_active_secret_and_any_v1_entry_will_do():
    old, new = b"o" * 32, b"n" * 32
    by_old, by_new = sign(old, ID, TIMESTAMP, BODY), sign(new, ID, TIMESTAMP, BODY)

    assert accepted(signature=by_old, secrets=(new, old))
    assert accepted(signature=by_new, secrets=(new, old))
    assert accepted(signature=f"v0,x v1,bad {by_old} {by_new}", secrets=(new,))
    assert not accepted(signature=by_old, secrets=(new,))
