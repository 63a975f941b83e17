"""Near JSON: taken exactly where a lenient decoder and the contract's rules take it, and as the same value."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from orders_api.values import parse_json
from tests.mutations import changed

REFUSED = object()
LEAVES = ["null", "true", "NaN", "-Infinity", "-0", "1.5", "1e400", "01", ".5", "1.", "+1", "9" * 20 + ".0", '"[{"']
LEAVES += [r'"\\\"["', r'"\"', r'"\ud83d\ude00"', r'"\ud800"', r'"\uDCFF"', r'"\udc00\ud800"', r'"\\ud800"', r'"\x"']
LEAVES += [r'"\u12"', '"\0"', '"\x7f"', "'a'", ""]
NAMES = ['"a"', r'"\u0061"', '"b"', '""', r'"\udfff"', "a"]

long_integers = st.builds("{}{}".format, st.sampled_from(["", "-"]), st.integers(18, 21).map("9".__mul__))
numbers = st.integers().map(str) | st.floats().map(json.dumps) | long_integers
leaves = st.sampled_from(LEAVES) | numbers | st.text(max_size=3).map(json.dumps)
blanks = st.sampled_from(["", "", "", " ", "\t\r\n", "\x0b", "\ufeff"])


@st.composite
def nested(draw):
    levels = draw(st.integers(30, 34))
    opened = draw(st.lists(st.sampled_from(["[", '{"a":']), min_size=levels, max_size=levels))
    return "".join(opened) + draw(leaves) + "".join("]" if one == "[" else "}" for one in reversed(opened))


def containers(inner):
    members = st.builds("{}:{}".format, st.sampled_from(NAMES), inner)
    arrays = st.lists(inner, max_size=3).map(lambda entries: f"[{','.join(entries)}]")
    return arrays | st.lists(members, max_size=3).map(lambda entries: f"{{{','.join(entries)}}}")


texts = st.builds("{}{}{}".format, blanks, st.recursive(leaves, containers, max_leaves=8) | nested(), blanks)


class Pairs(list):
    """An object, whatever its names."""


class Digits(str):
    """An integer, as it was spelled."""


def lenient(text):
    return json.loads(text, object_pairs_hook=Pairs, parse_int=Digits, parse_constant=lambda name: REFUSED)


def judged(tree, depth=0):
    """The value that a tree stands for. Raises ValueError where the contract refuses it (CONTRACT 1)."""
    if isinstance(tree, Pairs | list):
        if depth == 32:
            raise ValueError("too deep")
        if not isinstance(tree, Pairs):
            return [judged(entry, depth + 1) for entry in tree]
        names = [judged(name) for name, _ in tree]
        if len(set(names)) < len(names):
            raise ValueError("twice")
        return {name: judged(value, depth + 1) for name, (_, value) in zip(names, tree, strict=True)}
    if isinstance(tree, Digits):
        if len(tree.removeprefix("-")) > 19:
            raise ValueError("too long")
        return int(tree)
    if tree is REFUSED or (isinstance(tree, str) and any(0xD800 <= ord(character) < 0xE000 for character in tree)):
        raise ValueError("no JSON")
    return tree


def outcome(read, raw):
    """The repr tells 1 from 1.0 and true."""
    try:
        return repr(read(raw))
    except ValueError:
        return "refused"


def agrees(raw):
    assert outcome(parse_json, raw) == outcome(lambda given: judged(lenient(given.decode())), raw)


@settings(max_examples=3 * settings.default.max_examples)  # of a rare leaf among valid ones
@given(texts)
def test_near_json_is_taken_where_the_contract_takes_it(text):
    agrees(text.encode("utf-8", "surrogatepass"))


@given(changed(texts))
def test_changed_json_is_taken_where_the_contract_takes_it(text):
    agrees(text.encode("utf-8", "surrogatepass"))


@given(texts, st.binary(max_size=3), st.data())
def test_json_with_strange_bytes_in_it_is_taken_where_the_contract_takes_it(text, strange, data):
    raw = text.encode("utf-8", "surrogatepass")
    at = data.draw(st.integers(0, len(raw)))

    agrees(raw[:at] + strange + raw[at:])
