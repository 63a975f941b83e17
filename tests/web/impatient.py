"""gunicorn's worker as the service has it, but that it waits a second where that waits for long."""

from orders_api.web import bodies, edge

DEADLINE_S = 1


class Worker(edge.Worker):
    def init_process(self) -> None:
        bodies.READ_DEADLINE_S = edge.SEND_DEADLINE_S = DEADLINE_S
        super().init_process()
