"""What a run over mutants says: a survivor has to be justified, and a justification has to be needed."""

from types import SimpleNamespace

from perf.mutants.verdicts import Change, judged

MODULES = [{"name": "limits", "path": "limits.py"}]
SURVIVOR = Change("limits.py", "def f():", "a = 1", "a = 2")
JUSTIFIED = {"path": "limits.py", "below": "def f():", "was": "a = 1", "becomes": ["a = 2"], "why": "nobody reads a"}


def verdict(killed, survived=(), equivalent=(), not_run=0, killed_before=0):
    found = SimpleNamespace(
        killed=killed, killed_before=killed_before, timeouts=0, survived=list(survived), not_run=not_run
    )
    return judged(MODULES, {"limits.py": found}, list(equivalent))


def test_a_run_in_which_all_were_noticed_passes():
    document, told = verdict(killed=3)

    assert (document["modules"]["limits"]["score"], document["failures"], told) == (1.0, [], [])


def test_a_survivor_that_nothing_justifies_fails_the_run():
    document, _ = verdict(killed=99, survived=[SURVIVOR])

    assert ["nothing justifies" in failure for failure in document["failures"]] == [True]


def test_a_justified_survivor_is_listed_with_its_reason():
    document, told = verdict(killed=99, survived=[SURVIVOR], equivalent=[JUSTIFIED])

    assert (document["failures"], told) == ([], [])
    assert document["survivors"] == [{**SURVIVOR._asdict(), "why": "nobody reads a"}]
    assert (document["modules"]["limits"]["score"], document["modules"]["limits"]["of_killable"]) == (0.99, 1.0)


def test_a_justification_that_is_not_needed_any_more_is_told():
    document, told = verdict(killed=100, equivalent=[JUSTIFIED])

    assert document["stale"] == [SURVIVOR._asdict()]
    assert told == [f"justified, but does not survive any more: {SURVIVOR}"]


def test_a_module_that_was_not_run_to_its_end_makes_no_justification_stale():
    assert verdict(killed=1, equivalent=[JUSTIFIED], not_run=1)[0]["stale"] == []
    assert verdict(killed=1, equivalent=[{**JUSTIFIED, "path": "other.py"}])[0]["stale"] == []


def test_what_an_earlier_run_killed_counts_and_is_told():
    document, _ = verdict(killed=1, killed_before=2)

    told = document["modules"]["limits"]
    assert (told["mutants"], told["killed"], told["killed_before"], told["score"]) == (3, 3, 2, 1.0)


def test_what_may_be_justified_is_bounded():
    many = [Change("limits.py", "def f():", "a = 1", f"a = {number}") for number in range(11)]
    justified = [{**JUSTIFIED, "becomes": [change.becomes for change in many]}]
    document, _ = verdict(killed=89, survived=many, equivalent=justified)

    assert document["failures"] == ["limits: the score is 0.89"]


def test_a_run_that_was_cut_short_fails():
    assert verdict(killed=3, not_run=2)[0]["failures"] == ["limits: 2 mutants were not run"]


def test_a_change_is_told_line_by_line():
    assert str(Change("a.py", "if b:", "x = 1\ny = 2", "")) == "a.py\n    if b:\n  - x = 1\n  - y = 2"
