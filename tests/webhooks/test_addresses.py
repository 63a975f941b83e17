"""Which addresses are public, in every disguise."""

import ipaddress

import pytest

from orders_api.webhooks.addresses import Forbidden, is_public, parse_url, resolve

INSIDE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.2.1", "198.18.0.1", "203.0.113.1", "224.0.0.1"),
    *("240.0.0.1", "255.255.255.255", "192.0.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254"),
    *("ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
    *("2002:a00:1::", "2001:0:7f00:1::", "2001:db8::1", "::ffff:169.254.169.254"),
    *("::127.0.0.1", "::a9fe:a9fe", "::ffff:0:7f00:1", "fec0::1", "64:ff9b:1::7f00:1", "4000::1", "::ffff:224.0.0.1"),
]
OUTSIDE = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_inside_somebodys_network_is_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_anybody_can_reach_is_public(address):
    assert is_public(ipaddress.ip_address(address))


SPELLINGS = [
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "localhost",
    "LOCALHOST",
    "[::1]",
]


@pytest.mark.parametrize("host", [*SPELLINGS, "[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]", "0"])
def test_every_spelling_of_loopback_is_seen_through(host):
    with pytest.raises(Forbidden, match="public internet"):
        resolve(parse_url(f"https://{host}/hook", allow_private=False), allow_private=False)


@pytest.mark.parametrize(
    "text",
    [
        *("", "shop.example", "/hook", "http://shop.example/", "ftp://shop.example/", "https://", "https:///hook"),
        *(
            "javascript:alert(1)",
            "https://user@shop.example/",
            "https://user:pass@shop.example/",
            "https://:x@a.example",
        ),
        *(
            "https://shop.example/#part",
            "https://shop.example:0/",
            "https://shop.example:22/",
            "https://a.example:99999/",
        ),
        *(
            "https://shop.example:port/",
            "https://shop.example/a b",
            "https://shop.example/\n",
            "https://[::1/",
            "https://\u00e9.example/",
            "https://[::1%25lo]/",
            "https://[fe80::1%25eth0]/",
            "https://%6c%6fcalhost/",
            "https://shop.example/{id}",
            "https://shop.example/<a>",
            "https://shop.example/%zz",
        ),
        *("https://shop.example\\@127.0.0.1/", "https://shop.example/" + "a" * 2000),
    ],
)
def test_what_is_no_plain_https_url_is_refused(text):
    with pytest.raises(Forbidden):
        parse_url(text, allow_private=False)


@pytest.mark.parametrize("text", ["https://shop.example", "https://shop.example:8443/a?b=c", "HTTPS://Shop.Example/"])
def test_a_plain_https_url_is_taken(text):
    assert parse_url(text, allow_private=False).hostname == "shop.example"
