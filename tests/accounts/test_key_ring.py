"""The ring of JWT keys: the first signs, all verify, so that a key can be replaced while tokens of it live."""

import base64
import os

import jwt

from tests.client import Client, assert_problem


def new_key(kid: str) -> str:
    return f"{kid}:{base64.urlsafe_b64encode(os.urandom(32)).decode()}"


def test_a_new_key_signs_and_the_old_one_still_verifies(serve):
    old, new = new_key("old"), new_key("new")
    before = serve(JWT_KEYS=old)
    alice = Client(before.url).register().login()
    during = serve(JWT_KEYS=f"{new},{old}", database_url=before.database_url)

    answer = asked(during, alice.access_token)
    fresh = Client(during.url, email=alice.email, password=alice.password).login()

    assert answer.status_code == 200
    assert jwt.get_unverified_header(fresh.access_token)["kid"] == "new"
    assert_problem(asked(before, fresh.access_token), 401, "token_invalid")
    alice.close()
    fresh.close()


def asked(server, token):
    client = Client(server.url)
    try:
        return client.http.get("/auth/me", headers={"Authorization": f"Bearer {token}"})
    finally:
        client.close()
