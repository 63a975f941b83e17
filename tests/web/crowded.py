"""gunicorn's worker as the service has it, but that its queue is short, its patience long, and its refusals quicker."""

from orders_api import admission, memcached
from orders_api.web import edge

WAITING_PER_PLACE = 2
HELD_BACK_S = 0.04


class Worker(edge.Worker):
    def init_process(self) -> None:
        admission.WAITING_PER_PLACE, admission.DEADLINE_S = WAITING_PER_PLACE, 5
        admission.HELD_BACK_S = HELD_BACK_S
        memcached.TIMEOUT_S = 5  # as patient.py
        super().init_process()
