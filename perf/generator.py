"""Runs perf/traffic.py in a process of its own, so that nothing here slows the plan down."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from orders_api.dev.children import spawn, stop
from perf.crowd import gather
from perf.stack import ROOT, Served, Stack

GRACE_S = 60  # for the answers to what was sent last


class Sent(NamedTuple):
    samples: list[Any]  # perf.traffic.Sample as lists
    connections: int  # that were opened
    waited: int  # requests for which none was free
    began: float  # when the samples' times count from, by time.monotonic()
    cpu_s: list[float]  # of a processor, that the generator took in each phase


class Sending:
    """A plan that is being sent."""

    def __init__(self, generator: subprocess.Popen[bytes], folder: Path, most_s: float) -> None:
        self._generator = generator
        self._folder = folder
        self._most_s = most_s

    @property
    def over(self) -> bool:
        return self._generator.poll() is not None

    @contextmanager
    def burdened(self, share: float) -> Iterator[None]:
        """perf/burden.py beside it."""
        if not share:
            yield
            return
        command = [sys.executable, "-m", "perf.burden", str(self._generator.pid), str(share)]
        burden = spawn(command, death_signal=signal.SIGTERM, cwd=ROOT, env=dict(os.environ))
        try:
            yield
        finally:
            stop(burden, signal.SIGTERM, 5)

    def wait(self) -> Sent:
        """What became of it, when every answer is there."""
        if self._generator.wait(self._most_s):
            raise RuntimeError(f"The generator failed:\n{(self._folder / 'log').read_text(errors='replace')}")
        return Sent(**json.loads((self._folder / "samples").read_text()))


class Crowd:
    """People of one server, for any number of plans. `port`: where they send to, if not to the server itself."""

    def __init__(self, stack: Stack, served: Served, port: int | None = None) -> None:
        self._served = served
        self._stack = stack
        self._port = port or served.port
        self._seed = 0

    def send(
        self, phases: Sequence[tuple[float, float]], mix: Mapping[str, int] | None = None, burden: float = 0.0
    ) -> Sent:
        """Each phase is (requests a second, seconds). `mix`: the operations by weight; None is the acceptance's.

        `burden`: the share of a processor that is taken for the sending, whether or not it is needed for that.
        """
        with self.sending(phases, mix) as plan, plan.burdened(burden):
            return plan.wait()

    @contextmanager
    def sending(self, phases: Sequence[tuple[float, float]], mix: Mapping[str, int] | None = None) -> Iterator[Sending]:
        """`send`, with time for something else meanwhile; what is not over ends with the block."""
        self._seed += 1
        # A new crowd each time: the last plan's orders are known to nobody, and the tokens are fresh.
        crowd = gather(self._stack, self._served, self._seed)
        plan = {"host": "127.0.0.1", "port": self._port, "crowd": str(crowd), "seed": self._seed}
        with tempfile.TemporaryDirectory(prefix="orders-plan-") as home, (Path(home) / "log").open("wb") as log:
            folder = Path(home)
            (folder / "plan").write_text(json.dumps({**plan, "phases": phases, "mix": mix}))
            command = [sys.executable, "-m", "perf.traffic", str(folder / "plan"), str(folder / "samples")]
            generator = spawn(command, death_signal=signal.SIGTERM, cwd=ROOT, env=dict(os.environ), output=log)
            try:
                yield Sending(generator, folder, sum(seconds for _, seconds in phases) + GRACE_S)
            finally:
                stop(generator, signal.SIGTERM, 5)
