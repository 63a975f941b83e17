"""Locust, open loop: one user dispatches the plan of perf/traffic.py; requests never wait for one another.

Locust's own users are a closed loop: each waits for its answer before it sends again, so a slow service is asked less
and looks fast. Here its statistics, CSV and HTML get latencies that count from the planned time.
`python -m perf.load` gives the plan, in the environment. Without a CROWD, as in docker-compose.yml, people register
first. Locust's page lets `rate` and `seconds` be chosen, and stays when the plan is done.
"""

import json
import logging
import os
from argparse import ArgumentParser
from pathlib import Path

import gevent
from locust import User, constant, events, task
from locust.exception import StopUser

from perf.newcomers import settle
from perf.operations import Wrong
from perf.traffic import Generator, Phase, Sample, load_crowd

WARM_UP_S = float(os.environ.get("WARM_UP_S", "5"))  # sent alike; only what fails is counted
METHODS = {"create": "POST", "login": "POST", "change": "PATCH", "cancel": "PATCH"}  # the others: GET


class WrongAnswer(Exception):  # noqa: N818
    """Locust groups failures by their text."""


@events.init_command_line_parser.add_listener
def _arguments(parser: ArgumentParser) -> None:
    for name, default, what in (("rate", 100, "Requests a second"), ("seconds", 60, "For how long")):
        parser.add_argument(f"--{name}", type=float, env_var=name.upper(), default=default, help=what)


class Dispatcher(User):
    """The one user that Locust sees."""

    fixed_count = 1
    wait_time = constant(0)

    @task
    def dispatch(self) -> None:
        """Once: Locust would begin again."""
        try:
            self._send()
        except Wrong as wrong:
            logging.getLogger(__name__).error("The people could not settle: %s", wrong)
        runner = self.environment.runner
        gevent.spawn(runner.stop if self.environment.web_ui else runner.quit)  # not from here: it ends this greenlet
        raise StopUser

    def _send(self) -> None:
        samples: list[Sample] = []
        host, port, asked = os.environ["HOST"], int(os.environ["PORT"]), self.environment.parsed_options
        people = load_crowd(os.environ["CROWD"]) if "CROWD" in os.environ else settle(host, port)
        gevent.spawn_later(WARM_UP_S, self.environment.stats.reset_all)
        phase = Phase(asked.rate, WARM_UP_S + asked.seconds)
        Generator(host, port, people).run([phase], lambda sample: self._count(sample, samples))
        if "SAMPLES" in os.environ:
            Path(os.environ["SAMPLES"]).write_text(json.dumps(samples))

    def _count(self, sample: Sample, samples: list[Sample]) -> None:
        if sample.at < WARM_UP_S and sample.outcome == "ok":
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
