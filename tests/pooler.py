"""PgBouncer before every service of the tests, if TEST_PGBOUNCER is set (`make test-pgbouncer`).

The services connect as production would: by conf/pgbouncer.ini, as the login of conf/login.sql, with a password. The
tests' own connections stay direct: they look at sessions, and hold locks, of which a pooler shows nothing.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from orders_api.dev.children import primary_group, spawn, stop, unprivileged

CONF = Path(__file__).parent.parent / "conf"
ON = bool(os.environ.get("TEST_PGBOUNCER"))
LOGIN, PASSWORD, PORT = "orders_service", secrets.token_hex(16), 6432
# What a service needs to know of an old PgBouncer.
SETTINGS = {"DATABASE_PREPARE_THRESHOLD": "none"} if ON else {}
# What differs from conf/pgbouncer.ini: where things are, and that there are many databases with few users.
CHANGES = {
    "orders": "* = host={postgres} port=5432",
    "listen_addr": "unix_socket_dir = {folder}",
    "auth_file": "auth_file = {folder}/userlist.txt\nadmin_users = {login}\nserver_idle_timeout = 10",
}


class PgBouncer:
    """One before one PostgreSQL, on a unix socket."""

    def __init__(self, postgres_socket_dir: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="orders-pgb-", dir="/tmp"))
        conf = (CONF / "pgbouncer.ini").read_text()
        for name, line in CHANGES.items():
            line = line.format(postgres=postgres_socket_dir, folder=self.folder, login=LOGIN)
            conf = re.sub(rf"^{name} = .*$", line, conf, count=1, flags=re.MULTILINE)
        (self.folder / "pgbouncer.ini").write_text(conf)
        (self.folder / "userlist.txt").write_text(f'"{LOGIN}" "{PASSWORD}"\n')
        if user := unprivileged():
            for path in (self.folder, *self.folder.iterdir()):
                shutil.chown(path, user, primary_group(user))
        command = [shutil.which("pgbouncer", path="/usr/sbin:" + os.environ["PATH"]), self.folder / "pgbouncer.ini"]
        with (self.folder / "log").open("wb") as log:
            self._process = spawn(command, death_signal=signal.SIGINT, user=user, cwd=Path("/"), output=log)
        self._wait_until_up()

    def url(self, database: str) -> str:
        return f"postgresql:///{database}?host={self.folder}&port={PORT}&user={LOGIN}&password={PASSWORD}"

    def stop(self) -> None:
        stop(self._process, signal.SIGINT, 5)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_up(self) -> None:
        give_up = time.monotonic() + 10
        while not (self.folder / f".s.PGSQL.{PORT}").exists():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.02)


_running: dict[str, PgBouncer] = {}


def through(url: str) -> str:
    """The way to a database that a service should take. Options in the URL become the login's in that database."""
    if not ON:
        return url
    parts = conninfo_to_dict(url)
    host = str(parts["host"])
    if host not in _running:
        with contextlib.suppress(psycopg.OperationalError):  # a test begins with its database down
            make_login(url)
        _running[host] = PgBouncer(host)
    for name, value in re.findall(r"-c (\w+)=(\S+)", str(parts.get("options", ""))):
        with psycopg.connect(url, autocommit=True) as sql:
            sql.execute(f"ALTER ROLE {LOGIN} IN DATABASE {parts['dbname']} SET {name} = '{value}'")
    return _running[host].url(str(parts["dbname"]))


def make_login(url: str) -> None:
    """In a cluster whose migrations have run."""
    if not ON:
        return
    with psycopg.connect(url, autocommit=True) as sql:
        if not sql.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [LOGIN]).fetchone():
            sql.execute((CONF / "login.sql").read_text())


def reconnect(url: str) -> None:
    """Has PgBouncer replace its sessions, as who promotes a database does: a service can't."""
    if one := _running.get(str(conninfo_to_dict(url)["host"])):
        with psycopg.connect(one.url("pgbouncer"), autocommit=True) as admin:
            admin.execute("RECONNECT")


def stop_all() -> None:
    while _running:
        _running.popitem()[1].stop()
