"""The acceptance profile, open loop: each request has its time beforehand, and its latency counts from it.

`python -m perf.traffic PLAN SAMPLES` is the generator as a process of its own: it reads a plan and writes the samples,
both as JSON. It needs nothing of the service but its address and a crowd (perf/crowd.py).
"""

import gc
import json
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from perf.operations import Exchange, Operations, Person, Shed, Wrong
from perf.wire import Script, Wire

PRIORITY = -10  # as nice(1) counts
MIX = {  # 70 % reads, 20 % creates, 10 % changes and logins; a login every 15 minutes would be far below 1 %
    "list": 25,
    "list with items": 15,
    "order": 30,
    "create": 20,
    "change": 7,
    "cancel": 2,
    "login": 1,
}


class Sample(NamedTuple):
    """One request. Times are seconds: `at` and `lag` from the plan's beginning and the planned time, `took` from the
    planned time to the last byte. `outcome` is "ok", "shed", or what was wrong."""

    at: float
    operation: str
    lag: float
    took: float
    outcome: str
    size: int


def load_crowd(path: str) -> list[Person]:
    with open(path, "rb") as file:
        return [Person(**person) for person in orjson.loads(file.read())]


@dataclass
class Phase:
    rate: float  # requests a second
    seconds: float


def arrivals(phase: Phase, rng: random.Random, mix: dict[str, int]) -> list[tuple[float, str]]:
    """When (seconds from the phase's beginning) and what, at constant distances."""
    count = round(phase.rate * phase.seconds)
    operations = rng.choices([*mix], [*mix.values()], k=count)
    return [(number / phase.rate, operation) for number, operation in enumerate(operations)]


class Generator:
    """Sends a plan to a service and hands each sample to `report` when its answer is there."""

    def __init__(
        self, host: str, port: int, crowd: list[Person], seed: int = 1, mix: dict[str, int] | None = None
    ) -> None:
        self._mix = mix or MIX
        self.wire = Wire(host, port)
        self._rng = random.Random(seed)  # noqa: S311  (the same traffic each time)
        self._operations = Operations(self._rng)
        self._all = deque(self._rng.sample(crowd, len(crowd)))
        self._with_password = deque(person for person in crowd if person.password)
        self.began = 0.0  # by time.monotonic()
        self.cpu_s: list[float] = []  # of a processor, in each phase

    def run(self, phases: list[Phase], report: Callable[[Sample], None]) -> None:
        """Returns when every answer is there, or has timed out."""
        plans = [arrivals(phase, self._rng, self._mix) for phase in phases]
        go_first()
        gc.collect()
        gc.freeze()  # a collection of everything would stop the generator for tens of milliseconds
        self.began = time.monotonic() + 0.1
        begin = 0.0
        for phase, plan in zip(phases, plans, strict=True):
            before = time.process_time()
            for after, operation in plan:
                self.wire.run(self.began + begin + after)
                self.wire.start(self._one(begin + after, operation, report))
            begin += phase.seconds
            self.wire.run(self.began + begin)
            self.cpu_s.append(time.process_time() - before)
        self.wire.finish()

    def _one(self, at: float, operation: str, report: Callable[[Sample], None]) -> Script:
        lag = time.monotonic() - self.began - at
        size, outcome = 0, "ok"
        try:
            answer = yield from self._act(operation)
            size = len(answer.body)
        except Shed:
            outcome = "shed"
        except Wrong as wrong:
            outcome = str(wrong)
        except TimeoutError:
            outcome = "timeout"
        except (OSError, ValueError, LookupError, TypeError) as error:  # no whole answer, or not of the known shape
            outcome = f"{type(error).__name__}: {error}"
        report(Sample(at, operation, lag, time.monotonic() - self.began - at, outcome, size))

    def _act(self, operation: str) -> Exchange:
        """The next person's turn: in turns, everybody is as busy as everybody else."""
        people = self._with_password if operation == "login" else self._all
        people.rotate(-1)
        script: Exchange = getattr(self._operations, operation.replace(" ", "_"))(people[0])
        return script


def go_first() -> None:
    """Before the service on shared processors, where we may: in earnest the clients have machines of their own."""
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


def main() -> None:
    plan_file, samples_file = sys.argv[1:]
    with open(plan_file) as file:
        plan = json.load(file)
    generator = Generator(plan["host"], plan["port"], load_crowd(plan["crowd"]), plan["seed"], plan["mix"])
    samples: list[Sample] = []
    generator.run([Phase(*phase) for phase in plan["phases"]], samples.append)
    with open(samples_file, "w") as file:
        sent = {"samples": samples, "began": generator.began, "cpu_s": generator.cpu_s}
        json.dump({**sent, "connections": generator.wire.opened, "waited": generator.wire.waited}, file)


if __name__ == "__main__":
    main()
