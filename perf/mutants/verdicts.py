"""What the mutants that were found say of the tests: the scores, and what has to be done about them."""

from typing import Any, NamedTuple, Protocol

LEAST_SCORE = 0.9


class Change(NamedTuple):
    """How a mutant differs: the lines of the module as they were, and as they became, without their indentation."""

    path: str
    below: str  # the line before them
    was: str
    becomes: str

    def __str__(self) -> str:
        was, becomes = (
            "".join(f"\n  {sign} {line}" for line in text.splitlines())
            for sign, text in (("-", self.was), ("+", self.becomes))
        )
        return f"{self.path}\n    {self.below}{was}{becomes}"


class Found(Protocol):
    killed: int
    killed_before: int
    timeouts: int
    not_run: int
    survived: list[Change]


def judged(modules: list[dict], found: dict[str, Found], equivalent: list[dict]) -> tuple[dict[str, Any], list[str]]:
    """The document of a run, and what to tell whoever ran it.

    `equivalent`: mutants that were justified, as tables of `path`, `below`, `was`, `becomes` (a list) and `why`.
    """
    why = {
        Change(one["path"], one["below"], one["was"], becomes): one["why"]
        for one in equivalent
        for becomes in one["becomes"]
    }
    scores = {module["name"]: score(found[module["path"]], why) for module in modules}
    survivors = [change for one in found.values() for change in one.survived]
    unjustified = [change for change in survivors if change not in why]
    complete = {path for path, one in found.items() if not one.not_run}
    stale = [change for change in why if change.path in complete and change not in survivors]
    failures = [f"survived, and nothing justifies it: {change}" for change in unjustified]
    failures += [f"{name}: the score is {one['score']}" for name, one in scores.items() if one["score"] < LEAST_SCORE]
    failures += [f"{name}: {one['not_run']} mutants were not run" for name, one in scores.items() if one["not_run"]]
    told = [f"justified, but does not survive any more: {change}" for change in stale]
    listed = [{**change._asdict(), "why": why.get(change)} for change in survivors]
    document = {"modules": scores, "survivors": listed, "stale": [change._asdict() for change in stale]}
    return {**document, "failures": failures}, [*failures, *told]


def score(found: Found, why: dict[Change, str]) -> dict[str, Any]:
    """`score` is of all mutants, those that are justified among them; `of_killable` leaves these out."""
    equivalent = sum(change in why for change in found.survived)
    killed = found.killed + found.killed_before
    mutants = killed + len(found.survived)
    return {
        "mutants": mutants,
        "killed": killed,
        "killed_before": found.killed_before,
        "timeouts": found.timeouts,
        "survived": len(found.survived),
        "equivalent": equivalent,
        "not_run": found.not_run,
        "score": round(killed / mutants, 3) if mutants else 0.0,
        "of_killable": round(killed / (mutants - equivalent), 3) if mutants > equivalent else 1.0,
    }
