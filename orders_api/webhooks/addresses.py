"""Where a webhook may go: to the public internet alone, so that nobody reaches our network through us (SSRF)."""

import ipaddress
import re
import socket
from urllib.parse import SplitResult, urlsplit

MAX_URL_CHARACTERS = 2000
# Of the well-known ports only https: else we could be made to talk to mail servers and the like.
FIRST_FREE_PORT = 1024
# What a URL is written with (RFC 3986, appendix A). A host has no use for escapes: they hide names and zones.
_WRITTEN = re.compile(r"(?:[\w\-.~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*", re.ASCII)
_ESCAPED_HOST = re.compile(r"[^/]*//[^/?#]*%")
# All of IPv6 that is given out (RFC 4291, 2.4). Outside are translated, old and reserved ones: ::10.0.0.1, fec0::1.
_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Forbidden(ValueError):  # noqa: N818
    """One sentence: why nothing is sent there."""


def parse_url(text: str, *, allow_private: bool) -> SplitResult:
    """An https URL (for development also http) that names a host and nothing secret. Raises Forbidden."""
    if len(text) > MAX_URL_CHARACTERS or not _WRITTEN.fullmatch(text) or _ESCAPED_HOST.match(text):
        raise Forbidden(f"Must be a URL of at most {MAX_URL_CHARACTERS} characters, of those that a URL may hold.")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise Forbidden("Must be a URL such as https://shop.example/hook.") from None
    if url.scheme not in (("https", "http") if allow_private else ("https",)) or not url.hostname:
        raise Forbidden("Must be an https URL such as https://shop.example/hook.")
    if url.username is not None or url.password is not None or "#" in text:
        raise Forbidden("Must not hold a user, a password or a fragment.")
    if port is not None and port != 443 and port < FIRST_FREE_PORT:
        raise Forbidden(f"The port must be 443, or {FIRST_FREE_PORT} or higher.")
    return url


def resolve(url: SplitResult, *, allow_private: bool) -> list[str]:
    """The addresses of the host, all of them public. Raises Forbidden, and OSError when there is none.

    The system resolves, so every spelling that it understands (2130706433, 0x7f.1, ::ffff:127.0.0.1) is seen as what
    it is. Connect to what is returned: a name may mean something else a moment later (DNS rebinding).
    """
    assert url.hostname
    found = socket.getaddrinfo(url.hostname, port_of(url), type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if not allow_private and not all(is_public(ipaddress.ip_address(address)) for address in addresses):
        raise Forbidden("The host must be on the public internet.")
    return addresses


def port_of(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def is_public(address: Address) -> bool:
    """Whether it is inside nobody's network: not private, loopback, link-local, shared, reserved, nor in disguise."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return False
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        hidden = [address.sixtofour, *(address.teredo or ())]
        if address not in _GIVEN_OUT or not all(is_public(inner) for inner in hidden if inner is not None):
            return False
    return address.is_global and not address.is_multicast
