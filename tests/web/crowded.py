"""gunicorn's worker as the service has it, but that its queue is short and its patience long."""

from orders_api import admission
from orders_api.web import edge

WAITING_PER_PLACE = 2


class Worker(edge.Worker):
    def init_process(self) -> None:
        admission.WAITING_PER_PLACE, admission.DEADLINE_S = WAITING_PER_PLACE, 5
        super().init_process()
