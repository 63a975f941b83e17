"""Bodies: strict JSON of the right type and size, all there in time; anything else is refused in order, and fast."""

import contextlib
import gzip
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from orders_api import values
from orders_api.accounts.schemas import Credentials, Registration
from orders_api.errors import Problem
from orders_api.orders.schemas import NewOrder, OrderChanges, OrdersQuery
from orders_api.web.bodies import MAX_BYTES, READ_DEADLINE_S
from orders_api.web.idempotency import parse_key
from orders_api.web.pagination import Cursors
from orders_api.web.tracing import Trace
from orders_api.webhooks.addresses import parse_url
from tests.client import LAMP, Client, assert_problem
from tests.web.raw import exchange, post

JSON = {"Content-Type": "application/json"}
# The bound of PROOFS 25 is 10 ms; a loaded machine may take ten times as long, what is quadratic takes a thousand.
SLOW_MS = 100
WORST = 64 * 1024


def send(http: httpx.Client, body: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    """To a route that needs no token: what is asked here of a body is asked everywhere."""
    return http.post("/auth/login", content=body, headers={**JSON, **headers})


def nested(levels: int, bracket: str = "[") -> bytes:
    return b'{"email":' * levels + b"1" + b"}" * levels if bracket == "{" else b"[" * levels + b"]" * levels


MALFORMED = {
    "33 arrays in each other": nested(33),
    "33 objects in each other": nested(33, "{"),
    "100,000 brackets would be too large, 60,000 are too deep": b"[" * 60_000,
    "60,000 closed brackets": nested(30_000),
    "brackets after a string that never ends": b"[]" * 40 + b'"' + b'\\"' * 30_000,
    "NaN": b'{"email": NaN}',
    "Infinity": b'{"email": Infinity}',
    "minus Infinity": b'{"email": -Infinity}',
    "a duplicate key": b'{"email": "a", "email": "b"}',
    "a duplicate key further in": b'{"email": {"a": 1, "a": 1}}',
    "a duplicate key spelled otherwise": b'{"email": 1, "\\u0065mail": 2}',
    "a lone high surrogate in a value": b'{"email": "\\ud800"}',
    "a lone low surrogate in a value": b'{"email": "\\uDC00x"}',
    "a lone surrogate in a key": b'{"\\udfff": 1}',
    "surrogates in the wrong order": b'{"email": "\\ude00\\ud83d"}',
    "a surrogate in UTF-8": b'{"email": "\xed\xa0\x80"}',
    "an integer of 20 digits": b'{"email": 12345678901234567890}',
    "a negative integer of 20 digits": b'{"email": -12345678901234567890}',
    "an integer of 5,000 digits": b'{"email": ' + b"9" * 5000 + b"}",
    "a byte order mark": b'\xef\xbb\xbf{"email": 1}',
    "UTF-16": '{"email": 1}'.encode("utf-16"),
    "trailing bytes": b'{"email": 1} x',
    "a second document": b'{"email": 1}{"email": 1}',
    "a trailing comma": b'{"email": 1,}',
    "a trailing NUL": b'{"email": 1}\0',
    "a comment": b'{"email": 1 /* one */}',
    "single quotes": b"{'email': 1}",
    "a raw line break in a string": b'{"email": "a\nb"}',
    "a raw NUL in a string": b'{"email": "a\0b"}',
    "a leading zero": b'{"email": 01}',
    "an overlong UTF-8 slash": b'{"email": "\xc0\xaf"}',
    "a cut UTF-8 character": b'{"email": "\xe2\x82',
    "no bytes": b"",
    "blanks alone": b"  \r\n ",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_proof_14_what_is_not_strict_json_is_malformed(http: httpx.Client, body: bytes):
    assert_problem(send(http, body), 400, "malformed_json")


def test_proof_14_an_order_that_is_not_strict_json_is_malformed_and_leaves_its_key_free(alice: Client):
    headers = {**JSON, "Idempotency-Key": "k"}
    for body in MALFORMED.values():
        assert_problem(alice.post("/orders", content=body, headers=headers), 400, "malformed_json")
    assert alice.place(key="k").status_code == 201


def test_proof_14_100_000_levels_are_malformed_or_too_large(http: httpx.Client):
    assert_problem(send(http, b"[" * 100_000), 413, "body_too_large")


@pytest.mark.parametrize("bracket", ["[", "{"])
def test_proof_14_32_levels_are_json(http: httpx.Client, bracket: str):
    assert_problem(send(http, nested(32, bracket)), 422, "validation_failed")


def test_proof_14_brackets_in_strings_are_no_levels(alice: Client):
    body = orjson.dumps({**LAMP, "metadata": {"note": '[{\\"' * 100}})
    placed = alice.post("/orders", content=body, headers={**JSON, "Idempotency-Key": "brackets"})
    assert placed.status_code == 201, placed.text
    assert placed.json()["metadata"]["note"] == '[{\\"' * 100


def test_proof_14_an_integer_of_19_digits_is_json(http: httpx.Client):
    assert_problem(send(http, b'{"email": 9999999999999999999}'), 422, "validation_failed")


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1e-400", b"1." + b"1" * 5000])
def test_proof_14_a_number_that_no_float_holds_is_no_server_error(alice: Client, number: bytes):
    body = b'{"currency": "EUR", "total_cents": ' + number + b"}"
    answer = alice.post("/orders", content=body, headers={**JSON, "Idempotency-Key": "k"})
    assert answer.status_code in (400, 422), answer.text


def test_proof_14_a_pair_of_surrogate_escapes_is_one_character(alice: Client):
    body = b'{"currency": "EUR", "total_cents": 1, "metadata": {"smile": "\\ud83d\\ude00"}}'
    placed = alice.post("/orders", content=body, headers={**JSON, "Idempotency-Key": "smile"})
    assert placed.status_code == 201, placed.text
    assert placed.json()["metadata"] == {"smile": "😀"}


@pytest.mark.parametrize(
    ("where", "order"),
    [
        ("#/currency", {"currency": "EU\0", "total_cents": 1}),
        ("#/items/0/sku", {"currency": "EUR", "items": [{"sku": "a\0", "quantity": 1, "unit_price_cents": 1}]}),
        ("#/metadata/a", {"currency": "EUR", "total_cents": 1, "metadata": {"a": "\0"}}),
        ("#/metadata/a%00", {"currency": "EUR", "total_cents": 1, "metadata": {"a\0": "a"}}),
    ],
)
def test_proof_14_a_nul_in_an_order_is_named_by_its_place(alice: Client, where: str, order: dict):
    problem = assert_problem(alice.place(order), 422, "validation_failed")
    assert where in [error["pointer"] for error in problem["errors"]]


@pytest.mark.parametrize("field", ["email", "password"])
def test_proof_14_a_nul_in_credentials_is_refused(http: httpx.Client, field: str):
    credentials = {"email": "nul@example.com", "password": "long enough 1234", field: "nul\0@example.com"}
    assert_problem(http.post("/auth/register", json=credentials), 422, "validation_failed")


@pytest.mark.parametrize("document", [[], "x", 1, None, True])
def test_a_body_that_is_no_object_is_blamed_as_a_whole(http: httpx.Client, document: Any):
    problem = assert_problem(send(http, orjson.dumps(document)), 422, "validation_failed")
    assert [error["pointer"] for error in problem["errors"]] == ["#"]


# Size


def padded(size: int) -> bytes:
    return b'{"email": 1}'.ljust(size)


def chunks(body: bytes, size: int = 8000) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def test_proof_15_64_kib_are_taken(http: httpx.Client):
    assert_problem(send(http, padded(MAX_BYTES)), 422, "validation_failed")


def test_proof_15_64_kib_in_chunks_are_taken(http: httpx.Client):
    assert_problem(send(http, chunks(padded(MAX_BYTES))), 422, "validation_failed")


def test_proof_15_one_byte_more_is_too_large(http: httpx.Client):
    assert_problem(send(http, padded(MAX_BYTES + 1)), 413, "body_too_large")


def test_proof_15_one_byte_more_in_chunks_is_too_large(http: httpx.Client):
    assert_problem(send(http, chunks(padded(MAX_BYTES + 1))), 413, "body_too_large")


def test_proof_15_a_huge_content_length_is_refused_before_the_body_comes(server: Any):
    answers = exchange(server.port, post("/auth/login", length=10**12), wait_s=3)
    assert (answers.status, answers.code) == (413, "body_too_large")


def test_proof_15_a_content_length_of_5000_digits_is_no_server_error(server: Any):
    request = post("/auth/login").replace(b"Content-Length: 0", b"Content-Length: " + b"9" * 5000)
    assert exchange(server.port, request, wait_s=3).status in (400, 413)


def test_proof_15_endless_chunks_are_cut_at_the_cap(server: Any):
    request = post("/auth/login", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    answers = exchange(server.port, request + chunk * 12, wait_s=5)
    assert answers.status == 413
    assert answers.closed


# Type


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/jsonx",
        "application/json, text/plain",
        "application/merge-patch+json",
        "*/*",
        "x",
    ],
)
def test_proof_15_another_media_type_is_unsupported(http: httpx.Client, content_type: str | None):
    headers = {"Content-Type": content_type} if content_type else {}
    request = http.build_request("POST", "/auth/login", content=b"{}", headers=headers)
    assert_problem(http.send(request), 415, "media_type_unsupported")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity", "x"])
def test_proof_15_an_encoded_body_is_unsupported(http: httpx.Client, encoding: str):
    body = gzip.compress(b"{}")
    assert_problem(send(http, body, **{"Content-Encoding": encoding}), 415, "media_type_unsupported")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        "Application/JSON",
        'application/json;charset="UTF-8"',
        "application/json ;  charset=utf8",
    ],
)
def test_json_in_utf_8_may_say_so(http: httpx.Client, content_type: str):
    assert_problem(send(http, b"{}", **{"Content-Type": content_type}), 422, "validation_failed")


