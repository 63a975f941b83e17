"""Locust, open loop: one user dispatches the plan of perf/traffic.py; requests never wait for one another.

Locust's own users are a closed loop: each waits for its answer before it sends again, so a slow service is asked less
and looks fast. Here its statistics, CSV and HTML get latencies that count from the planned time.
`python -m perf.load` gives the plan, in the environment.
"""

import json
import os
from pathlib import Path

import gevent
from locust import User, constant, task

from perf.traffic import Generator, Phase, Sample, load_crowd

RATE = float(os.environ.get("RATE", "100"))
SECONDS = float(os.environ.get("SECONDS", "60"))
WARM_UP_S = float(os.environ.get("WARM_UP_S", "5"))  # sent alike, and not counted
METHODS = {"create": "POST", "login": "POST", "change": "PATCH", "cancel": "PATCH"}  # the others: GET


class WrongAnswer(Exception):  # noqa: N818
    """Locust groups failures by their text."""


class Dispatcher(User):
    """The one user that Locust sees."""

    fixed_count = 1
    wait_time = constant(0)

    @task
    def dispatch(self) -> None:
        samples: list[Sample] = []
        generator = Generator(os.environ["HOST"], int(os.environ["PORT"]), load_crowd(os.environ["CROWD"]))
        gevent.spawn_later(WARM_UP_S, self.environment.stats.reset_all)
        generator.run([Phase(RATE, WARM_UP_S + SECONDS)], lambda sample: self._count(sample, samples))
        Path(os.environ["SAMPLES"]).write_text(json.dumps(samples))
        self.environment.runner.quit()

    def _count(self, sample: Sample, samples: list[Sample]) -> None:
        if sample.at < WARM_UP_S:
            return
        samples.append(sample)
        self.environment.events.request.fire(
            request_type=METHODS.get(sample.operation, "GET"),
            name=sample.operation,
            response_time=sample.took * 1000,
            response_length=sample.size,
            exception=None if sample.outcome == "ok" else WrongAnswer(sample.outcome),
            context={},
        )
