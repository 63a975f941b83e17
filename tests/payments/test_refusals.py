"""Who can't sign, and what can't be read: refused, audited, bounded (PROOFS 12 and 13)."""

import base64
import hashlib
import json
import secrets as random_secrets
import time
import uuid

import pytest

from orders_api.payments.services import AUDITED_EACH, AUDITED_EACH_OF_ALL, row_stands_for
from orders_api.payments.signatures import TOLERANCE_S, sign
from tests.client import Client, assert_problem, plain_http
from tests.payments.conftest import whsec
from tests.payments.provider import SECRET, event
from tests.web.patient import PATIENCE
from tests.web.raw import exchange, post


def audited(sql, body):
    query = "SELECT outcome, webhook_id, client_ip, attempts FROM webhook_attempts WHERE body_sha256 = %s"
    return sql.execute(query, [hashlib.sha256(body).digest()]).fetchall()


BAD = {
    "no id": {"webhook-id": None},
    "no time": {"webhook-timestamp": None},
    "no signature": {"webhook-signature": None},
    "an empty signature": {"signature": ""},
    "not ASCII": {"signature": "v1,\xe9\xff"},
    "too old": {"off_s": -TOLERANCE_S - 1},
    "from the future": {"off_s": TOLERANCE_S + 2},
}


@pytest.mark.parametrize("bad", BAD)
def test_proof_12_who_can_t_sign_is_refused_and_audited(alice, provider, order, sql, bad):
    body = json.dumps(event("payment.succeeded", order)).encode()
    answer = provider.send_raw(body, **BAD[bad])

    document = assert_problem(answer, 401, "signature_invalid")
    assert document["retry"]["safe"] is True
    assert "www-authenticate" not in answer.headers
    assert audited(sql, body) == [("signature_invalid", None, provider.address, 1)]
    assert alice.get(f"/orders/{order['id']}").json()["status"] == "pending"


def one_bit_off(signature):
    mac = base64.b64decode(signature.removeprefix("v1,"))
    return "v1," + base64.b64encode(mac[:-1] + bytes([mac[-1] ^ 1])).decode()


# Each is right but for one thing.
ALTERED = {
    "one bit off": one_bit_off,
    "v0 only": lambda signature: signature.replace("v1,", "v0,"),
    "v1a only": lambda signature: signature.replace("v1,", "v1a,"),
    "without its version": lambda signature: signature.removeprefix("v1,"),
    "one character short": lambda signature: signature[:-2] + "=",
    "without its padding": lambda signature: signature.rstrip("="),
}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_proof_12_a_signature_that_is_nearly_right_is_refused_and_audited(alice, provider, order, sql, alter):
    body, webhook_id, now = json.dumps(event("payment.succeeded", order)).encode(), f"m{uuid.uuid4()}", int(time.time())
    right = sign(SECRET, webhook_id, now, body)
    given = {"webhook_id": webhook_id, "webhook_timestamp": str(now)}

    assert_problem(provider.send_raw(body, signature=alter(right), **given), 401, "signature_invalid")
    assert audited(sql, body) == [("signature_invalid", None, provider.address, 1)]
    assert alice.get(f"/orders/{order['id']}").json()["status"] == "pending"
    assert provider.send_raw(body, signature=right, **given).status_code == 204


def test_proof_12_a_body_that_was_written_anew_is_refused(provider, order):
    notice = event("payment.succeeded", order)
    sent = provider.send(notice)
    signed = sent.request.headers["webhook-signature"]
    times = {"webhook_id": sent.request.headers["webhook-id"]}
    compact = json.dumps(notice, separators=(",", ":")).encode()

    assert_problem(provider.send_raw(compact, signature=signed, **times), 401, "signature_invalid")


def test_proof_12_in_a_rotation_old_and_new_secret_both_sign(serve, client_of, provider_of):
    old, new = random_secrets.token_bytes(32), random_secrets.token_bytes(32)
    server = serve(WEBHOOK_SECRETS=f"{whsec(new)},{whsec(old)}")
    carol = client_of(server)
    for secret in (old, new):
        order = carol.place().json()
        assert provider_of(server.url, secret).succeeded(order).status_code == 204
        assert carol.get(f"/orders/{order['id']}").json()["status"] == "paid"
    assert_problem(provider_of(server.url, SECRET).succeeded(order), 401, "signature_invalid")


def test_without_a_secret_nobody_is_the_provider(serve, client_of, provider_of):
    server = serve(WEBHOOK_SECRETS="")
    order = client_of(server).place().json()
    assert_problem(provider_of(server.url).succeeded(order), 401, "signature_invalid")


ORDER_ID = str(uuid.uuid4())
GOOD = event("payment.succeeded", {"id": ORDER_ID, "total_cents": 1250, "currency": "EUR"})


def with_payment(**changes):
    return {**GOOD, "data": {name: value for name, value in {**GOOD["data"], **changes}.items() if value is not ...}}


