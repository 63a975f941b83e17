"""`conf/container-test`: what only running containers show, of the images and of docker-compose.yml as they stand."""

import http.client
import json
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from engine import Engine, Skip, engine

PROJECT = "orders-container-test"
UID = "10001"
GRACEFUL_S = 25  # gunicorn's graceful_timeout; Docker kills after 30
HEALTHY_S = 60
CREDENTIALS = {"email": f"{secrets.token_hex(6)}@example.com", "password": secrets.token_urlsafe(15)}


def main() -> int:
    names = ("PORT", "PROMETHEUS_PORT", "GRAFANA_PORT", "LOCUST_PORT")
    ports = {name: str(_free_port()) for name in names}
    settings = {**ports, "RELEASE": "container-test", "RATE": "20", "SECONDS": "5"}
    try:
        with engine(PROJECT, settings) as one:
            return _run(Stack(one, ports))
    except Skip as why:
        print(f"Skipped: {why}.")
        return 0


def _run(stack: "Stack") -> int:
    failed = 0
    try:
        for check in CHECKS:
            began = time.monotonic()
            try:
                said = check(stack) or ""
            except Exception as error:  # the other checks are worth running
                said = f"{type(error).__name__}: {error}"
                failed += 1
                print("FAILED ", end="")
            name = check.__name__.replace("_", " ")
            print(f"{name} ({time.monotonic() - began:.1f} s)" + (f": {said}" if said else ""), flush=True)
        if failed:
            print(stack.engine.compose("logs", "--no-color", "--tail=40", check=False))
    finally:
        stack.engine.compose("--profile", "observe", "--profile", "load", "down", "--volumes", "--timeout=30")
    print(f"{failed} of {len(CHECKS)} failed." if failed else f"All {len(CHECKS)} passed.")
    return bool(failed)


