"""Limits, without a server: whose address counts, and when a window is over."""

import pytest
from limits import RateLimitItemPerMinute

from orders_api.memcached import Reply
from orders_api.web.rate_limits import Hit, client_ip, network_of


@pytest.mark.parametrize(
    ("header", "hops", "expected"),
    [
        (None, 0, "10.9.8.7"),
        ("192.0.2.1", 0, "10.9.8.7"),
        (None, 1, "10.9.8.7"),
        ("", 1, "10.9.8.7"),
        ("192.0.2.1", 1, "192.0.2.1"),
        ("192.0.2.1", 2, "10.9.8.7"),
        ("a, 192.0.2.1", 1, "192.0.2.1"),
        ("192.0.2.1, a", 1, "10.9.8.7"),
        ("192.0.2.1,", 1, "10.9.8.7"),
        ("192.0.2.1:4711", 1, "192.0.2.1"),
        ("[2001:db8::1]:4711", 1, "2001:db8::1"),
        ("2001:db8::1", 1, "2001:db8::1"),
        ("192.0.2.1\t", 1, "192.0.2.1"),
        ("1.2.3.4.5", 1, "10.9.8.7"),
        ("x" * 8000, 1, "10.9.8.7"),
        (",".join(["192.0.2.9"] * 1000), 3, "192.0.2.9"),
    ],
)
def test_the_client_is_the_nth_from_the_right(header: str | None, hops: int, expected: str):
    assert client_ip("10.9.8.7", header, hops) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("", "", True),  # as who comes by a Unix socket has it
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
    ],
)
def test_what_counts_as_one_client(one: str, other: str, same: bool):
    assert (network_of(one) == network_of(other)) is same


def test_a_window_in_its_last_second_starts_anew_in_one():
    reply = Reply()
    reply.value, reply.flags = b"3", [b"t0"]
    assert Hit(None, "ip", RateLimitItemPerMinute(3), "192.0.2.1", "key", reply).verdict().reset_s == 1
