"""Passwords are never cut short, and are the same in every Unicode form."""

import pytest

from orders_api.accounts.passwords import Passwords
from tests.client import Client


@pytest.fixture(scope="module")
def passwords():
    return Passwords(rounds=4)


def test_proof_5_a_password_of_more_than_72_bytes_logs_in(server):
    Client(server.url, password="ž" * 128 + "9" * 128).register().login().close()


def test_proof_5_passwords_that_differ_in_byte_80_are_two(server):
    client = Client(server.url, password="x" * 79 + "a").register()
    client.password = "x" * 79 + "b"

    answer = client.http.post("/auth/login", json={"email": client.email, "password": client.password})

    assert answer.status_code == 401
    client.close()


def test_a_password_is_the_same_in_every_unicode_form(passwords):
    assert passwords.verify("Caf\u0065\u0301 au lait", passwords.hash("Caf\u00e9 au lait"))


def test_the_case_of_a_password_counts(passwords):
    assert not passwords.verify("Lampshade 9", passwords.hash("lampshade 9"))


def test_without_an_account_every_password_is_wrong(passwords):
    assert not passwords.verify("lampshade 9", None)
