"""Runs perf/traffic.py in a process of its own, so that nothing here slows the plan down."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
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


class Crowd:
    """People of one server, for any number of plans."""

    def __init__(self, stack: Stack, served: Served) -> None:
        self._served = served
        self._stack = stack
        self._seed = 0

    def send(self, phases: Sequence[tuple[float, float]], mix: Mapping[str, int] | None = None) -> Sent:
        """Each phase is (requests a second, seconds). `mix`: the operations by weight; None is the acceptance's."""
        self._seed += 1
        # A new crowd each time: the last plan's orders are known to nobody, and the tokens are fresh.
        crowd = gather(self._stack, self._served, self._seed)
        plan = {"host": "127.0.0.1", "port": self._served.port, "crowd": str(crowd), "seed": self._seed}
        with tempfile.TemporaryDirectory(prefix="orders-plan-") as folder:
            return self._run({**plan, "phases": phases, "mix": mix}, Path(folder))

    def _run(self, plan: dict[str, Any], folder: Path) -> Sent:
        (folder / "plan").write_text(json.dumps(plan))
        command = [sys.executable, "-m", "perf.traffic", str(folder / "plan"), str(folder / "samples")]
        with (folder / "log").open("wb") as log:
            generator = spawn(command, death_signal=signal.SIGTERM, cwd=ROOT, env=dict(os.environ), output=log)
            try:
                code = generator.wait(sum(seconds for _, seconds in plan["phases"]) + GRACE_S)
            finally:
                stop(generator, signal.SIGTERM, 5)
        if code:
            raise RuntimeError(f"The generator failed:\n{(folder / 'log').read_text(errors='replace')}")
        return Sent(**json.loads((folder / "samples").read_text()))
