"""What the kernel knows of processes: memory, file descriptors, connections (proc(5), Linux)."""

from pathlib import Path

LISTENS = "0A"  # tcp_states.h
MEMORY = {"Anonymous": "own", "Swap": "own", "Pss": "pss", "Rss": "rss"}


def memory_kb(pid: int) -> dict[str, int]:
    """`own`: heaps, stacks and what was changed of files, swapped or not; `pss` and `rss` with what is shared."""
    found = dict.fromkeys(MEMORY.values(), 0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        if name in MEMORY:
            found[MEMORY[name]] += int(rest.split()[0])
    return found


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def title(pid: int) -> str:
    """As ps(1) shows it; PostgreSQL's say what each does."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def children(pid: int) -> list[int]:
    return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def connections(port: int) -> int:
    """Accepted on a port and still held by a process: what is only the kernel's by now has no inode."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(line[1].rpartition(":")[2], 16) == port and line[3] != LISTENS and line[9] != "0" for line in lines)
