"""`.local/`: what a clone keeps between runs. The data, the secrets, and the lock of the run that is on."""

import base64
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from orders_api.dev.children import DevError

RUNNING = "running.env"


def new_jwt_key() -> str:
    """A fresh entry for JWT_KEYS: 256 bits under a random name."""
    return f"{secrets.token_hex(4)}:{base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip('=')}"


def new_webhook_secret() -> str:
    """A fresh entry for WEBHOOK_SECRETS: 256 bits (Standard Webhooks)."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


class Local:
    """The folder, held by this run alone."""

    def __init__(self, path: Path, killed_last_time: bool) -> None:
        self.path = path
        self.killed_last_time = killed_last_time

    def secrets(self) -> dict[str, str]:
        """Made once, for development: what signs tokens and webhooks, and the demo user's password."""
        file = self.path / "secrets.env"
        kept = read(file)
        made = {
            "JWT_KEYS": new_jwt_key(),
            "WEBHOOK_SECRETS": new_webhook_secret(),
            "DEMO_PASSWORD": secrets.token_urlsafe(15),
        }
        if made.keys() - kept.keys():
            kept = {**made, **kept}
            _write_secretly(file, kept)
        return kept

    def tell(self, env: Mapping[str, str]) -> None:
        """Keeps the settings of this run where commands in another terminal find them."""
        _write_secretly(self.path / RUNNING, env)

    def forget(self) -> None:
        (self.path / RUNNING).unlink(missing_ok=True)


def read(file: Path) -> dict[str, str]:
    """The settings in a file; none where there is no file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {name: value for name, _, value in (line.partition("=") for line in lines) if value}


def _write_secretly(file: Path, settings: Mapping[str, str]) -> None:
    unfinished = file.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
        new.writelines(f"{name}={value}\n" for name, value in settings.items())
    unfinished.rename(file)


@contextmanager
def folder(path: str | Path) -> Iterator[Local]:
    """`.local/`, locked. Raises DevError if another run holds it. The lock goes with the process, however it ends."""
    here = Path(path).resolve()
    here.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        here.chmod(0o711)  # PostgreSQL, as `nobody`, has to walk through; what is inside has modes of its own
    with (here / "dev.lock").open("a+") as lock:
        _take(lock)
        lock.seek(0)
        killed_last_time = bool(lock.read())  # a run that ends well leaves it empty
        _write(lock, f"{os.getpid()}\n")
        try:
            yield Local(here, killed_last_time)
        finally:
            _write(lock, "")


def _take(lock: IO[str]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        raise DevError(
            f"This clone is already running (process {lock.read().strip()}): use that one, or stop it first."
        ) from None


def _write(lock: IO[str], text: str) -> None:
    lock.truncate(0)
    lock.write(text)
    lock.flush()