def test_the_identity_encoding_is_none(http: httpx.Client):
    assert_problem(send(http, b"{}", **{"Content-Encoding": "identity"}), 422, "validation_failed")


@pytest.mark.parametrize("content_type", ["application/json", "application/merge-patch+json"])
def test_a_patch_takes_both_types(alice: Client, content_type: str):
    path = alice.place().headers["Location"]
    answer = alice.patch(path, content=b'{"metadata": {"a": "b"}}', headers={"Content-Type": content_type})
    assert answer.status_code == 200, answer.text


def test_a_patch_of_another_type_says_which_it_takes(alice: Client):
    path = alice.place().headers["Location"]
    answer = alice.patch(path, content=b"[]", headers={"Content-Type": "application/json-patch+json"})
    assert_problem(answer, 415, "media_type_unsupported")
    assert answer.headers["Accept-Patch"] == "application/json, application/merge-patch+json"


def test_the_media_type_is_looked_at_before_the_size(http: httpx.Client):
    answer = send(http, padded(MAX_BYTES + 1), **{"Content-Type": "text/plain"})
    assert_problem(answer, 415, "media_type_unsupported")


def test_the_size_is_looked_at_before_the_json(http: httpx.Client):
    assert_problem(send(http, b"x" * (MAX_BYTES + 1)), 413, "body_too_large")


