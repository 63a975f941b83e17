"""A memcached of our own, on a private port of the loopback."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time

from orders_api.dev.children import DevError, spawn, stop, unprivileged

# Below Linux' ephemeral ports (from 32768): an outgoing connection can't take the port between our look and its start.
PORTS = range(20_000, 32_000)
START_S = 5
TRIES = 5


class EmbeddedMemcached:
    """A memcached that lives as long as we do."""

    def __init__(self, megabytes: int = 64) -> None:
        self.megabytes = megabytes
        self.process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def available(path: str | None = None) -> bool:
        return shutil.which("memcached", path=path) is not None

    def start(self, port: int | None = None) -> str:
        """Starts it and returns `host:port`. Another may take the port before it does, so it tries a few, or again."""
        for _ in range(TRIES):
            chosen = port or free_port()
            command = ["memcached", "-l", "127.0.0.1", "-p", str(chosen), "-U", "0", "-m", str(self.megabytes)]
            # As `nobody` from the start, not by -u: a later change of user would clear the death signal.
            self.process = spawn(command, death_signal=signal.SIGTERM, user=unprivileged(), env=dict(os.environ))
            if self._answers(chosen):
                return f"127.0.0.1:{chosen}"
            self.stop()
        raise DevError("memcached does not start: set MEMCACHED_SERVERS to a running one, or install it again.")

    def stop(self) -> None:
        if self.process:
            stop(self.process, signal.SIGTERM, 5)

    def _answers(self, port: int) -> bool:
        give_up = time.monotonic() + START_S
        while time.monotonic() < give_up and self.process and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self.process.poll() is None  # else the answer came from another's
        return False


def free_port() -> int:
    while True:
        port = random.choice(PORTS)  # noqa: S311  (no secret)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
