"""Settings: a bad value stops the start with one sentence that names the setting, and never shows the value."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orders_api.settings import Key, SettingError, Settings

ROOT = Path(__file__).parent.parent.parent


def secret(size: int = 32) -> str:
    return base64.urlsafe_b64encode(os.urandom(size)).decode().rstrip("=")


PRODUCTION = {
    "DATABASE_URL": "postgresql://orders@db.example/orders?sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem",
    "MEMCACHED_SERVERS": "cache-1.example:11211",
    "JWT_KEYS": f"k1:{secret()}",
}


def load(**changes: str | None) -> Settings:
    """Production's settings with changes; None takes one away."""
    return Settings.from_env({name: value for name, value in {**PRODUCTION, **changes}.items() if value is not None})


def refusal(**changes: str | None) -> str:
    with pytest.raises(SettingError) as refused:
        load(**changes)
    return str(refused.value)


def test_what_is_not_set_has_the_documented_default():
    settings = load()
    assert settings.production
    assert (settings.port, settings.web_concurrency) == (8000, 2)
    assert (settings.database_pool_size, settings.database_prepare_threshold) == (8, 5)
    assert settings.bcrypt_rounds == 12
    assert (settings.rate_limit_ip.amount, settings.rate_limit_ip.get_expiry()) == (12000, 60)
    assert (settings.rate_limit_user.amount, settings.rate_limit_user.get_expiry()) == (6000, 60)
    assert (settings.rate_limit_auth.amount, settings.rate_limit_auth.get_expiry()) == (120, 60)
    assert settings.trusted_proxy_hops == 0
    assert (settings.metrics_token, settings.sentry_dsn, settings.release) == (None, None, None)
    assert settings.sentry_traces_rate == 0.1
    assert settings.server_timing is False
    assert (settings.cors_origins, settings.webhook_secrets) == ((), ())


def test_an_empty_variable_is_as_one_that_is_not_set():
    names = ("PORT", "BCRYPT_ROUNDS", "CORS_ORIGINS", "CURSOR_KEYS", "WEBHOOK_SECRETS", "METRICS_TOKEN")
    assert load(**dict.fromkeys(names, "")) == load()


MALFORMED = {
    "ENVIRONMENT": ["prod", "Production", "debug"],
    "PORT": ["0", "65536", "-1", "80.0", "http", "８０８０", "1e3", "0x50"],
    "WEB_CONCURRENCY": ["0", "257", "two", "1.5"],
    "DATABASE_URL": [
        "mysql://a/b",
        "hunter2",
        "host=db password=hunter2",
        "postgresql://u:hunter2@db:port/x",
        "postgresql://db/x?hunter2=1",
        "postgresql://u:hunter2%@db/x",
    ],
    "DATABASE_POOL_SIZE": ["0", "1001", "many"],
    "DATABASE_PREPARE_THRESHOLD": ["-1", "never", "1.0"],
    "MEMCACHED_SERVERS": [
        "cache.example",
        "cache.example:",
        ":11211",
        "a:0",
        "a:65536",
        "a:1,,b:2",
        "a:1;b:2",
        "a b:1",
    ],
    "JWT_KEYS": ["hunter2", "k1:", "k1:!!!!", f"k 1:{secret()}", f"k1:{secret()},", f"k1:{secret()},k1:{secret()}"],
    "CURSOR_KEYS": ["hunter2", "k1:", "k1:ÄÄÄÄ", f"{'k' * 65}:{secret()}"],
    "WEBHOOK_SECRETS": ["hunter2", "whsec_", "whsec_!!!!", f"sk_{secret()}", f"whsec_{secret()},hunter2"],
    "BCRYPT_ROUNDS": ["3", "32", "twelve", "12.0"],
    "RATE_LIMIT_IP": ["lots", "0/minute", "-1/minute", "10/fortnight", "10", "1/minute;5/second", "10/year"],
    "RATE_LIMIT_USER": ["lots", "0/minute", "1.5/minute"],
    "RATE_LIMIT_AUTH": ["lots", "0/minute", "1/minute, 2/hour"],
    "TRUSTED_PROXY_HOPS": ["-1", "17", "one"],
    "SENTRY_DSN": [
        "hunter2",
        "https://sentry.example/1",
        "https://hunter2@sentry.example",
        "ftp://hunter2@s.example/1",
        "https://hunter2@s.example/one",
        "https://hunter2@s.example:x/1",
        "https://hunter2@[::1/1",
    ],
    "SENTRY_TRACES_RATE": ["1.1", "-0.1", "10%", "nan", "1e-1"],
    "SERVER_TIMING": ["yes", "true", "2"],
    "CORS_ORIGINS": [
        "*",
        "hunter2.example",
        "https://hunter2.example/",
        "null",
        "https://a.example,",
        "ftp://a.example",
    ],
}