def test_the_token_is_looked_at_before_the_media_type(http: httpx.Client):
    answer = http.post("/orders", content=b"x", headers={"Content-Type": "text/plain"})
    assert_problem(answer, 401, "token_missing")


# Cut and slow


def test_a_body_cut_short_is_malformed(server: Any):
    answers = exchange(server.port, post("/auth/login", body=b'{"email": 1', length=500), half_close=True)
    assert (answers.status, answers.code) == (400, "malformed_json")


def test_a_body_that_is_json_but_shorter_than_promised_is_malformed(server: Any):
    answers = exchange(server.port, post("/auth/login", body=b"{}", length=3), half_close=True)
    assert (answers.status, answers.code) == (400, "malformed_json")


def test_a_client_gone_in_the_middle_of_its_body_creates_nothing(server: Any, alice: Client):
    body = orjson.dumps(LAMP)
    headers = (f"Authorization: Bearer {alice.access_token}", "Idempotency-Key: cut")
    exchange(server.port, post("/orders", *headers, body=body, length=len(body) + 1), half_close=True)
    assert alice.get("/orders").json()["data"] == []


def test_proof_18_a_body_that_never_comes_is_cut_at_the_deadline(server: Any):
    start = time.monotonic()
    answers = exchange(server.port, post("/auth/login", body=b"{", length=100), wait_s=READ_DEADLINE_S + 4)
    took_s = time.monotonic() - start

    assert (answers.status, answers.code) == (400, "malformed_json")
    assert answers.closed
    assert READ_DEADLINE_S - 0.5 <= took_s <= READ_DEADLINE_S + 2


# Cost


