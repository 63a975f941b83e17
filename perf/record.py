"""What a result must say to be compared with another: of which code, on what, with what. No names, no paths."""

import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from orders_api.dev import binaries

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "perf" / "results"
BUSY = 1.0  # runnable processes, in the mean of the last minute
PACKAGES = ("falcon", "gunicorn", "gevent", "peewee", "psycopg", "pymemcache", "orjson", "marshmallow")


def circumstances() -> dict[str, Any]:
    """The day, the commit (with `-changed` if the tree differs from it), the machine and the versions."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "processor": _first(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo")),
            "memory_kb": int(_first(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo")) or 0),
            "kernel": platform.release(),
            "load": os.getloadavg()[0],  # of the minute before: others on the machine are in the figures too
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}, **_programs()},
    }


def warn_if_busy() -> None:
    """What others run meanwhile is in the figures; even the ratios suffer, for not all of them wait alike."""
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"This machine is busy (load {load:.1f}): the figures will be worse than they are.", file=sys.stderr)


def write_result(kind: str, document: dict[str, Any]) -> Path:
    """Writes perf/results/<kind>-<date>-<commit>.json and returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{kind}-{document['date']}-{document['commit']}.json"
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return path


def _commit() -> str:
    commit = _said("git", "rev-parse", "--short", "HEAD") or "unknown"
    # Results and notes don't change what was measured.
    changed = _said(
        "git",
        "status",
        "--porcelain",
        "--",
        "orders_api",
        "conf",
        "migrations",
        "perf/*.py",
        "perf/*/*.lua",
        "perf/struggling",
    )
    return commit + ("-changed" if changed else "")


def _programs() -> dict[str, str]:
    postgres = binaries.find_postgres(os.environ) / "postgres"
    said = {
        "postgres": _said(str(postgres), "--version"),
        "memcached": _said("memcached", "-V"),
        "pgbench": _said("pgbench", "--version"),
        "wrk": _said("wrk", "-v"),
    }
    return {name: match[0] for name, text in said.items() if (match := re.search(r"\d+(\.\d+)+", text))}


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    # wrk shows its version and ends with 1.
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()  # noqa: S603


def _first(pattern: str, file: Path) -> str:
    found = re.search(pattern, file.read_text(), re.MULTILINE) if file.exists() else None
    return found[1].strip() if found else ""