# Named by their place: some hold random keys, and every process must collect the same names.
@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{place}")
        for name, values in MALFORMED.items()
        for place, value in enumerate(values)
    ],
)
def test_proof_22_a_malformed_setting_is_named_and_its_value_is_not_shown(name: str, value: str):
    sentence = refusal(**{name: value})
    assert sentence.startswith(f"{name} ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "hunter2" not in sentence
    if len(value) > 8:
        assert value not in sentence


@pytest.mark.parametrize("name", ["DATABASE_URL", "JWT_KEYS", "MEMCACHED_SERVERS"])
def test_proof_22_production_refuses_to_start_without(name: str):
    assert refusal(**{name: None}).startswith(f"{name} is not set")


def same_bytes(size: int = 32) -> str:
    return base64.urlsafe_b64encode(b"a" * size).decode().rstrip("=")


WEAK = {
    "a short metrics token": ("METRICS_TOKEN", "hunter2"),
    "a JWT key of 31 bytes": ("JWT_KEYS", f"k1:{secret(31)}"),
    "a short JWT key after a long one": ("JWT_KEYS", f"k1:{secret()},k0:{secret(16)}"),
    "a JWT key of one byte again and again": ("JWT_KEYS", f"k1:{same_bytes()}"),
    "a JWT key of zeros": ("JWT_KEYS", f"k1:{'A' * 43}"),
    "a cursor key of 31 bytes": ("CURSOR_KEYS", f"c1:{secret(31)}"),
    "a cursor key of one byte again and again": ("CURSOR_KEYS", f"c1:{same_bytes()}"),
    "a webhook secret of 23 bytes": ("WEBHOOK_SECRETS", "whsec_" + base64.b64encode(os.urandom(23)).decode()),
    "a webhook secret of one byte again and again": ("WEBHOOK_SECRETS", f"whsec_{same_bytes()}"),
    "bcrypt with 4 rounds": ("BCRYPT_ROUNDS", "4"),
    "bcrypt with 9 rounds": ("BCRYPT_ROUNDS", "9"),
    "webhooks into our own network": ("WEBHOOK_ALLOW_PRIVATE", "1"),
}


@pytest.mark.parametrize(("name", "value"), WEAK.values(), ids=WEAK)
def test_proof_22_production_refuses_what_is_weak(name: str, value: str):
    sentence = refusal(**{name: value})
    assert sentence.startswith(f"{name} ")
    assert value not in sentence


def test_production_takes_ten_rounds():
    assert load(BCRYPT_ROUNDS="10").bcrypt_rounds == 10


def test_development_allows_weak_settings_and_no_memcached():
    settings = load(ENVIRONMENT="development", BCRYPT_ROUNDS="4", MEMCACHED_SERVERS=None)
    assert (settings.bcrypt_rounds, settings.memcached_servers) == (4, ())
    assert settings.server_timing is True


def test_development_can_switch_server_timing_off():
    assert load(ENVIRONMENT="development", SERVER_TIMING="0").server_timing is False


def test_proof_22_short_keys_are_refused_in_development_too():
    assert refusal(ENVIRONMENT="development", JWT_KEYS=f"k1:{secret(31)}").startswith("JWT_KEYS ")


# Rings


def test_a_ring_keeps_its_order():
    new, old = os.urandom(32), os.urandom(48)
    text = ",".join(f"{kid}:{base64.urlsafe_b64encode(key).decode()}" for kid, key in (("new", new), ("old", old)))
    assert load(JWT_KEYS=text).jwt_keys == (Key("new", new), Key("old", old))


def test_padding_and_blanks_around_keys_do_not_matter():
    key = os.urandom(32)
    padded = base64.urlsafe_b64encode(key).decode()
    assert load(JWT_KEYS=f" a:{padded} , b:{secret()} ").jwt_keys[0] == Key("a", key)


def test_a_key_without_a_kid_is_named_by_its_hash_and_never_by_itself():
    text = secret()
    (key,) = load(JWT_KEYS=text).jwt_keys
    assert len(key.kid) == 8
    assert key.kid not in text
    assert load(JWT_KEYS=text).jwt_keys[0].kid == key.kid


def test_a_webhook_ring_is_base64():
    one, other = os.urandom(24), os.urandom(64)
    text = ",".join("whsec_" + base64.b64encode(key).decode() for key in (one, other))
    assert load(WEBHOOK_SECRETS=text).webhook_secrets == (one, other)


def test_cursor_keys_are_derived_from_the_jwt_keys_but_are_others():
    text = f"new:{secret()},old:{secret()}"
    settings = load(JWT_KEYS=text)
    assert [key.kid for key in settings.cursor_keys] == ["new", "old"]
    assert not {key.secret for key in settings.cursor_keys} & {key.secret for key in settings.jwt_keys}
    assert all(len(key.secret) == 32 for key in settings.cursor_keys)
    assert load(JWT_KEYS=text).cursor_keys == settings.cursor_keys


def test_cursor_keys_of_their_own_are_taken_as_they_are():
    key = os.urandom(32)
    settings = load(CURSOR_KEYS="c1:" + base64.urlsafe_b64encode(key).decode())
    assert settings.cursor_keys == (Key("c1", key),)


# Values


@pytest.mark.parametrize(
    "url",
    [
        "postgres://orders@db.example/orders",
        "postgresql://orders:p%40ss@db.example:6432/orders?sslmode=require",
        "postgresql://orders@db.example/orders?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem",
        "postgresql://orders@a.example:5432,b.example:5433/orders?target_session_attrs=read-write",
        "postgresql:///orders?host=/run/postgresql&user=orders",
        "postgresql://orders@[2001:db8::1]/orders?channel_binding=require",
    ],
)
def test_a_database_url_keeps_its_options(url: str):
    assert load(DATABASE_URL=url).database_url == url


def test_servers_are_hosts_with_ports():
    settings = load(MEMCACHED_SERVERS="a.example:11211, [2001:db8::1]:11212 ,10.0.0.1:11213")
    assert settings.memcached_servers == (("a.example", 11211), ("2001:db8::1", 11212), ("10.0.0.1", 11213))


def test_prepared_statements_can_be_switched_off():
    assert load(DATABASE_PREPARE_THRESHOLD="none").database_prepare_threshold is None
    assert load(DATABASE_PREPARE_THRESHOLD="0").database_prepare_threshold == 0


def test_origins_are_listed():
    settings = load(CORS_ORIGINS="https://shop.example, http://localhost:3000")
    assert settings.cors_origins == ("https://shop.example", "http://localhost:3000")


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        load().port = 1  # type: ignore[misc]


def test_proof_22_gunicorn_does_not_start_with_a_weak_setting():
    """Over the real start: it ends at once, with the sentence alone and no traceback."""
    environ = {"PATH": os.environ["PATH"], **PRODUCTION, "JWT_KEYS": "k1:hunter2hunter2"}
    command = [sys.executable, "-m", "gunicorn", "-c", "conf/gunicorn.conf.py"]
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=20, check=False)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 78
    assert said.strip() == "orders-api: JWT_KEYS holds a key shorter than 256 bits."