BODIES = {
    "brackets": b"[" * WORST,
    "closed brackets": b"[]" * (WORST // 2),
    "a string that never ends, of escaped quotes": b"[]" * 40 + b'"' + b'\\"' * 32_000,
    "quotes and backslashes": b"[]" * 40 + b'"\\' * 32_000,
    "quotes": b"[]" * 40 + b'"' * 65_000,
    "brackets in a string": b"[" * 32 + b'"' + b"[" * 65_000 + b'"' + b"]" * 32,
    "surrogate escapes": b'["' + b"\\ud800" * 10_900 + b'"]',
    "surrogate pairs": b'["' + b"\\ud83d\\ude00" * 5_400 + b'"]',
    "empty objects": b"[" + b"{}," * 21_000 + b"{}]",
    "short integers": b"[" + b"1," * 32_000 + b"1]",
    "one long integer": b"9" * WORST,
    "one long fraction": b"0." + b"9" * (WORST - 2),
    "one long exponent": b"1e" + b"9" * (WORST - 2),
    "keys": orjson.dumps({f"{number:x}": 0 for number in range(8_000)}),
    "blanks": b" " * WORST,
    "line breaks": b"\n" * WORST,
}


def least_cpu_ms(call: Callable[[], Any], rounds: int = 5) -> float:
    """This process's own time: the bound is for what explodes, not for speed."""
    took = []
    for _ in range(rounds):
        start = time.process_time()
        with contextlib.suppress(ValueError, RecursionError, Problem):
            call()
        took.append((time.process_time() - start) * 1000)
    return min(took)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_proof_25_the_decoder_is_fast_on_its_worst_input(body: bytes):
    took_ms = least_cpu_ms(lambda: values.parse_json(body))
    assert took_ms < SLOW_MS


def email(text: str) -> tuple[Any, dict]:
    return Registration(), {"email": text[:WORST], "password": "x" * WORST}


DOCUMENTS = {
    "an email of at signs": email("@" * WORST),
    "an email of dots": email("a@" + "a." * WORST),
    "an email of hyphens": email("a@" + "-" * WORST),
    "an email of combining marks": email("a" + "\u0315\u0316" * 16_000),
    "an email of letters that expand": email("\ufdfa" * 21_000),
    "an email of quotes": email('"' * WORST),
    "an email of blanks": email(" " * 60_000 + "x"),
    "a password of 64 KB": (Credentials(), {"email": "a@example.com", "password": "\u0315\u0316" * 16_000}),
    "a currency of 64 KB": (NewOrder(), {"currency": "E" * WORST, "total_cents": 1}),
    "unknown fields": (NewOrder(), {f"{number:x}": 0 for number in range(8_000)}),
    "unknown names to escape": (NewOrder(), {f"~/%{number:x}": 0 for number in range(5_000)}),
    "items by the thousand": (NewOrder(), {"currency": "EUR", "items": [{}] * 20_000}),
    "100 empty items": (NewOrder(), {"currency": "EUR", "items": [{}] * 100}),
    "items of unknown fields": (
        NewOrder(),
        {"currency": "EUR", "items": [{f"{number:x}": 0 for number in range(70)}] * 100},
    ),
    "metadata by the thousand": (OrderChanges(), {"metadata": {f"{number:x}": "" for number in range(8_000)}}),
    "metadata of 64 KB": (NewOrder(), {"currency": "EUR", "total_cents": 1, "metadata": {"a": "x" * WORST}}),
}


@pytest.mark.parametrize(("schema", "document"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_proof_25_the_schemas_are_fast_on_their_worst_input(schema: Any, document: dict):
    took_ms = least_cpu_ms(lambda: schema.parse(document), rounds=3)
    assert took_ms < SLOW_MS


TEXTS = {
    "times of digits": lambda: values.parse_time("2026-11-23T10:00:00." + "9" * WORST),
    "ids of digits": lambda: values.parse_id("a" * WORST),
    "trace ids": lambda: Trace.of("01-" + "a" * 32 + "-" + "a" * 16 + "-01-" + "-" * WORST),
    "numbers in queries": lambda: OrdersQuery().parse_query({"limit": "1" * WORST}),
    "times in queries": lambda: OrdersQuery().parse_query({"created_after": "2" * WORST}),
    "unknown parameters": lambda: OrdersQuery().parse_query({f"{number:x}": "" for number in range(1_000)}),
    "idempotency keys": lambda: parse_key('"' + "\\\\" * (WORST // 2)),
    "URLs of webhooks": lambda: parse_url("/" * WORST, allow_private=False),
    "cursors": lambda: Cursors(()).walk("orders:x", "A" * WORST, {}),
}


@pytest.mark.parametrize("call", TEXTS.values(), ids=TEXTS)
def test_proof_25_what_reads_text_is_fast_on_its_worst_input(call: Callable[[], Any]):
    took_ms = least_cpu_ms(call)
    assert took_ms < SLOW_MS
