"""Whether a module's tests notice a mutant. They run in a fork of a process that knows all libraries already, and the
next trial begins while the last one's servers still stop: that halves the time of a run.
"""

import os
import select
import signal
import sys
from enum import Enum
from pathlib import Path

import pytest

import tests.conftest  # noqa: F401  (for the libraries that come with it)

OURS = ("orders_api", "perf", "tests")  # imported anew, from the copy, by each trial
NOTICED, PASSED = b"-", b"+"
ENDING = 5  # trials whose servers may still be stopping: one with an idle connection takes 5 s
_ending: list[int] = []


class Outcome(Enum):
    SURVIVED = "survived"
    KILLED = "killed"
    TIMEOUT = "timeout"


def trial(copy: Path, tests: list[str], timeout_s: float) -> Outcome:
    """Runs the tests of a copy of the tree until the first fails."""
    finish(but=ENDING)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(copy, tests, writer)
    os.close(writer)
    heard = select.select([reader], [], [], timeout_s)[0]
    verdict = os.read(reader, 1) if heard else None
    os.close(reader)
    if verdict is None:
        os.killpg(child, signal.SIGKILL)
    _ending.append(child)
    return Outcome.TIMEOUT if verdict is None else Outcome.SURVIVED if verdict == PASSED else Outcome.KILLED


def finish(but: int = 0) -> None:
    """Waits for the trials that were decided and still stop their servers."""
    while len(_ending) > but:
        os.waitpid(_ending.pop(0), 0)


class _Tell:
    """Tells of the first failure at once."""

    def __init__(self, writer: int) -> None:
        self.writer = writer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self.writer, NOTICED)


def _run(copy: Path, tests: list[str], writer: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        os.setsid()
        os.chdir(copy)
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        sys.dont_write_bytecode = True  # a mutant of the same second and size must not find its predecessor's
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        sys.path[:0] = [str(copy)]
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
        code = pytest.main(["-x", "-p", "no:cacheprovider", *tests], plugins=[_Tell(writer)])
        os.write(writer, PASSED if code == 0 else NOTICED)
    finally:
        os._exit(0)