@pytest.mark.parametrize(
    ("notice", "pointers"),
    [
        (with_payment(amount_cents=1250.0), ["#/data/amount_cents"]),
        (with_payment(amount_cents="1250"), ["#/data/amount_cents"]),
        (with_payment(amount_cents=True), ["#/data/amount_cents"]),
        (with_payment(amount_cents=-1), ["#/data/amount_cents"]),
        (with_payment(amount_cents=...), ["#/data/amount_cents"]),
        (with_payment(order_id=7, currency=None), ["#/data/currency", "#/data/order_id"]),
        (with_payment(order_id="a\0b"), ["#/data/order_id"]),
        (with_payment(more=1), ["#/data/more"]),
        ({**GOOD, "data": []}, ["#/data"]),
        ({**GOOD, "data": None}, ["#/data"]),
        ({**GOOD, "timestamp": 7}, ["#/timestamp"]),
        ({**GOOD, "timestamp": "yesterday"}, ["#/timestamp"]),
        ({**GOOD, "more": 1}, ["#/more"]),
        ({"type": "payment.succeeded"}, ["#/data", "#/timestamp"]),
        ({**GOOD, "type": 7}, ["#/type"]),
        ({**GOOD, "type": {}}, ["#/type"]),
        ({**GOOD, "type": ["payment.succeeded"]}, ["#/type"]),
        ([], ["#"]),
    ],
)
def test_what_is_signed_and_not_of_this_shape_is_422_and_audited(provider, sql, notice, pointers):
    body = json.dumps(notice).encode() + b" " * random_secrets.randbelow(1000)
    document = assert_problem(provider.send_raw(body), 422, "validation_failed")
    assert sorted(error["pointer"] for error in document["errors"]) == pointers
    assert [row[0] for row in audited(sql, body)] == ["validation_failed"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 40 + b"]" * 40])
def test_what_is_signed_and_no_json_is_400_and_audited(provider, sql, body):
    body = body and body + b" " * random_secrets.randbelow(1000)
    assert_problem(provider.send_raw(body), 400, "malformed_json")
    assert "malformed_json" in [row[0] for row in audited(sql, body)]


def test_another_media_type_is_415_and_audited(provider, sql):
    body = json.dumps({**GOOD, "timestamp": str(uuid.uuid4())}).encode()
    assert_problem(provider.send_raw(body, content_type="text/plain"), 415, "media_type_unsupported")
    assert [row[0] for row in audited(sql, body)] == ["media_type_unsupported"]


def test_a_body_over_the_cap_is_413(provider):
    assert_problem(provider.send_raw(b" " * 65537), 413, "body_too_large")


def test_other_methods_and_parameters_are_refused(provider):
    assert_problem(provider.http.get("/webhooks/payments"), 405, "method_not_allowed")
    assert_problem(provider.http.post("/webhooks/payments?a=b", content=b"{}"), 422, "validation_failed")


def test_proof_13_a_flood_is_refused_by_ip_and_aggregated_while_the_provider_gets_through(
    serve, client_of, provider_of, connect
):
    settings = {"WEBHOOK_SECRETS": whsec(SECRET), "RATE_LIMIT_IP": "200/minute", "TRUSTED_PROXY_HOPS": "1", **PATIENCE}
    server = serve(**settings)
    beside = serve(**settings, database_url=server.database_url)
    order = client_of(server).place().json()
    sql = connect(server)
    with plain_http(headers={"X-Forwarded-For": "203.0.113.9"}) as flood:
        urls = [f"{one.url}/webhooks/payments" for one in (server, beside)] * 150
        answers = [flood.post(url, json={"n": number}) for number, url in enumerate(urls)]
    rows = sql.execute("SELECT attempts FROM webhook_attempts WHERE client_ip = '203.0.113.9'").fetchall()

    assert [answer.status_code for answer in answers] == [401] * 200 + [429] * 100
    assert_problem(answers[-1], 429, "rate_limited")
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert answers[0].headers["RateLimit"].startswith('"ip";r=199;')
    assert len(rows) == AUDITED_EACH + 3  # and one at 64, 128 and 256
    signed = provider_of(server.url)
    signed.http.headers["X-Forwarded-For"] = "203.0.113.9"
    assert [signed.succeeded(order).status_code for _ in range(3)] == [204] * 3


def test_a_row_stands_for_those_since_the_last():
    assert [row_stands_for(n, n) for n in (1, AUDITED_EACH)] == [1, 1]
    assert [row_stands_for(n, n) for n in (AUDITED_EACH + 1, 64, 65, 128, 4096)] == [0, 32, 0, 64, 2048]
    assert [row_stands_for(1, n) for n in (AUDITED_EACH_OF_ALL, AUDITED_EACH_OF_ALL + 1, 8192)] == [1, 0, 4096]


def test_proof_19_no_secret_signature_or_body_in_the_log(server, provider, order):
    answer = provider.succeeded(order, payment_id="pay_canary_4711")
    provider.send({"canary": "pay_canary_4711"})

    assert answer.status_code == 204
    assert "pay_canary_4711" not in server.log()
    assert base64.b64encode(SECRET).decode() not in server.log()
    assert answer.request.headers["webhook-signature"] not in server.log()


def test_a_request_without_anything_is_refused(server):
    assert exchange(server.port, post("/webhooks/payments")).status == 401


def test_proof_12_alice_can_t_pay_with_her_token(alice: Client):
    assert_problem(alice.post("/webhooks/payments", json=GOOD), 401, "signature_invalid")
