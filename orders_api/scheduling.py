"""A thread that comes after all others of the machine.

Before Linux 6.12 a thread can't choose its slice: there it is the niceness alone, and on other systems nothing.
"""

import ctypes
import os
import platform
import struct
import sys

NICENESS = 15  # as nice(1) counts: how much it gets while others want the processor too
# How long it keeps the processor when another wakes that wants it: the least that Linux takes. Else it ends a slice of
# some milliseconds first, whatever its niceness, each time that the other has waited for a moment (EEVDF, Linux 6.6).
SLICE_NS = 100_000
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # by machine: the C library has no name for it before glibc 2.41
KEEP_POLICY = 0x08  # SCHED_FLAG_KEEP_POLICY
_ATTRIBUTES = struct.Struct("IIQiIQQQ")  # struct sched_attr: size, policy, flags, nice, priority, runtime, …


def give_way() -> None:
    """Puts the calling thread behind whoever else wants its processor. It never asks for more than it has."""
    if sys.platform != "linux":  # elsewhere this would be the whole process
        return
    niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
    os.setpriority(os.PRIO_PROCESS, 0, niceness)
    number = SCHED_SETATTR.get(platform.machine())
    if number is not None:
        attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, KEEP_POLICY, niceness, 0, SLICE_NS, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)
