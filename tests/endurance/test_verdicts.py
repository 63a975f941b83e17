"""`make slow`, `make upgrade` and `make soak` can fail: what they would have to find is shown to them."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from perf import leftovers, soak, upgrade
from perf.slow_clients import Mode, SlowClients
from tests.web.raw import wait_until

BEGAN, SECONDS = 100.0, 100.0


def watched(grows_by: float, name: str = "backend") -> list[soak.Row]:
    """A process of 10 MB, once a second, that has grown evenly by the end; a master and two workers that don't."""
    steady = {pid: process(kind, 50_000) for pid, kind in enumerate(["master", "worker", "worker"])}
    return [
        {"at": BEGAN + at, "processes": {**steady, 7: process(name, round(10_000 * (1 + grows_by * at / SECONDS)))}}
        for at in range(int(SECONDS))
    ]


def process(name: str, own_kb: int) -> soak.Row:
    return {"name": name, "own": own_kb, "pss": own_kb, "rss": own_kb, "files": 9}


@pytest.mark.parametrize(("grows_by", "is_said"), [(0.0, False), (0.04, False), (0.08, True)])
def test_a_process_that_grows_is_named(grows_by: float, is_said: bool):
    said = soak._of_the_processes(soak.growth(watched(grows_by), BEGAN, SECONDS))
    assert [sentence.startswith("backend 7 grew") for sentence in said] == [True] * is_said


def test_memcached_may_grow_to_its_limit():
    grown = soak.growth(watched(0.5, "memcached"), BEGAN, SECONDS)
    assert soak._of_the_processes(grown) == []
    grown = soak.growth(watched(20, "memcached"), BEGAN, SECONDS)
    assert "more than its limit" in soak._of_the_processes(grown)[0]


def test_a_worker_that_was_replaced_is_said():
    rows = watched(0)
    for row in rows[50:]:
        row["processes"][8] = row["processes"].pop(2)
    assert soak._of_the_processes(soak.growth(rows, BEGAN, SECONDS)) == [
        "a worker was replaced: what it held is unknown"
    ]


def test_a_pool_that_changes_after_the_beginning_is_said():
    rows = [{"at": BEGAN + at, "sessions": 16 if at > 5 else 3, **dict.fromkeys(soak.POOL, 0.0)} for at in range(100)]
    assert soak._of_the_pool(rows, BEGAN, SECONDS) == []
    rows[80]["sessions"] = 15
    assert soak._of_the_pool(rows, BEGAN, SECONDS) == ["sessions was not constant: 15, 16"]


def test_files_and_connections_that_are_left_are_said():
    before = {"connections": 0, "descriptors": {"7": 20}}
    assert leftovers.complaints_of(before, before) == []
    left = {"connections": 3, "descriptors": {"7": 21}}
    assert len(leftovers.complaints_of(before, left)) == 2


@pytest.mark.parametrize(("silent_s", "is_said"), [(0.5, False), (1.5, True)])
def test_a_step_in_which_nobody_gets_an_answer_is_said(silent_s: float, is_said: bool):
    step = upgrade.Step("migrate", BEGAN, BEGAN + 5)
    times = [at / 10 for at in range(50) if not 2 <= at / 10 < 2 + silent_s]
    row = upgrade._row(step, [[BEGAN + at, "list", 0.0, 0.01, "ok", 1] for at in times])

    assert row["longest_without_answer_ms"] == pytest.approx(silent_s * 1000 + 100, abs=1)
    assert [sentence.startswith("migrate: nobody got") for sentence in upgrade._complaints(row)] == [True] * is_said


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_slow_clients_say_when_they_were_cut(listener: socket.socket):
    def serve() -> None:
        for _ in range(3):
            client, _ = listener.accept()
            time.sleep(0.2)
            client.close()

    server = threading.Thread(target=serve)
    server.start()
    with SlowClients(listener.getsockname()[1], Mode("slow", b"GET", 2, drip=b"x"), count=1, ramp_s=0.01) as clients:
        clients.wait()
        server.join()
        assert 0.1 < clients.report()["cut_after_s"]["median"] < 1
        assert clients.complaints() == []


def test_slow_clients_say_who_was_not_cut(listener: socket.socket):
    with SlowClients(listener.getsockname()[1], Mode("slow", b"GET", 0.3, drip=b"x"), count=2, ramp_s=0.01) as clients:
        clients.wait()
        said = ["slow: 2 clients kept their connections for longer than 0.3 s"]
        wait_until(lambda: clients.complaints() == said)
