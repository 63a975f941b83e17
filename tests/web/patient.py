"""gunicorn's worker as the service has it, but that it waits for a memcached that a busy machine keeps from answering.

After a timeout nothing is remembered for a while, and each process counts for itself, as it should: tests of what is
remembered and of exact counts are not about that.
"""

from orders_api import memcached
from orders_api.web import edge

PATIENCE = {"GUNICORN_CMD_ARGS": "--worker-class tests.web.patient.Worker"}


class Worker(edge.Worker):
    def init_process(self) -> None:
        memcached.TIMEOUT_S = 5
        super().init_process()
