"""What mutants are made: each differs from the module, and from the others, in its meaning."""

import pytest

pytest.importorskip("cosmic_ray", reason="make mutants installs it")
from perf.mutants.operators import mutants_of


def changed(source):
    return sorted(mutants_of(source))


@pytest.mark.parametrize(
    ("source", "mutants"),
    [
        ("x = a < b\n", ["x = a <= b\n", "x = a >= b\n"]),
        ("x = a == b\n", ["x = a != b\n"]),
        ("x: int | None = 1\n", ["x: int | None = 0\n", "x: int | None = 2\n"]),
        (
            "if a:\n    f(1.5)\n",
            ["if a:\n    f( 0.5)\n", "if a:\n    f( 2.5)\n", "if a:\n    pass\n", "if not a:\n    f(1.5)\n"],
        ),
        ("def f():\n    raise E\n", ["def f():\n    pass\n"]),
        ("def f():\n    a.b = c\n", ["def f():\n    pass\n"]),
        ("try:\n    x\nexcept a.E as e:\n    y\n", ["try:\n    x\nexcept () as e:\n    y\n"]),
    ],
    ids=["a bound", "equality", "an annotation", "a call", "a raise", "an attribute", "a handler"],
)
def test_python_is_changed_one_thing_at_a_time(source, mutants):
    assert changed(source) == mutants


@pytest.mark.parametrize(
    ("condition", "mutants"),
    [
        ("a AND b", {"a OR b"}),
        ("at > now()", {"at <= now()"}),
        ("n >= %(most)s", {"n > %(most)s"}),
        ("key <> %(attempt)s", {"key = %(attempt)s"}),
    ],
)
def test_sql_is_changed_one_thing_at_a_time(condition, mutants):
    assert set(changed(f'Q = "SELECT 1 WHERE {condition}"\n')) == {f'Q = "SELECT 1 WHERE {one}"\n' for one in mutants}


def test_a_condition_of_a_case_is_turned_over():
    source = 'Q = f"""SELECT CASE WHEN a THEN 1\n  WHEN b\n  THEN 2 END {x}"""\n'

    assert changed(source) == [
        source.replace("WHEN a THEN", "WHEN NOT (a) THEN"),
        source.replace("WHEN b\n  THEN", "WHEN NOT (b) THEN"),
    ]


def test_options_of_a_dataclass_are_left_alone():
    assert changed("@dataclass(frozen=True)\nclass A:\n    a: int\n") == ["class A:\n    a: int\n"]


@pytest.mark.parametrize("source", ['"""Nobody is > now() AND alone."""\n', "x = 'a AND b'\n"])
def test_text_that_is_no_sql_is_left_alone(source):
    assert changed(source) == []


def test_one_meaning_makes_one_mutant():
    assert changed("if a is None:\n    b = c\n") == ["if a is not None:\n    b = c\n"]
