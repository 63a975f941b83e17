"""`orders-api dev`: everything the service needs on this machine, in order, and all of it gone at the end."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from orders_api.dev import banner, binaries, local
from orders_api.dev.children import DevError, spawn, stop
from orders_api.dev.memcached import EmbeddedMemcached
from orders_api.dev.postgres import DISK_FULL, EmbeddedPostgres
from orders_api.settings import Settings

ROOT = Path(__file__).parents[2]
GUNICORN = [sys.executable, "-m", "gunicorn", "-c", "conf/gunicorn.conf.py"]
DELIVERIES = [sys.executable, "-m", "orders_api", "deliver"]
GUNICORN_STOP_S = 27  # its own graceful_timeout is 25
READY_S = 30
PORT_WAIT_S = 5  # after a kill, the workers of the last run still close their sockets
# What settings are checked with before there is a real one: any start should fail before it has started anything.
ANY_DATABASE = "postgresql:///orders"

# What a command in another terminal has to know of the run.
TOLD = ("ENVIRONMENT", "PORT", "DATABASE_URL", "MEMCACHED_SERVERS", "JWT_KEYS", "WEBHOOK_SECRETS")


class Stopped(Exception):  # noqa: N818  (not an error)
    """A signal asked us to go."""


def run(environ: Mapping[str, str]) -> int:
    """Runs until it is told to stop, and leaves no process behind. Returns the exit code; SettingError passes."""
    given = {name: value for name, value in environ.items() if value}  # empty counts as unset
    given.setdefault("ENVIRONMENT", "development")
    try:
        with local.folder(_folder(given)) as here:
            return Dev(given, here).run()
    except DevError as error:
        click.echo(f"orders-api: {error}", err=True)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        click.echo("orders-api: " + DISK_FULL.format(ROOT), err=True)
    return 1


def running_env(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings of the run that is on in this clone, for a command that was given no database of its own."""
    return {} if environ.get("DATABASE_URL") else local.read(_folder(environ) / local.RUNNING)


def _folder(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("ORDERS_API_LOCAL") or ROOT / ".local")


class Dev:
    """One run. `children` holds what is alive, in the order of its start."""

    def __init__(self, given: dict[str, str], here: "local.Local") -> None:
        self.env = given
        self.here = here
        self.development = given["ENVIRONMENT"] == "development"
        self.children: list[tuple[str, Any]] = []
        self.gunicorn: subprocess.Popen[bytes] | None = None
        self.deliveries: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, _raise_stopped)
        try:
            self._start()
            return self._watch()
        except Stopped:
            return 0
        finally:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_IGN)  # the end must not be interrupted: it leaves nothing behind
            self._stop()

    def _start(self) -> None:
        settings = self._checked_settings()
        _check_port(settings, PORT_WAIT_S if self.here.killed_last_time else 0)
        if self.here.killed_last_time:
            _say("The last run was killed; cleaning up after it.")
        if self.development:
            self._start_postgres()
            self._start_memcached()
        self._command("migrate")
        if self.development:
            self._command("seed")
        self._start_gunicorn(settings)
        self.deliveries = spawn(DELIVERIES, death_signal=signal.SIGTERM, cwd=ROOT, env=self.env)
        if self.development:
            self.here.tell({name: self.env[name] for name in TOLD if name in self.env})
        password = self.env["DEMO_PASSWORD"] if self.development else None
        _say(banner.text(f"http://127.0.0.1:{settings.port}", password))

    def _checked_settings(self) -> Settings:
        """The settings as they will be. Production is filled in with nothing."""
        if not self.development:
            return Settings.from_env(self.env)
        trial = Settings.from_env({"DATABASE_URL": ANY_DATABASE, "JWT_KEYS": local.new_jwt_key(), **self.env})
        self.env = {**self.here.secrets(), **self.env}
        return trial

    def _start_postgres(self) -> None:
        if "DATABASE_URL" in self.env:
            return
        home = self.here.path
        if os.geteuid() == 0 and not binaries.reachable(home / "postgres"):
            home = binaries.shared_folder(home)
        sockets = Path("/tmp") / f"orders-api-{binaries.short_hash(home)}"  # noqa: S108  (a socket's path must be short)
        if not (home / "postgres").exists():
            _say("Making a PostgreSQL database in " + str(home / "postgres"))
        postgres = EmbeddedPostgres(home / "postgres", sockets, environ=self.env)
        self.children.append(("PostgreSQL", postgres))
        self.env["DATABASE_URL"] = postgres.start()

    def _start_memcached(self) -> None:
        if "MEMCACHED_SERVERS" in self.env:
            return
        if EmbeddedMemcached.available(self.env.get("PATH")):
            memcached = EmbeddedMemcached()
            self.children.append(("memcached", memcached))
            self.env["MEMCACHED_SERVERS"] = memcached.start()
            return
        self.env["WEB_CONCURRENCY"] = "1"
        _say(
            "Warning: there is no memcached, so cache and limits live in one worker's memory."
            " Install memcached, or set MEMCACHED_SERVERS, to run as production does."
        )

    def _command(self, name: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "orders_api", name],
            cwd=ROOT,
            env=self.env,
            check=False,
            capture_output=True,
            text=True,
            process_group=0,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise DevError(f"`orders-api {name}` failed: {said[-1].removeprefix('orders-api: ')}")

    def _start_gunicorn(self, settings: Settings) -> None:
        self.gunicorn = spawn(GUNICORN, death_signal=signal.SIGTERM, cwd=ROOT, env=self.env)
        give_up = time.monotonic() + READY_S
        while not _answers(f"http://127.0.0.1:{settings.port}/healthz"):
            if self.gunicorn.poll() is not None:
                raise DevError("gunicorn ended while it started: what it said stands above.")
            if time.monotonic() > give_up:
                raise DevError(f"gunicorn did not answer within {READY_S} seconds: what it said stands above.")
            time.sleep(0.05)

    def _watch(self) -> NoReturn:
        while True:
            time.sleep(0.2)
            alive = [(name, child.process) for name, child in self.children]
            for name, process in [*alive, ("gunicorn", self.gunicorn), ("orders-api deliver", self.deliveries)]:
                if process and process.poll() is not None:
                    raise DevError(
                        f"{name} ended by itself (code {process.returncode}), so everything stops: start again."
                    )

    def _stop(self) -> None:
        """Requests first, then what they need."""
        self.here.forget()
        if self.gunicorn:
            stop(self.gunicorn, signal.SIGTERM, GUNICORN_STOP_S)
        if self.deliveries:
            stop(self.deliveries, signal.SIGTERM, GUNICORN_STOP_S)
        for _, child in reversed(self.children):
            child.stop()


def _raise_stopped(_signum: int, _frame: object) -> NoReturn:
    raise Stopped


def _say(text: str) -> None:
    click.echo(text)
    sys.stdout.flush()


def _check_port(settings: Settings, wait_s: float) -> None:
    """Before anything is started: whether gunicorn will be able to listen."""
    give_up = time.monotonic() + wait_s
    host = "0.0.0.0" if settings.production else "127.0.0.1"  # noqa: S104  (as conf/gunicorn.conf.py has it)
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                return probe.bind((host, settings.port))
            except PermissionError:
                raise DevError(f"PORT {settings.port} may not be used without root: start with PORT=8000.") from None
            except OSError:
                if time.monotonic() > give_up:
                    raise DevError(
                        f"PORT {settings.port} is taken by another program: end it, or start with another,"
                        f" such as PORT={settings.port + 1 if settings.port < 65535 else 8000}."
                    ) from None
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  (our own http:// address)
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
