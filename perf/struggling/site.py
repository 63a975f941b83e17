"""The struggling service, built and running: as it was found, then with one cure after the other."""

import base64
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from orders_api.dev import EmbeddedMemcached
from orders_api.dev.children import spawn, stop
from perf.struggling.load import NO_ANSWER, Arrival, Request, ask, signed
from perf.struggling.machine import PinnedPostgres, cores, pinned_to

HERE = Path(__file__).parent
CURES = sorted((HERE / "cures").glob("*.patch"))
PORTS = range(20_000, 32_000)  # below those that outgoing connections take
START_S, STOP_S = 30, 10
PASSED_ON = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
WHO = {f"GIT_{role}_{what}": "found@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
GIT_ENV = {**PASSED_ON, **WHO, "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C"}


class Site:
    """The service in a repository of its own, its database and memcached. All of it ends with the block.

    `cure()` applies the next patch with its migration, and starts the service again.
    """

    def __init__(self, orders: int, durable: bool = True, workers: int = 4) -> None:
        self.orders = orders
        self._workers = workers
        self.durable = durable
        self.cures = 0
        self.port = 0
        self.settings: dict[str, str] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exits.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _start(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="struggling-", dir="/tmp"))
        self._exits.callback(shutil.rmtree, self.home, ignore_errors=True)
        self.home.chmod(0o711)  # as root, PostgreSQL is `nobody` and has to walk through
        database_core, self.core = cores()
        self.postgres = PinnedPostgres(self.home, database_core, self.durable)
        self._exits.callback(self.postgres.stop)
        self.postgres.start()
        memcached = EmbeddedMemcached()
        self._exits.callback(memcached.stop)
        with pinned_to(self.core):
            self.memcached = memcached.start()
        self.tree = self.home / "service"
        self._find()
        self._fill()
        self._exits.callback(self.stop)
        self.serve()

    def _find(self) -> None:
        """The repository as it was found. Its secrets are made now, and are worth nothing anywhere else."""
        shutil.copytree(HERE / "as_found", self.tree, ignore=shutil.ignore_patterns("__pycache__"))
        self.made = {
            "database_secret": secrets.token_urlsafe(18),
            "api_key": secrets.token_urlsafe(24),
            "webhook_secret": base64.b64encode(secrets.token_bytes(32)).decode(),
            "database": f"/shop?host={self.postgres.socket_dir}&port=5432",
        }
        (self.tree / ".env").write_text((self.tree / "dot_env").read_text().format(**self.made))
        self.git("init", "--quiet", "--initial-branch=main")
        self._commit("The service as it was found")
        self._learn()

    def _learn(self) -> None:
        """What stands in .env; who serves without one sets them himself."""
        lines = (self.tree / ".env").read_text().splitlines()
        self.settings = {name: value for name, _, value in (line.partition("=") for line in lines)}

    def _fill(self) -> None:
        with self.admin("postgres") as admin:
            password = sql.Literal(self.made["database_secret"])
            admin.execute(sql.SQL("CREATE ROLE shop LOGIN PASSWORD {}").format(password))
            admin.execute("CREATE DATABASE shop OWNER shop")
        with self.admin() as admin:
            admin.execute("CREATE EXTENSION pg_stat_statements")
            admin.execute("SET ROLE shop")
            admin.execute((self.tree / "schema.sql").read_text())
            admin.execute("SELECT set_config('seed.orders', %s, false)", [str(self.orders)])
            admin.execute((HERE / "seed.sql").read_text())
            admin.execute("RESET ROLE")
            admin.execute("VACUUM ANALYZE")
            admin.execute("CHECKPOINT")  # ours, not the measurement's

    def admin(self, database: str = "shop") -> psycopg.Connection[Any]:
        """As a superuser, for whom a connection is always left; commits each statement."""
        return psycopg.connect(self.postgres.url(database), autocommit=True)

    def cure(self) -> str:
        """Applies the next cure and returns its name."""
        patch = CURES[self.cures]
        before = set(self.tree.glob("migrations/*.sql"))
        self.git("apply", "--index", patch)
        self.cures += 1
        template = self.tree / "dot_env"
        if template.exists():
            self.made["memcached"] = self.memcached
            (self.tree / ".env").write_text(template.read_text().format(**self.made))
            self._learn()
        else:
            (self.tree / ".env").unlink(missing_ok=True)
            self._leave_the_tree()
        self._commit(patch.stem)
        migrations = sorted(set(self.tree.glob("migrations/*.sql")) - before)
        for migration in migrations:
            self.migrate(migration)
        if ".py" in patch.read_text():  # a cure of the database alone needs no restart
            self.serve()
        return patch.stem

    def _leave_the_tree(self) -> None:
        """From now on the settings come from the environment; rings, where they were single."""
        for name in ("API_KEY", "WEBHOOK_SECRET"):
            if name in self.settings:
                self.settings[f"{name}S"] = self.settings.pop(name)

    def migrate(self, file: Path) -> None:
        """Each statement by itself, as CONCURRENTLY needs it."""
        with self.admin() as admin:
            admin.execute("SET ROLE shop")
            for statement in file.read_text().split(";\n"):
                if statement.strip():
                    admin.execute(statement)
            admin.execute("RESET ROLE")

    def serve(self, **changed: str) -> None:
        """Starts gunicorn, in place of the one before, and waits until it answers. `changed`: settings that differ."""
        self.stop()
        self.settings |= changed
        env = {**PASSED_ON, "PYTHONDONTWRITEBYTECODE": "1"}
        if not (self.tree / ".env").exists():
            env |= self.settings
        self.port = _free_port()
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "-b", f"127.0.0.1:{self.port}"]
        command += ["--workers", str(self._workers)]
        with pinned_to(self.core), (self.home / "service.log").open("ab") as log:
            self._server = spawn(command, death_signal=signal.SIGTERM, cwd=self.tree, env=env, output=log)
        give_up = time.monotonic() + START_S
        while len(self.workers()) < self._workers or ask(self.port, self.read("/orders/1"))[0] in (NO_ANSWER, 500):
            if self._server.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"The service did not start:\n{self.log()[-3000:]}")
            time.sleep(0.1)

    def add_login(self, password: str) -> None:
        """A second login with the rights of the first, which still works: the settings name the new one from now on."""
        self._old_url = self.settings["DATABASE_URL"]
        with self.admin() as admin:
            admin.execute(sql.SQL("CREATE ROLE shop_2 LOGIN PASSWORD {} IN ROLE shop").format(sql.Literal(password)))
        self.settings["DATABASE_URL"] = f"postgresql://shop_2:{password}@{self.made['database']}"

    def close_old_login(self) -> None:
        with self.admin() as admin:
            admin.execute("ALTER ROLE shop NOLOGIN")

    def old_login_works(self) -> bool:
        try:
            psycopg.connect(self._old_url).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Gracefully, as in production; tests have nobody who waits for an answer."""
        if self._server:
            stop(self._server, signal.SIGTERM if self.durable else signal.SIGQUIT, STOP_S)

    def workers(self) -> list[int]:
        assert self._server
        children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def log(self) -> str:
        return (self.home / "service.log").read_text(errors="replace")

    def read(self, path: str) -> Request:
        return Request("GET", path, {"X-Api-Key": self.first("API_KEY")})

    def request_of(self, arrival: Arrival) -> Request:
        """An arrival as this service takes it."""
        headers = {"X-Api-Key": self.first("API_KEY"), "Content-Type": "application/json"}
        match arrival.operation:
            case "create":
                items = [
                    {"sku": "sku-1", "quantity": 2, "price_cents": 625},
                    {"sku": "sku-2", "quantity": 1, "price_cents": 50},
                ]
                body = b'{"customer_id": 1, "items": %s}' % str(items).replace("'", '"').encode()
                return Request("POST", "/orders", headers, body)
            case "payment":
                return self.payment(arrival.order)
        words = {"status": arrival.status, "page": arrival.page} if arrival.operation == "list" else {}
        words |= {"include": "items" if arrival.items else "", "_": arrival.bust or ""}
        path = "/orders" if arrival.operation == "list" else f"/orders/{arrival.order % self.orders + 1}"
        query = "&".join(f"{name}={value}" for name, value in words.items() if value)
        return Request("GET", f"{path}?{query}" if query else path, headers)

    def payment(self, order: int, secret: str = "") -> Request:
        """As the provider sends it: signed, whether or not anybody looks."""
        body = b'{"type": "payment.succeeded", "order_id": %d}' % order
        headers = signed(secret or self.first("WEBHOOK_SECRET"), body, f"msg_{secrets.token_hex(8)}")
        return Request("POST", "/webhooks/payments", {"Content-Type": "application/json", **headers}, body)

    def first(self, name: str) -> str:
        return (self.settings.get(name) or self.settings[f"{name}S"]).split(",")[0]

    def git(self, *arguments: str | Path) -> str:
        command = ["git", *map(str, arguments)]
        ran = subprocess.run(command, cwd=self.tree, env=GIT_ENV, capture_output=True, text=True, check=False)  # noqa: S603
        if ran.returncode:
            raise RuntimeError(f"git {arguments[0]}: {ran.stderr}")
        return ran.stdout.strip()

    def _commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)  # noqa: S311  (no secret)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
