"""A hash has the processor only while nobody else wants it."""

import ctypes
import os
import platform
import struct
import threading
from pathlib import Path

import pytest

from orders_api.accounts.passwords import Passwords
from orders_api.scheduling import NICENESS, SLICE_NS, give_way

SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
ATTRIBUTES = struct.Struct("IIQiIQQQ")

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="a thread has a priority of its own on Linux only")


def in_a_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def attributes():
    """(niceness, slice in ns) of the calling thread."""
    buffer = ctypes.create_string_buffer(ATTRIBUTES.size)
    assert ctypes.CDLL(None).syscall(SCHED_GETATTR[platform.machine()], 0, buffer, ATTRIBUTES.size, 0) == 0
    _, _, _, niceness, _, runtime, _, _ = ATTRIBUTES.unpack(buffer.raw)
    return niceness, runtime


def nicenesses():
    """Of each thread of this process (proc_pid_stat(5), field 19)."""
    stats = [task.joinpath("stat").read_text() for task in Path("/proc/self/task").iterdir()]
    return [int(stat.rpartition(")")[2].split()[16]) for stat in stats]


def test_who_hashes_gives_way_and_the_others_do_not():
    Passwords(rounds=4).hash("lampshade 9")

    assert NICENESS in nicenesses()
    assert os.getpriority(os.PRIO_PROCESS, 0) < NICENESS


@pytest.mark.skipif(platform.machine() not in SCHED_GETATTR, reason="the number of the system call is not known")
def test_a_thread_that_gives_way_has_a_short_slice():
    def asked():
        give_way()
        return attributes()

    niceness, slice_ns = in_a_thread(asked)

    assert niceness == NICENESS
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 12):
        pytest.skip("before Linux 6.12 a slice can't be chosen")
    assert slice_ns == SLICE_NS


def test_what_has_less_already_does_not_ask_for_more():
    def nicer():
        os.setpriority(os.PRIO_PROCESS, 0, 19)
        give_way()
        return os.getpriority(os.PRIO_PROCESS, 0)

    assert in_a_thread(nicer) == 19
