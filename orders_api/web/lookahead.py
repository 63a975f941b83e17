"""One round trip: what the middleware below will want to know of memcached is asked for all at once."""

from typing import Protocol

import falcon

from orders_api.memcached import Batch, Memcached
from orders_api.web.resources import Resource


class Step(Protocol):
    def look_ahead(self, req: falcon.Request, resource: Resource, batch: Batch) -> None:
        """Puts questions into the batch, and their replies into the context. Decides nothing yet."""


class LookAhead:
    """Runs the steps' questions as one batch; their answers are judged later, each in its turn."""

    def __init__(self, memcached: Memcached, *steps: Step) -> None:
        self.memcached = memcached
        self.steps = steps

    def ask(self, req: falcon.Request, resource: Resource) -> None:
        batch = self.memcached.batch()
        for step in self.steps:
            step.look_ahead(req, resource, batch)
        batch.run()
