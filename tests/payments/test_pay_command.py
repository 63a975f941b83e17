"""`orders-api pay`: sends what a provider would."""

import os
import subprocess
import sys

import pytest

from tests.conftest import BASE_ENV, Server


def pay(server: Server, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    names = ("ENVIRONMENT", "PORT", "DATABASE_URL", "JWT_KEYS", "WEBHOOK_SECRETS")
    environ = {**BASE_ENV, **{name: server.env[name] for name in names}, **settings}
    command = [sys.executable, "-m", "orders_api", "pay", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)


def test_it_pays_and_gives_back(alice, server, order):
    path = f"/orders/{order['id']}"
    paid = pay(server, order["id"])
    assert (paid.returncode, alice.get(path).json()["status"]) == (0, "paid"), paid.stderr
    assert paid.stdout == f"Sent payment.succeeded of 1250 EUR for {order['id']}; the service has it.\n"

    assert pay(server, order["id"], "--refund", "--url", server.url + "/").returncode == 0
    assert alice.get(path).json()["status"] == "cancelled"


def test_another_amount_changes_nothing(alice, server, order):
    assert pay(server, order["id"], "--amount", "7").returncode == 0
    assert alice.get(f"/orders/{order['id']}").json()["status"] == "pending"


@pytest.mark.parametrize(
    ("words", "settings", "said", "code"),
    [
        (["018f0000-0000-7000-8000-000000000000"], {}, "There is no such order", 1),
        (["seven"], {}, "is not a valid UUID", 2),
        ([], {}, "Missing argument", 2),
        (["ORDER"], {"WEBHOOK_SECRETS": ""}, "WEBHOOK_SECRETS is not set", 78),
        (["ORDER"], {"PORT": "1"}, "does not answer: ", 1),
        (["ORDER"], {"WEBHOOK_SECRETS": "whsec_" + "A" * 44}, "answered 401", 1),
        (["ORDER"], {"DATABASE_URL": "", "ORDERS_API_LOCAL": os.devnull + "-none"}, "DATABASE_URL is not set", 78),
    ],
)
def test_what_is_wrong_is_one_sentence(server, order, words, settings, said, code):
    ended = pay(server, *(order["id"] if word == "ORDER" else word for word in words), **settings)

    assert (ended.returncode, "Traceback" in ended.stderr) == (code, False), ended.stderr
    assert said in ended.stderr