class Stack:
    """The running containers, from outside."""

    def __init__(self, docker_engine: Engine, ports: dict[str, str]) -> None:
        self.engine = docker_engine
        self.ports = ports
        self.token = ""

    def container(self, service: str) -> str:
        ids = self.engine.compose("ps", "-a", "-q", service).split()
        assert len(ids) == 1, f"{service} has {len(ids)} containers"
        return ids[0]

    def inspect(self, service: str) -> Any:
        return json.loads(self.engine.docker("inspect", self.container(service)))[0]

    def inside(self, service: str, *command: str) -> str:
        """What a command says in the container; its failure is a part of that."""
        return self.engine.docker("exec", self.container(service), *command, check=False)

    def call(self, method: str, path: str, body: Any = None, *, port: str = "PORT", **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", int(self.ports[port]), timeout=15)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        data = body if isinstance(body, str) or body is None else json.dumps(body)
        connection.request(method, path, data, {"Authorization": f"Bearer {self.token}", **sent})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text[:1] in (b"{", b"[") else text.decode()

    def log_in(self) -> None:
        status, pair = self.call("POST", "/auth/login", CREDENTIALS)
        assert status == 200, pair
        self.token = pair["access_token"]

    def wait_until_healthy(self) -> None:
        until(
            lambda: self.inspect("api")["State"]["Health"]["Status"] == "healthy", HEALTHY_S, "the API is not healthy"
        )


def until(is_so: Callable[[], Any], seconds: float, otherwise: str) -> None:
    give_up = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < give_up, f"{otherwise} after {seconds} s"
        time.sleep(0.2)


def the_images_are_built(stack: Stack) -> str:
    sizes = []
    for tag, target in (("orders-api", "service"), ("orders-api-load", "load")):
        stack.engine.build(tag, "--target", target, "--build-arg", "RELEASE=container-test")
        size = int(stack.engine.docker("image", "inspect", "--format", "{{.Size}}", tag))
        sizes.append(f"{tag} {size // 10**6} MB")
    return ", ".join(sizes)


def the_image_holds_what_it_needs_and_no_more(stack: Stack) -> str:
    def say(command: str) -> str:
        return stack.engine.docker("run", "--rm", "--network=none", "orders-api", "sh", "-c", command, check=False)

    # One at a time: a shell's `command -v` looks at its first word alone.
    assert say("for name in cc gcc g++ c++ clang make ld as; do command -v $name; done") == "", "there is a compiler"
    there = say("ls -A /app").split()
    assert set(there) == {"conf", "migrations", "orders_api", "orders_api.egg-info", "pyproject.toml", "setup.cfg"}, (
        there
    )
    assert say("find / -xdev -name '.env*' -o -xdev -name .git -o -xdev -name .local 2>/dev/null") == ""
    assert say("find / -xdev -user orders 2>/dev/null") == "", "the service could change files of its image"
    return say("echo $(python --version), release $RELEASE")


def everything_comes_up_with_no_file_to_edit(stack: Stack) -> str:
    stack.engine.compose("up", "-d")
    stack.wait_until_healthy()
    for service in ("secrets", "migrate"):
        state = stack.inspect(service)["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 0), state
    for service in ("database", "cache", "api", "worker"):
        assert stack.inspect(service)["State"]["Running"], service
    return stack.engine.compose("logs", "--no-color", "migrate").splitlines()[-1].partition("|")[2].strip()


def it_is_ready_and_takes_orders(stack: Stack) -> str:
    assert stack.call("GET", "/healthz") == (200, {"status": "ok"})
    status, ready = stack.call("GET", "/readyz")
    assert (status, ready["status"], ready["checks"]["cache"]) == (200, "ok", "ok"), ready
    assert stack.call("GET", "/docs")[0] == 200
    status, _ = stack.call("POST", "/auth/register", CREDENTIALS)
    assert status == 201
    stack.log_in()
    status, order = stack.call("POST", "/orders", {"currency": "EUR", "total_cents": 1250}, Idempotency_Key="c-1")
    assert status == 201, order
    return f"order {order['id']}"


def nobody_is_root_and_nothing_can_be_written(stack: Stack) -> str:
    for service in ("api", "worker", "database", "cache"):
        status = stack.inside(service, "grep", "-E", "^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):", "/proc/1/status")
        words = {name: rest.split() for name, _, rest in (line.partition(":") for line in status.splitlines())}
        assert "0" not in words["Uid"], f"{service} is root"
        assert int(words["CapEff"][0], 16) == int(words["CapBnd"][0], 16) == 0, f"{service} has capabilities"
        assert words["NoNewPrivs"] == ["1"], service
        assert "Read-only file system" in stack.inside(service, "touch", "/x"), f"{service} can write"
        limits = stack.inspect(service)["HostConfig"]
        assert limits["Memory"] > 0, f"{service} may take all the memory"
        assert limits["PidsLimit"] > 0, f"{service} may take all the processes"
    assert stack.inside("api", "id", "-u") == UID
    return f"the API's uid is {UID}"


def only_the_api_is_published_and_on_loopback(stack: Stack) -> str:
    for service in ("worker", "database", "cache"):
        assert not any(stack.inspect(service)["NetworkSettings"]["Ports"].values()), service
    bindings = stack.inspect("api")["NetworkSettings"]["Ports"]["8000/tcp"]
    assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"], bindings
    networks = {name: stack.inspect(name)["NetworkSettings"]["Networks"].keys() for name in ("database", "cache")}
    assert set().union(*networks.values()) == {f"{PROJECT}_data"}, networks
    assert stack.engine.docker("network", "inspect", "--format", "{{.Internal}}", f"{PROJECT}_data") == "true"
    return f"127.0.0.1:{bindings[0]['HostPort']}; database and cache are on an internal network alone"


def no_secret_is_in_what_docker_inspect_shows(stack: Stack) -> str:
    lines = stack.inside("api", "cat", "/secrets/settings.env").splitlines()
    made = [line.partition("=")[2] for line in lines]
    shown = json.dumps([stack.inspect(service) for service in ("secrets", "database", "migrate", "api", "worker")])
    logged = stack.engine.compose("logs", "--no-color")
    assert len(made) == 4
    assert not any(secret in shown + logged for secret in made)
    return ", ".join(line.partition("=")[0] for line in lines)


def the_health_check_tells_a_dead_service(stack: Stack) -> None:
    stack.engine.compose("pause", "api")
    # A paused container runs no check: ask from beside it, in the same network namespace.
    beside = [
        "run",
        "--rm",
        f"--network=container:{stack.container('api')}",
        "orders-api",
        "python",
        "conf/healthcheck.py",
    ]
    said = stack.engine.docker(*beside, check=False)
    stack.engine.compose("unpause", "api")
    assert "does not answer" in said, said
    assert stack.engine.docker(*beside) == ""


def a_request_in_flight_is_finished_after_sigterm(stack: Stack) -> str:
    body = json.dumps(CREDENTIALS).encode()
    head = (
        f"POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", int(stack.ports["PORT"])), timeout=15) as client:
        client.sendall(head.encode() + body[:10])
        time.sleep(0.5)  # now it waits for the rest
        began = time.monotonic()
        stack.engine.docker("kill", "--signal=TERM", stack.container("api"))
        time.sleep(1.5)
        assert stack.inspect("api")["State"]["Running"], "it left in the middle of a request"
        client.sendall(body[10:])
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    until(lambda: not stack.inspect("api")["State"]["Running"], GRACEFUL_S, "gunicorn is still there")
    assert stack.inspect("api")["State"]["ExitCode"] == 0
    return f"200, and gunicorn ended {time.monotonic() - began:.1f} s after the signal with code 0"


def the_worker_ends_at_sigterm(stack: Stack) -> str:
    began = time.monotonic()
    stack.engine.docker("kill", "--signal=TERM", stack.container("worker"))
    until(lambda: not stack.inspect("worker")["State"]["Running"], GRACEFUL_S, "the worker is still there")
    assert stack.inspect("worker")["State"]["ExitCode"] == 0
    return f"{time.monotonic() - began:.1f} s, code 0"


def a_second_start_has_the_same_secrets_and_data(stack: Stack) -> str:
    old, token = stack.inside("database", "cat", "/secrets/password"), stack.token
    stack.engine.compose("down", "--timeout=30")
    stack.engine.compose("up", "-d")
    stack.wait_until_healthy()
    assert stack.inside("database", "cat", "/secrets/password") == old
    assert stack.call("GET", "/auth/me", Authorization=f"Bearer {token}")[0] == 200, (
        "the old token is not good any more"
    )
    _, page = stack.call("GET", "/orders")
    return f"{len(page['data'])} order, and the token from before is good"


def prometheus_asks_the_api_with_its_token(stack: Stack) -> str:
    stack.engine.compose("--profile", "observe", "up", "-d", "prometheus")

    def target() -> Any:
        try:
            answer = stack.call("GET", "/api/v1/targets", port="PROMETHEUS_PORT")[1]
        except OSError:
            return {"health": "unknown"}
        return next(iter(answer["data"]["activeTargets"]), {"health": "unknown"})

    until(lambda: target()["health"] != "unknown", 60, "Prometheus has not asked")
    seen = target()
    assert seen["health"] == "up", seen["lastError"]
    return f"{seen['scrapeUrl']} is up"


def locust_runs_the_acceptance_profile(stack: Stack) -> str:
    stack.engine.compose("--profile", "load", "up", "-d", "load")

    def asked(method: str, path: str, body: Any = None) -> Any:
        try:
            form = "application/x-www-form-urlencoded"
            return stack.call(method, path, body, port="LOCUST_PORT", Content_Type=form)[1]
        except (OSError, http.client.HTTPException):
            return None

    plan = "user_count=1&spawn_rate=1&rate=20&seconds=5"
    until(lambda: (asked("POST", "/swarm", plan) or {}).get("success"), 30, "Locust does not begin")
    until(lambda: (asked("GET", "/stats/requests") or {}).get("state") == "stopped", 90, "Locust does not end")
    total = asked("GET", "/stats/requests")["stats"][-1]
    assert (total["num_requests"], total["num_failures"]) == (100, 0), total
    return f"100 requests, none failed, median {total['median_response_time']} ms"


CHECKS: list[Callable[[Stack], str | None]] = [
    the_images_are_built,
    the_image_holds_what_it_needs_and_no_more,
    everything_comes_up_with_no_file_to_edit,
    it_is_ready_and_takes_orders,
    nobody_is_root_and_nothing_can_be_written,
    only_the_api_is_published_and_on_loopback,
    no_secret_is_in_what_docker_inspect_shows,
    the_health_check_tells_a_dead_service,
    a_request_in_flight_is_finished_after_sigterm,
    the_worker_ends_at_sigterm,
    a_second_start_has_the_same_secrets_and_data,
    prometheus_asks_the_api_with_its_token,
    locust_runs_the_acceptance_profile,
]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the engine ends with us
    sys.exit(main())
