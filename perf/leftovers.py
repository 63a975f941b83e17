"""What clients leave behind in a service when they have gone: nothing."""

import time
from typing import Any

from perf.processes import connections, descriptors
from perf.stack import Served

SETTLE_S = 15  # longer than any idle connection lives


def held(served: Served) -> dict[str, Any]:
    """Connections of clients, and the file descriptors of each worker."""
    files = {str(pid): descriptors(pid) for pid in served.worker_pids()}
    return {"connections": connections(served.port), "descriptors": files}


def settled(served: Served, before: dict[str, Any]) -> dict[str, Any]:
    """What is held when nobody is there any more, or after SETTLE_S."""
    give_up = time.monotonic() + SETTLE_S
    while complaints_of(before, held(served)) and time.monotonic() < give_up:
        time.sleep(0.1)
    return held(served)


def complaints_of(before: dict[str, Any], left: dict[str, Any]) -> list[str]:
    said = []
    if left["connections"]:
        said.append(f"{left['connections']} connections are left {SETTLE_S} s after the last client")
    for pid, count in left["descriptors"].items():
        if count > before["descriptors"].get(pid, 0):
            said.append(f"worker {pid} holds {count} files, and held {before['descriptors'].get(pid, 0)} before")
    return said
