"""Clients that send or read next to nothing: raw sockets that one thread drives, and slowhttptest.

Where a client is by now is the kernel's to say (TCP_INFO): to ask by reading would be to read.
"""

import re
import shutil
import signal
import socket
import statistics
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from orders_api.dev.children import spawn, stop

COUNT = 200  # connections at a time; who is cut comes again at once
RAMP_S = 5  # until all are there, as such tools have it
EVERY_S = 0.5  # a client sends or reads its next bytes
TICK_S = 0.05
ESTABLISHED = b"\x01"  # tcp_states.h
NETWORKS_MSS = 1400  # the loopback's segments are so large that the server's kernel would take a whole answer
LEAST_BUFFER = 4096


class Attack(Protocol):
    """Goes on while its block lasts."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *_: object) -> None: ...
    def wait(self) -> None:
        """Returns when each client should have met its deadline."""

    def report(self) -> dict[str, Any]: ...
    def complaints(self) -> list[str]: ...


@dataclass(frozen=True)
class Mode:
    """What a client does: it opens with some bytes, then sends `drip` and reads `sip` bytes every EVERY_S."""

    name: str
    opening: bytes
    cut_within_s: float
    drip: bytes = b""
    sip: int = 0
    reads: bool = True  # else its kernel takes as little as it can


def modes(token: str) -> list[Mode]:
    """The service's deadlines, with two seconds more for a busy machine."""
    headers = f"Host: slow.example\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n".encode()
    post = b"POST /orders HTTP/1.1\r\nIdempotency-Key: slow\r\nContent-Length: 60000\r\n"
    large = b"GET /orders?limit=100&include=items HTTP/1.1\r\n" + headers + b"\r\n"
    return [
        Mode("slow headers", b"GET /orders HTTP/1.1\r\n" + headers, 5 + 2, drip=b"X-A: b\r\n"),
        Mode("slow body", post + headers + b"\r\n{", 10 + 2, drip=b" "),
        Mode("slow body that nobody wants", post + b"Host: slow.example\r\n\r\n{", 5 + 2, drip=b" "),
        Mode("idle after an answer", b"GET /healthz HTTP/1.1\r\nHost: slow.example\r\n\r\n", 5 + 2),
        Mode("slow read", large, 20 + 2, sip=1, reads=False),
        Mode("never reads", large, 20 + 2, reads=False),
    ]


class SlowClient:
    def __init__(self, port: int, mode: Mode) -> None:
        self._mode = mode
        self._socket = socket.socket()
        if not mode.reads:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LEAST_BUFFER)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, NETWORKS_MSS)
        self._socket.settimeout(5)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(mode.opening)
        self._socket.setblocking(False)
        self.since = self._due = time.monotonic()

    @property
    def is_cut(self) -> bool:
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != ESTABLISHED

    def go_on(self, now: float) -> None:
        if now < self._due + EVERY_S:
            return
        self._due = now
        with suppress(OSError):  # whether it is cut is asked elsewhere
            if self._mode.drip:
                self._socket.send(self._mode.drip)
            if self._mode.sip:
                self._socket.recv(self._mode.sip)

    def close(self) -> None:
        self._socket.close()


class SlowClients:
    """COUNT clients of a mode. `cut_after_s`: how long each lived that the service cut."""

    def __init__(self, port: int, mode: Mode, count: int = COUNT, ramp_s: float = RAMP_S) -> None:
        self._port, self._mode, self._count, self._ramp_s = port, mode, count, ramp_s
        self.name = mode.name
        self.cut_after_s: list[float] = []
        self.unserved = 0  # attempts to connect that failed
        self._clients: list[SlowClient] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on)
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for client in self._clients:
            client.close()

    def wait(self) -> None:
        give_up = self._began + self._ramp_s + self._mode.cut_within_s
        while time.monotonic() < give_up and len(self.cut_after_s) < self._count:
            time.sleep(TICK_S)

    def report(self) -> dict[str, Any]:
        lived = self.cut_after_s or [0.0]
        return {
            "cut": len(self.cut_after_s),
            "cut_after_s": {"median": round(statistics.median(lived), 1), "most": round(max(lived), 1)},
            "unserved": self.unserved,
        }

    def complaints(self) -> list[str]:
        now, within = time.monotonic(), self._mode.cut_within_s
        old = sum(now - client.since > within for client in self._clients)
        late = sum(lived > within for lived in self.cut_after_s)
        if old or late or not self.cut_after_s:
            return [f"{self.name}: {old + late} clients kept their connections for longer than {within:g} s"]
        return []

    def _go_on(self) -> None:
        while not self._over.wait(TICK_S):
            now = time.monotonic()
            for client in [client for client in self._clients if client.is_cut]:
                self.cut_after_s.append(now - client.since)
                client.close()
                self._clients.remove(client)
            for client in self._clients:
                client.go_on(now)
            wanted = self._count * min(1.0, (now - self._began) / self._ramp_s)
            while len(self._clients) < int(wanted) and not self._over.is_set():
                if not self._connected():
                    break

    def _connected(self) -> bool:
        try:
            self._clients.append(SlowClient(self._port, self._mode))
        except OSError:
            self.unserved += 1
            return False
        return True


class SlowHttpTest:
    """slowhttptest, whose own probe says whether the service is available. `flag`: -H headers, -B body, -X read."""

    SECONDS = 25
    PROBE_S = 3  # after which it calls a service unavailable
    URLS = {"-H": "/orders", "-B": "/auth/login", "-X": "/docs/swagger-ui-bundle.js"}

    def __init__(self, port: int, flag: str, home: Path) -> None:
        self.name = f"slowhttptest {flag}"
        # -i, -n: seconds between two pieces; -w, -y: the window; -z: what is read of it.
        bounds = f"-c {COUNT} -r {COUNT // RAMP_S} -i 1 -l {self.SECONDS} -p {self.PROBE_S} -w 256 -y 512 -n 1 -z 16"
        url = f"http://127.0.0.1:{port}{self.URLS[flag]}"
        self._command = ["slowhttptest", flag, *bounds.split(), "-f", "application/json", "-u", url]
        self._log = home / "slowhttptest.log"

    @staticmethod
    def installed() -> bool:
        return shutil.which("slowhttptest") is not None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process: subprocess.Popen[bytes] = spawn(self._command, death_signal=signal.SIGTERM, output=log)
        return self

    def __exit__(self, *_: object) -> None:
        stop(self._process, signal.SIGTERM, 5)

    def wait(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self.SECONDS)

    def report(self) -> dict[str, Any]:
        said = self._said("service available:")
        return {"probes_available": said.count("YES"), "probes_unavailable": said.count("NO")}

    def complaints(self) -> list[str]:
        said = self.report()
        if said["probes_unavailable"] or not said["probes_available"]:
            return [f"{self.name} found the service unavailable {said['probes_unavailable']} times"]
        return []

    def _said(self, what: str) -> list[str]:
        text = self._log.read_text(errors="replace")
        return [line.rpartition(" ")[2].strip() for line in _plain(text).splitlines() if what in line]


def _plain(text: str) -> str:
    """Without the terminal's colours."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
