"""Many clients in a few processes, and what they wrote down: `python -m tests.proofs.crowd PLAN HISTORY` is one."""

import base64
import faulthandler
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from orders_api.dev.children import spawn
from perf.stack import ROOT
from tests.proofs.customer import Customer, Errand, Hours, User
from tests.proofs.history import Attempt, Recorder, attempts_in
from tests.web.raw import wait_until

PROCESSES = 3
LEAVE_S = 10
START_S = 20


class Crowd:
    """Each user has clients in more than one process, as somebody with a telephone and a desk."""

    def __init__(self, errand: Errand, users: Sequence[User], clients: int, home: Path) -> None:
        self.errand, self.users, self.home = errand, list(users), home
        self.clients = clients
        self.histories = [home / f"history-{number}.jsonl" for number in range(PROCESSES)]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for number, history in enumerate(self.histories):
            names = range(number, self.clients, PROCESSES)
            customers = [{"name": f"c{name}", "user": (name // 2 + number) % len(self.users)} for name in names]
            plan = {"errand": _plain(self.errand), "users": [asdict(user) for user in self.users]}
            file = self.home / f"plan-{number}.json"
            file.write_bytes(orjson.dumps({**plan, "customers": customers}))
            command = [sys.executable, "-m", "tests.proofs.crowd", str(file), str(history)]
            self.processes.append(spawn(command, death_signal=signal.SIGTERM, cwd=ROOT))
        # Before each has written something, a fault would meet nobody.
        wait_until(lambda: all(one.exists() and one.stat().st_size for one in self.histories), START_S)

    def go_home(self) -> None:
        """Tells all clients to begin nothing new, and waits until they are done."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                code = process.wait(self.errand.drain_s + LEAVE_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGUSR1)
                time.sleep(1)
                raise RuntimeError("a client process hangs: see its stacks above") from None
            if code not in (0, -signal.SIGTERM):  # by the signal: its clients had given up, and it was leaving
                raise RuntimeError("a client process failed: see its traceback above")

    def stop(self) -> None:
        """Ends them wherever they are."""
        for process in self.processes:
            process.kill()
            process.wait()

    def audit(self) -> None:
        """At rest, each user's orders and events are read once more, all of them."""
        recorder = Recorder(self.histories[0])
        for number, user in enumerate(self.users):
            Customer(f"auditor-{number}", user, [], self.errand, Hours(0), recorder).audit()

    def attempts(self) -> list[Attempt]:
        return attempts_in(self.histories)


def main(plan_path: str, history: str) -> None:
    plan = orjson.loads(Path(plan_path).read_bytes())
    secret = base64.b64decode(plan["errand"].pop("secret"))
    errand, recorder = Errand(**plan["errand"], secret=secret), Recorder(Path(history))
    hours = Hours(errand.drain_s)
    signal.signal(signal.SIGTERM, lambda *_: hours.close())
    faulthandler.register(signal.SIGUSR1)
    users = [User(**user) for user in plan["users"]]
    threads = []
    for customer in plan["customers"]:
        user = users[customer["user"]]
        others = [other for other in users if other is not user]
        client = Customer(customer["name"], user, others, errand, hours, recorder)
        threads.append(threading.Thread(target=client.run))
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)  # a signal that comes just before an endless wait would be heeded behind it


def _plain(errand: Errand) -> dict[str, object]:
    return {**asdict(errand), "secret": base64.b64encode(errand.secret).decode()}


if __name__ == "__main__":
    main(*sys.argv[1:])
