"""`make costs`: what watching the service costs it, in CPU time a request, by what is switched on.

The worker's own time (/proc/<pid>/stat), at a rate that leaves it room: at full speed Sentry's queue would be full,
and most traces dropped instead of sent. All variants in turns, three rounds, medians; ROUNDS and REQUESTS change that.
"""

import http.client
import json
import os
import secrets
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from perf.record import circumstances, warn_if_busy, write_result
from perf.stack import Served, Stack, seed_users, tokens

PER_S = 200
NO_LIMIT = "100000000/minute"  # one user sends it all
TICKS_S = os.sysconf("SC_CLK_TCK")
VARIANTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "metrics": {"METRICS_TOKEN": "the-token-of-a-measurement"},
    "Sentry at 0": {"SENTRY_TRACES_RATE": "0"},
    "Sentry at 0.1": {"SENTRY_TRACES_RATE": "0.1"},
    "Sentry at 1": {"SENTRY_TRACES_RATE": "1"},
}
ORDER = json.dumps({"currency": "EUR", "items": [{"sku": "lamp-1", "quantity": 2, "unit_price_cents": 625}]})

Request = Callable[[http.client.HTTPConnection], None]


def main() -> None:
    rounds, requests = int(os.environ.get("ROUNDS", "3")), int(os.environ.get("REQUESTS", "1500"))
    warn_if_busy()
    before = circumstances()
    found: dict[str, dict[str, list[float]]] = {"GET, cached": {}, "POST": {}}
    with Stack() as stack, sentry() as dsn:
        users = seed_users(stack.database_url, 1)
        for number in range(rounds):
            for variant, settings in VARIANTS.items():
                given = {**settings, **({"SENTRY_DSN": dsn} if "SENTRY_TRACES_RATE" in settings else {})}
                served = stack.serve(**given, WEB_CONCURRENCY="1", RATE_LIMIT_IP=NO_LIMIT, RATE_LIMIT_USER=NO_LIMIT)
                for name, request in requests_of(tokens(stack, users)[0], served).items():
                    found[name].setdefault(variant, []).append(cost_us(served, request, requests))
                served.stop()
            print(f"round {number + 1} of {rounds}", flush=True)
    medians = {
        name: {variant: round(statistics.median(us)) for variant, us in by.items()} for name, by in found.items()
    }
    print(table(medians))
    how = {"command": "make costs", "rounds": rounds, "requests": requests, "per_s": PER_S}
    write_result("costs", {**before, **how, "us_a_request": medians, "all": found})


def requests_of(token: str, served: Served) -> dict[str, Request]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def place(connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/orders", ORDER, {**headers, "Idempotency-Key": str(uuid.uuid4())})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201, answer.status

    def read(connection: http.client.HTTPConnection) -> None:
        trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        connection.request("GET", "/orders?limit=20", headers={**headers, "traceparent": trace})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status

    return {"GET, cached": read, "POST": place}


def cost_us(served: Served, request: Request, count: int) -> float:
    """Microseconds of the workers' CPU time a request."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    for _ in range(100):
        request(connection)
    before, began = cpu_s(served), time.monotonic()
    for n in range(count):
        request(connection)
        time.sleep(max(0.0, began + n / PER_S - time.monotonic()))
    connection.close()
    return (cpu_s(served) - before) / count * 1e6


def cpu_s(served: Served) -> float:
    ticks = 0
    for pid in served.worker_pids():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_S


@contextmanager
def sentry() -> Iterator[str]:
    """The DSN of one that takes everything."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """The service stops in the middle of things, after each variant."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://0123456789abcdef@127.0.0.1:{server.server_port}/1"
    finally:
        server.shutdown()
        thread.join()


def table(medians: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'CPU µs a request':18}" + "".join(f"{variant:>16}" for variant in VARIANTS)]
    for name, by in medians.items():
        base = by["nothing"]
        cells = [f"{us} ({us - base:+d})" if variant != "nothing" else str(us) for variant, us in by.items()]
        lines.append(f"{name:18}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
