"""Child processes that never outlive us: each in a group of its own, and told by the kernel when we die."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class DevError(Exception):
    """One sentence or two: what is wrong, and the cure."""


def spawn(
    command: Sequence[str | Path],
    *,
    death_signal: signal.Signals,
    user: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a child. Its own group keeps the terminal's Ctrl-C away from it: the order of the stops is ours.

    `user`: whom to be, when we are root. `death_signal`: what the kernel sends it when we are killed (Linux).
    """
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        process_group=0,
        preexec_fn=_ask_for_death_signal(death_signal),
        **as_user(user),
    )


def as_user(user: str | None) -> dict[str, Any]:
    """The arguments for `subprocess` to become `user`, without a group of root's."""
    if user is None:
        return {}
    return {"user": user, "group": primary_group(user), "extra_groups": []}


def primary_group(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def unprivileged() -> str | None:
    """PostgreSQL refuses to run as root, and memcached should not: the user to be instead."""
    return "nobody" if os.geteuid() == 0 else None


def stop(child: subprocess.Popen[bytes], by: signal.Signals, wait_s: float) -> None:
    """Ends a child and reaps it; who does not go in time is killed with the whole group."""
    if child.poll() is None:
        child.send_signal(by)
        try:
            child.wait(wait_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _ask_for_death_signal(signum: signal.Signals) -> Callable[[], None] | None:
    """Runs between fork and exec, after the change of user (which would clear it). None where there is no prctl."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:  # we died in between: the signal would never come
            os._exit(1)

    return ask
