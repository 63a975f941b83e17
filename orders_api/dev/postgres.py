"""A PostgreSQL of our own, on a unix socket, with its data in a folder."""

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg

from orders_api.dev import binaries
from orders_api.dev.children import DevError, as_user, primary_group, spawn, stop, unprivileged

START_S = 60  # recovery after a crash can take a while on a slow disk
STOP_S = 20
PORT = 5432  # only the name of the socket; given everywhere, so that a PGPORT of the user's changes nothing
MIN_FREE_BYTES = 200 * 1024 * 1024  # an empty cluster takes 40 MB, its first WAL segments 80
DISK_FULL = "The disk is full: free some space (at least 200 MB below {}), then start again."


class EmbeddedPostgres:
    """A PostgreSQL that lives as long as we do. `durable=False` trades safety after a crash for speed: tests only."""

    def __init__(
        self, data_dir: Path, socket_dir: Path, durable: bool = True, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.data_dir = Path(data_dir)
        self.socket_dir = Path(socket_dir)
        self.durable = durable
        self.user = unprivileged()
        self.process: subprocess.Popen[bytes] | None = None
        self._environ = environ
        self._log = self.data_dir.with_suffix(".log")

    def start(self) -> str:
        """Makes the cluster if there is none, starts it, and returns the URL of its database `orders`."""
        try:
            bindir = binaries.find_postgres(self._environ)
            self.bindir = binaries.reachable_copy(bindir) if self.user else bindir
            self._make_cluster()
            self._stop_leftover()
            self._make_socket_dir()
            self._launch()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DevError(DISK_FULL.format(self.data_dir.parent)) from None
        return self.url()

    def stop(self) -> None:
        """SIGINT: a fast shutdown, which ends the sessions and leaves a clean cluster."""
        if self.process:
            stop(self.process, signal.SIGINT, STOP_S)
            shutil.rmtree(self.socket_dir, ignore_errors=True)

    def url(self, database: str = "orders") -> str:
        return f"postgresql:///{database}?host={self.socket_dir}&port={PORT}&user=postgres"

    def _make_cluster(self) -> None:
        version_file = self.data_dir / "PG_VERSION"
        if version_file.exists():
            return self._check_version(version_file.read_text().strip())
        if shutil.disk_usage(self.data_dir.parent).free < MIN_FREE_BYTES:
            raise DevError(DISK_FULL.format(self.data_dir.parent))
        unfinished = self.data_dir.with_suffix(".new")  # renamed when complete: a kill in between leaves no half
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        self._give(unfinished)
        self._initdb(unfinished)
        unfinished.rename(self.data_dir)
        return None

    def _check_version(self, made_by: str) -> None:
        ours = binaries.major_version(self.bindir)
        if made_by != ours:
            raise DevError(
                f"The data in {self.data_dir} was made by PostgreSQL {made_by}, and the one in {self.bindir} is {ours}:"
                f" set PG_BINDIR to the programs of version {made_by}, or remove {self.data_dir} to begin anew."
            )

    def _initdb(self, target: Path) -> None:
        command: list[str | Path] = [self.bindir / "initdb", "-D", target, "--username=postgres", "--auth=trust"]
        options = ["--encoding=UTF8", "--locale=C", *([] if self.durable else ["--no-sync"])]
        made = subprocess.run(
            [*command, *options], capture_output=True, text=True, cwd="/", check=False, **as_user(self.user)
        )
        if made.returncode:
            raise DevError(self._explain(made.stderr, "PostgreSQL could not make its data directory"))

    def _give(self, folder: Path) -> None:
        if self.user:
            shutil.chown(folder, self.user, primary_group(self.user))

    def _make_socket_dir(self) -> None:
        """Short (a socket's path has at most 107 bytes) and closed to others: whoever reaches it is trusted."""
        shutil.rmtree(self.socket_dir, ignore_errors=True)
        binaries.own_folder(self.socket_dir, 0o700)
        self._give(self.socket_dir)

    def _stop_leftover(self) -> None:
        """A run that was killed can leave its server running, or its pid file behind."""
        pid_file = self.data_dir / "postmaster.pid"
        give_up = time.monotonic() + STOP_S
        while pid_file.exists() and (pid := _first_number(pid_file)):
            if not self._is_our_server(pid):
                pid_file.unlink(missing_ok=True)  # its number may belong to anybody by now
                return
            if time.monotonic() > give_up:
                raise DevError(
                    f"The PostgreSQL of the last run (process {pid}) does not stop: end it, then start again."
                )
            os.kill(pid, signal.SIGINT)
            time.sleep(0.2)

    def _is_our_server(self, pid: int) -> bool:
        """Whether that process is a postgres with this data directory: nothing else may be stopped."""
        command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        seen = subprocess.run(command, capture_output=True, text=True, check=False)
        words = seen.stdout.split()
        return bool(words) and Path(words[0]).name in ("postgres", "postmaster") and str(self.data_dir) in seen.stdout

    def _launch(self) -> None:
        with self._log.open("wb") as log:
            command: list[str | Path] = [self.bindir / "postgres", "-D", self.data_dir, *self._flags()]
            self.process = spawn(command, death_signal=signal.SIGINT, user=self.user, cwd=Path("/"), output=log)
        give_up = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise DevError(self._explain(self._log.read_text(errors="replace"), "PostgreSQL did not start"))
            time.sleep(0.05)

    def _flags(self) -> list[str]:
        values = {"listen_addresses": "", "unix_socket_directories": str(self.socket_dir), "max_connections": "200"}
        values["port"] = str(PORT)
        if not self.durable:
            values |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "4GB"}
        return [word for name, value in values.items() for word in ("-c", f"{name}={value}")]

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=2) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'orders'").fetchone():
                    connection.execute("CREATE DATABASE orders")
        except psycopg.OperationalError:
            return False
        return True

    def _explain(self, log: str, what: str) -> str:
        if "No space left on device" in log:
            return DISK_FULL.format(self.data_dir.parent)
        last = [line for line in log.splitlines() if "FATAL" in line or "error" in line.lower()] or log.splitlines()
        return f"{what}: {(last or ['it said nothing'])[-1].strip()} (its log is {self._log})."


def _first_number(file: Path) -> int:
    try:
        first = file.read_text().split("\n", 1)[0].strip()
    except FileNotFoundError:
        return 0
    return int(first) if first.isdigit() else 0
