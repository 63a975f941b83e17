"""What a forged, altered or outdated access token gets: 401, whatever it is."""

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest

from tests.client import assert_problem


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def key_of(server):
    kid, _, encoded = server.env["JWT_KEYS"].rpartition(":")
    return kid, base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


def forged(header, claims, secret):
    signed = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
    return signed + "." + b64(hmac.digest(secret, signed.encode(), hashlib.sha256))


@pytest.fixture
def parts(alice, server):
    """The header and claims of a good token, and the key that signed it."""
    header, claims = (
        jwt.get_unverified_header(alice.access_token),
        jwt.decode(alice.access_token, options={"verify_signature": False}),
    )
    return header, claims, key_of(server)[1]


def ask(client, token):
    return client.http.get("/auth/me", headers={"Authorization": b"Bearer " + token.encode()})


def test_a_token_forged_with_the_right_key_works(alice, parts):
    """Else the tests below would prove nothing."""
    assert ask(alice, forged(*parts)).status_code == 200


def test_a_token_says_what_it_should(parts):
    header, claims, _ = parts

    assert header == {"alg": "HS256", "typ": "at+jwt", "kid": header["kid"]}
    assert set(claims) == {"iss", "aud", "sub", "sid", "iat", "exp", "jti"}
    assert claims["exp"] - claims["iat"] == 900


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 0, "HS384", "HS512", "RS256", "hs256"])
def test_proof_1_another_algorithm_is_refused(alice, parts, alg):
    header, claims, secret = parts

    assert_problem(ask(alice, forged({**header, "alg": alg}, claims, secret)), 401, "token_invalid")


def test_proof_1_an_unsigned_token_is_refused(alice, parts):
    header, claims, _ = parts
    unsigned = jwt.encode(claims, None, "none", headers={"typ": "at+jwt", "kid": header["kid"]})

    assert_problem(ask(alice, unsigned), 401, "token_invalid")


@pytest.mark.parametrize("alg", ["HS384", "HS512"])
def test_proof_1_another_hash_of_the_right_key_is_refused(alice, parts, alg):
    header, claims, secret = parts
    secret = secret.ljust(64, b"\0")  # HMAC pads a key with zeros: the same key
    token = jwt.encode(claims, secret, alg, headers={"typ": "at+jwt", "kid": header["kid"]})

    assert_problem(ask(alice, token), 401, "token_invalid")


@pytest.mark.parametrize(
    "kid", ["../../dev/null", "' OR 1=1 --", "", None, 0, 1.5, True, [], {}, ["t1"], "x" * 2000, "é"]
)
def test_proof_1_an_unknown_kid_is_refused(alice, parts, kid):
    header, claims, secret = parts

    assert_problem(ask(alice, forged({**header, "kid": kid}, claims, secret)), 401, "token_invalid")


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c", "crit", "b64", "zip", "cty", "whatever"])
def test_proof_1_any_other_header_parameter_is_refused(alice, parts, name):
    header, claims, secret = parts
    value = {"crit": ["exp"], "b64": False, "jwk": {"kty": "oct", "k": "AA"}}.get(name, "https://x.example")

    assert_problem(ask(alice, forged({**header, name: value}, claims, secret)), 401, "token_invalid")


@pytest.mark.parametrize("typ", ["JWT", "at+JWT", "", None])
def test_proof_2_another_typ_is_refused(alice, parts, typ):
    header, claims, secret = parts

    assert_problem(ask(alice, forged({**header, "typ": typ}, claims, secret)), 401, "token_invalid")


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "sid", "iat", "exp", "jti"])
def test_proof_2_every_claim_is_required(alice, parts, name):
    header, claims, secret = parts
    del claims[name]

    assert_problem(ask(alice, forged(header, claims, secret)), 401, "token_invalid")


NOW = int(time.time())
NOBODY = "01900000-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "somebody"}, {"iss": None}, {"iss": ["orders-api"]}, {"aud": "another-api"},
        {"aud": ["orders-api", "b"]}, {"aud": 1}, {"sub": "1"}, {"sub": 1}, {"sub": None}, {"sid": "' OR 1=1 --"},
        {"sid": {}}, {"jti": 7}, {"jti": ""},
        {"iat": NOW + 3600, "exp": NOW + 4000}, {"exp": NOW + 10**10}, {"exp": 10**400}, {"exp": "9999999999"},
        {"exp": NOW + 600.5}, {"exp": True}, {"exp": None}, {"iat": "1"}, {"iat": -(10**30)}, {"exp": NOW - 10**6},
        {"sub": NOBODY}, {"sid": NOBODY},
    ],
)  # fmt: skip
def test_proof_2_a_wrong_claim_is_refused(alice, parts, changed):
    header, claims, secret = parts

    assert_problem(ask(alice, forged(header, {**claims, **changed}, secret)), 401, "token_invalid")


def test_proof_2_an_expired_token_is_refused_as_expired(alice, parts):
    header, claims, secret = parts
    old = {**claims, "iat": NOW - 1000, "exp": NOW - 100}

    assert_problem(ask(alice, forged(header, old, secret)), 401, "token_expired")


def test_proof_2_an_expired_token_of_another_key_is_simply_not_valid(alice, parts):
    header, claims, _ = parts
    old = {**claims, "iat": NOW - 1000, "exp": NOW - 100}

    assert_problem(ask(alice, forged(header, old, b"k" * 32)), 401, "token_invalid")


def test_proof_2_every_other_spelling_of_the_signature_is_refused(alice):
    token = alice.access_token
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spare_bits = token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]
    for altered in (token[:-1], token + "=", token + "A", spare_bits, token.rsplit(".", 1)[0] + ".", token + "."):
        assert_problem(ask(alice, altered), 401, "token_invalid")


def test_proof_2_the_token_of_a_deleted_user_is_refused(alice, parts, sql):
    sql.execute("DELETE FROM users WHERE id = %s", [alice.user_id])

    assert_problem(alice.get("/auth/me"), 401, "token_invalid")


@pytest.mark.parametrize(
    "token",
    ["x", "a.b.c", "é.é.é", "....", "A" * 6000, f"{b64(b'[' * 2000)}.e30.{'A' * 43}", f"{b64(b'1')}.MQ.{'A' * 43}"]
)  # fmt: skip
def test_what_is_no_token_at_all_is_refused(alice, token):
    assert_problem(ask(alice, token), 401, "token_invalid")
