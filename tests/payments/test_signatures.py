"""Signatures: the published vectors, an independent signer, and everything that is not quite one."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from orders_api.payments.signatures import is_signed, sign
from tests.mutations import changed

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
        {"timestamp": f"0{TIMESTAMP}"},
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


# Any of them

OLD, STRANGER = b"o" * 32, b"s" * 32


def entry_by(secret):
    """Made without the code that is tested."""
    made = hmac.new(secret, b"%s.%d.%s" % (ID.encode(), TIMESTAMP, BODY), hashlib.sha256)
    return f"v1,{base64.b64encode(made.digest()).decode()}"


GOOD = [entry_by(SECRET), entry_by(OLD)]
bad = st.sampled_from([entry_by(STRANGER), *(one.replace("v1,", "v0,") for one in GOOD), "v1,", "v1", "", ","])
entries = st.lists(st.sampled_from(GOOD) | bad | changed(st.sampled_from(GOOD)), max_size=5)


@given(entries.map(" ".join))
def test_a_header_is_a_signature_exactly_where_one_of_its_entries_is(header):
    assert accepted(signature=header, secrets=(SECRET, OLD)) == any(one in GOOD for one in header.split(" "))


@given(st.sampled_from(["webhook_id", "timestamp"]), st.data())
def test_an_id_or_a_time_that_was_changed_in_any_way_is_not_signed(name, data):
    genuine = {"webhook_id": ID, "timestamp": str(TIMESTAMP)}[name]
    text = data.draw(changed(st.just(genuine)))
    assume(text != genuine)

    assert not accepted(**{name: text})


@given(st.binary(max_size=4), st.integers(0, len(BODY)), st.integers(0, 4))
def test_a_body_that_was_changed_in_any_way_is_not_signed(put, at, left_out):
    body = BODY[:at] + put + BODY[at + left_out :]

    assert accepted(body=body) == (body == BODY)
