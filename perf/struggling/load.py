"""Sends a profile in an open loop: each request at its own time, whether or not those before it are answered.

A schedule is drawn from the profile's seed alone, so both sides of a comparison get the very same requests. Latency
counts from the intended time: a generator that comes late, or a server that makes it wait, can't hide it.
"""

import base64
import hashlib
import hmac
import http.client
import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PROFILE = json.loads(Path(__file__).with_name("profile.json").read_text())
TIMEOUT_S = 30
Answer = tuple[int, dict[str, str], bytes]  # status, headers in lower case, body
NO_ANSWER = 0  # in place of a status; counted with the 5xx


class Arrival(NamedTuple):
    at: float  # seconds after the start
    operation: str
    order: int  # the number of an order, in `order` and `payment`
    status: str  # "" asks for all
    page: int
    items: bool
    bust: int  # 0: none


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Sample(NamedTuple):
    at: float
    operation: str
    lag: float  # seconds: how late it was sent
    took: float  # seconds, from the intended time to the last byte of the answer
    status: int
    cache: str  # hit, miss or nothing


def schedule(rate: float, seconds: float | None = None) -> list[Arrival]:
    """`rate`: the constant part, in requests a second. The bursts are lists, all in the same moment."""
    rng = random.Random(PROFILE["seed"])  # noqa: S311  (the same requests each time)
    seconds = seconds or PROFILE["warm_up_s"] + PROFILE["measured_s"]
    steady = [_drawn(rng, n / rate, _one(rng, PROFILE["mix"])) for n in range(int(rate * seconds))]
    every, size = PROFILE["burst"]["every_s"], round(PROFILE["burst"]["share"] * rate)
    bursts = [_drawn(rng, every * (n + 0.5), "list") for n in range(int(seconds / every)) for _ in range(size)]
    return sorted(steady + bursts)


def digest(arrivals: Sequence[Arrival]) -> str:
    return hashlib.sha256(json.dumps(arrivals).encode()).hexdigest()[:16]


def _drawn(rng: random.Random, at: float, operation: str) -> Arrival:
    bust = rng.randrange(1, 1 << 40) if rng.random() < PROFILE["cache_busting"] else 0
    popular = int(PROFILE["popular_orders"] * rng.random() ** 2)  # the first few are asked for most
    number = PROFILE["orders"] - popular if operation == "order" else rng.randrange(1, PROFILE["orders"])
    page = int(_one(rng, PROFILE["pages"]))
    return Arrival(round(at, 4), operation, number, _one(rng, PROFILE["statuses"]), page, _likely(rng), bust)


def _likely(rng: random.Random) -> bool:
    return rng.random() < PROFILE["include_items"]


def _one(rng: random.Random, weights: Mapping[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def send(port: int, arrivals: Sequence[Arrival], request_of: Callable[[Arrival], Request]) -> list[Sample]:
    """Sends each at its time, from a thread and over a connection of its own; returns when all are answered."""
    samples: list[Sample] = []
    threads: list[threading.Thread] = []
    begin = time.monotonic()

    def one(arrival: Arrival) -> None:
        lag = time.monotonic() - begin - arrival.at
        status, headers, _ = ask(port, request_of(arrival))
        took = time.monotonic() - begin - arrival.at
        cache = headers.get("x-cache") or _timed(headers.get("server-timing", ""))
        samples.append(Sample(arrival.at, arrival.operation, lag, took, status, cache))

    for arrival in arrivals:
        time.sleep(max(0.0, begin + arrival.at - time.monotonic()))
        threads.append(threading.Thread(target=one, args=(arrival,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return sorted(samples)


def _timed(server_timing: str) -> str:
    """What orders-api's cache said."""
    found = re.search(r'cache;desc="(\w+)"', server_timing)
    return found[1] if found else ""


def ask(port: int, request: Request) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(request.method, request.path, request.body or None, request.headers)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body
    except (OSError, http.client.HTTPException):
        return NO_ANSWER, {}, b""
    finally:
        connection.close()


def at_once(port: int, requests: Sequence[Request], threads: int) -> list[Answer]:
    """A closed loop of `threads`, which begin together; the answers in the order of the requests."""
    answers: list[Any] = [None] * len(requests)
    numbers = iter(range(len(requests)))
    together, turn = threading.Barrier(threads), threading.Lock()

    def work() -> None:
        together.wait()
        while True:
            with turn:
                number = next(numbers, None)
            if number is None:
                return
            answers[number] = ask(port, requests[number])

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return answers


def signed(secret: str, body: bytes, webhook_id: str, at: int | None = None) -> dict[str, str]:
    """The headers of Standard Webhooks, as the payment provider sends them: it always did."""
    stamp = str(int(time.time()) if at is None else at)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{webhook_id}.{stamp}.".encode() + body, "sha256")
    signature = f"v1,{base64.b64encode(mac).decode()}"
    return {"webhook-id": webhook_id, "webhook-timestamp": stamp, "webhook-signature": signature}
