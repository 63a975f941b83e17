"""X-Forwarded-For, traceparent, sentry-trace and Idempotency-Key, valid, almost valid or wild: what comes of them."""

import ipaddress
import re
import string

from hypothesis import assume, given
from hypothesis import strategies as st

from orders_api.errors import Problem
from orders_api.web.idempotency import parse_key
from orders_api.web.rate_limits import client_ip, network_of
from orders_api.web.tracing import Trace
from tests.mutations import changed

SOCKET = "203.0.113.9"
# As WSGI hands headers on: each byte a character.
headers = st.text(st.characters(max_codepoint=255), max_size=80)


# X-Forwarded-For

addresses = st.ip_addresses()
one_entry = headers.map(lambda text: text.replace(",", ""))


@st.composite
def spelled(draw: st.DrawFn, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """As one of the proxies writes it: with a port or without, among blanks."""
    port = draw(st.sampled_from(["", ":1", ":65535"]))
    text = f"[{address}]" if address.version == 6 and (port or draw(st.booleans())) else str(address)
    blanks = st.sampled_from(["", " ", "\t"])
    return draw(blanks) + text + port + draw(blanks)


entries = st.lists(addresses.flatmap(spelled) | one_entry, max_size=5)


@given(
    st.lists(headers, max_size=4),
    addresses,
    st.lists(headers.filter(lambda text: "," not in text), max_size=4),
    st.data(),
)
def test_what_our_proxy_wrote_is_the_client_whatever_stands_before(before, address, behind, data):
    header = ",".join([*before, data.draw(spelled(address)), *behind])

    assert client_ip(SOCKET, header, len(behind) + 1) == str(address)


@given(entries, st.integers(0, 7))
def test_a_client_is_an_address_of_the_entry_or_of_the_socket(listed, hops):
    found = client_ip(SOCKET, ",".join(listed), hops)

    assert str(ipaddress.ip_address(found)) == found
    if found != SOCKET:
        assert ipaddress.ip_address(found) in candidates(listed[-hops])


def candidates(entry):
    """What may be read in an entry: itself, or what is left without brackets and a port."""
    texts = {entry.strip(), entry.strip().rpartition(":")[0], entry.strip().partition("]")[0].lstrip("[")}
    return {ipaddress.ip_address(text) for text in texts if is_address(text)}


def is_address(text):
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@given(st.ip_addresses(v=6).filter(lambda address: not address.ipv4_mapped), st.integers(0, 2**64 - 1))
def test_one_64_counts_as_one_and_its_neighbour_as_another(address, host):
    base = int(address) >> 64 << 64
    same, other = ipaddress.IPv6Address(base | host), ipaddress.IPv6Address((base ^ 1 << 64) | host)
    assume(not same.ipv4_mapped)

    assert network_of(str(same)) == network_of(str(address)) != network_of(str(other))


# traceparent, sentry-trace


def hex_of(length):
    return st.text("0123456789abcdef", min_size=length, max_size=length)


traces = hex_of(32).filter(lambda text: set(text) != {"0"})
spans = hex_of(16).filter(lambda text: set(text) != {"0"})
versions = hex_of(2).filter(lambda text: text != "ff")
zeros = st.builds("0".__mul__, st.sampled_from([16, 32]))
parents = st.builds(
    "{}-{}-{}-{}".format, versions | st.just("ff"), traces | zeros, spans | zeros, hex_of(2) | st.just("FF")
)
sentry_traces = st.builds("{}-{}{}".format, traces, spans, st.sampled_from(["", "-0", "-1"]))


def read_traceparent(text):
    """The specification's steps in place of our expression: None where it is invalid (Trace Context, section 4.3)."""
    version, trace, span, flags, *more = text.split("-", 4) if text.count("-") > 2 else [""] * 4
    digits = all(set(part) <= set(string.hexdigits.lower()[:16]) for part in (version, trace, span, flags))
    lengths = [len(part) for part in (version, trace, span, flags)] == [2, 32, 16, 2]
    if not digits or not lengths or version == "ff" or int(trace, 16) == 0 or int(span, 16) == 0:
        return None
    return None if version == "00" and more else (trace, span)


@given(parents | changed(parents) | st.builds("{}-{}".format, parents, st.text("-a", max_size=3)))
def test_a_traceparent_is_read_as_its_specification_says(traceparent):
    assume("\n" not in traceparent)
    trace, expected = Trace.of(traceparent), read_traceparent(traceparent)

    if expected:
        assert trace == expected
    else:
        assert trace.parent_span_id is None
        assert re.fullmatch("[0-9a-f]{32}", trace.id)
        assert trace.id not in traceparent


@given(changed(parents), sentry_traces)
def test_a_sentry_trace_is_read_where_traceparent_is_invalid(traceparent, sentry_trace):
    trace, span = read_traceparent(traceparent) or sentry_trace.split("-")[:2]

    assert Trace.of(traceparent, sentry_trace) == (trace, span)


@given(changed(sentry_traces) | st.builds("{}-{}".format, traces | zeros, spans | zeros))
def test_a_sentry_trace_that_is_none_gives_a_fresh_id(text):
    trace = Trace.of(None, text)
    parts = text.split("-")
    valid = [len(part) for part in parts[:2]] == [32, 16] and parts[2:] in ([], ["0"], ["1"])
    valid = valid and all(re.fullmatch("[0-9a-f]+", part) and int(part, 16) for part in parts[:2])

    assert (trace.parent_span_id is not None) == valid
    assert (trace.id in text) == valid


# Idempotency-Key

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255)


def quoted(key):
    return '"' + re.sub(r'(["\\])', r"\\\1", key) + '"'


@given(printable)
def test_a_quoted_key_is_the_key(key):
    assert parse_key(quoted(key)) == key


@given(printable.filter(lambda key: '"' not in key))
def test_a_bare_key_is_the_key(key):
    assert parse_key(key) == key


@given(headers | changed(printable.map(quoted)) | st.text('\\"a', max_size=8))
def test_a_key_that_is_taken_is_printable_and_spelled_once_quoted(text):
    try:
        key = parse_key(text)
    except Problem:
        return
    assert re.fullmatch("[ -~]{1,255}", key)
    assert parse_key(quoted(key)) == key
    assert key == text or text.startswith('"')
