"""`make mutants`: changes one thing at a time in the code that must not be wrong, and sees whether a test notices.

A copy of the tree is changed, never the tree itself. ONLY=states,cursors takes some of the modules; MINUTES bounds the
time; RESUME=1 does not try again what the tests noticed before, on this machine: for whoever adds one, or was stopped.
Fails when a mutant survives that perf/mutants/equivalent.toml does not justify, when a module's score is under 90 %, or
when there was no time for all.
"""

import difflib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perf.mutants.operators import mutants_of
from perf.mutants.trial import Outcome, finish, trial
from perf.mutants.verdicts import Change, judged
from perf.record import ROOT, circumstances, write_result
from tests.conftest import Databases, a_postgres

HERE = Path(__file__).parent
KILLED = ROOT / ".local" / "mutants-killed"
# A mutant that makes the tests wait is as good as noticed.
PATIENCE, LEAST_S = 2, 15


@dataclass
class Found:
    """What became of one module's mutants."""

    killed: int = 0
    killed_before: int = 0
    timeouts: int = 0
    not_run: int = 0
    survived: list[Change] = field(default_factory=list)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy goes
    ends = time.monotonic() + 60 * float(os.environ.get("MINUTES", "60"))
    only = os.environ.get("ONLY")
    modules = tomllib.loads((HERE / "modules.toml").read_text())["module"]
    chosen = [module for module in modules if not only or module["name"] in only.split(",")]
    before = circumstances()
    found = {}
    with working_copy() as copy:
        for module in chosen:
            with a_postgres() as server:
                server.start()
                Databases(server)
                os.environ["TEST_POSTGRES"] = str(server.data_dir.parent)
                found[module["path"]] = examine(module, copy, ends)
    equivalent = tomllib.loads((HERE / "equivalent.toml").read_text()).get("equivalent", [])
    document, complaints = judged(chosen, found, equivalent)
    path = write_result("mutants", {**before, "command": "make mutants", **document})
    print(*complaints, path.relative_to(ROOT), sep="\n")
    return 1 if document["failures"] else 0


@contextmanager
def working_copy() -> Iterator[Path]:
    """The files of the tree as they are now, committed or not, in a temporary folder."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    with tempfile.TemporaryDirectory(prefix="orders-mutants-") as folder:
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, Path(folder) / name)
        yield Path(folder)


def examine(module: dict[str, Any], copy: Path, ends: float) -> Found:
    """Runs the module's tests on each of its mutants, in the copy, until all are done or the time is up."""
    path = copy / module["path"]
    source = path.read_text()
    known, mutants = killed_before(), list(mutants_of(source))
    pending = [mutant for mutant in mutants if digest(mutant) not in known]
    found = Found(killed_before=len(mutants) - len(pending), not_run=len(pending))
    if time.monotonic() > ends:
        return found
    began = time.monotonic()
    if trial(copy, module["tests"], 600) != Outcome.SURVIVED:
        raise SystemExit(f"Without a mutant they fail: {shlex.join(module['tests'])}")
    timeout_s = LEAST_S + PATIENCE * (time.monotonic() - began)
    for mutant in pending:
        if time.monotonic() > ends:
            break
        path.write_text(mutant)
        record(found, mutant, difference(module["path"], source, mutant), trial(copy, module["tests"], timeout_s))
    finish()
    path.write_text(source)
    print(f"{module['name']}: {len(mutants)} mutants, {len(found.survived)} survived, {time.monotonic() - began:.0f} s")
    return found


def record(found: Found, mutant: str, change: Change, outcome: Outcome) -> None:
    found.not_run -= 1
    if outcome == Outcome.SURVIVED:
        found.survived.append(change)
        print(change)
        return
    found.killed += 1
    found.timeouts += outcome == Outcome.TIMEOUT
    KILLED.parent.mkdir(exist_ok=True)
    with KILLED.open("a") as file:
        print(digest(mutant), file=file)


def killed_before() -> set[str]:
    """The digests of the mutants that need not be tried again."""
    return set(KILLED.read_text().split()) if os.environ.get("RESUME") == "1" and KILLED.exists() else set()


def digest(mutant: str) -> str:
    return hashlib.sha256(mutant.encode()).hexdigest()


def difference(path: str, source: str, mutant: str) -> Change:
    """The lines that differ, and the one before them: the same line may stand in a module twice."""
    before, after = source.splitlines(), mutant.splitlines()
    changes = [code for code in difflib.SequenceMatcher(None, before, after, False).get_opcodes() if code[0] != "equal"]
    above = before[: changes[0][1]]
    was = [line for _, start, end, _, _ in changes for line in before[start:end]]
    becomes = [line for _, _, _, start, end in changes for line in after[start:end]]
    return Change(path, told(above).rpartition("\n")[2], told(was), told(becomes))


def told(lines: list[str]) -> str:
    return "\n".join(line.strip() for line in lines if line.strip())


if __name__ == "__main__":
    sys.exit(main())
