"""The struggling service, built and running: as it was found, then with one cure after the other."""

import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from orders_api.dev import EmbeddedMemcached
from orders_api.dev.children import spawn, stop
from orders_api.dev.memcached import free_port
from perf.struggling.load import NO_ANSWER, Arrival, Request, ask, signed
from perf.struggling.machine import Held, PinnedPostgres, cores, pinned_to
from perf.struggling.tree import PASSED_ON, Tree

START_S, STOP_S = 30, 10


class Site(Held):
    """The service in a repository of its own, its database and memcached. All of it ends with the block.

    `cure()` applies the next patch with its migration, and starts the service again.
    """

    def __init__(self, orders: int, durable: bool = True, workers: int = 4) -> None:
        self.orders = orders
        self._workers = workers
        self.durable = durable
        self.port = 0
        self._server: subprocess.Popen[bytes] | None = None

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
        database = f"/shop?host={self.postgres.socket_dir}&port=5432"
        self.tree = Tree(self.home / "service", database, self.memcached)
        self._fill()
        self._exits.callback(self.stop)
        self.serve()

    def _fill(self) -> None:
        with self.admin("postgres") as admin:
            password = sql.Literal(self.tree.made["database_secret"])
            admin.execute(sql.SQL("CREATE ROLE shop LOGIN PASSWORD {}").format(password))
            admin.execute("CREATE DATABASE shop OWNER shop")
        with self.admin() as admin:
            admin.execute("CREATE EXTENSION pg_stat_statements")
            admin.execute("SET ROLE shop")
            admin.execute((self.tree.folder / "schema.sql").read_text())
            admin.execute("SELECT set_config('seed.orders', %s, false)", [str(self.orders)])
            admin.execute(Path(__file__).with_name("seed.sql").read_text())
            admin.execute("RESET ROLE")
            admin.execute("VACUUM ANALYZE")
            admin.execute("CHECKPOINT")  # ours, not the measurement's

    def admin(self, database: str = "shop") -> psycopg.Connection[Any]:
        """As a superuser, for whom a connection is always left; commits each statement."""
        return psycopg.connect(self.postgres.url(database), autocommit=True)

    def cure(self) -> str:
        """Applies the next cure and returns its name."""
        patch, migrations = self.tree.apply_next()
        for migration in migrations:
            self.migrate(migration)
        if ".py" in patch.read_text():  # a cure of the database alone needs no restart
            self.serve()
        return patch.stem

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
        self.tree.settings |= changed
        env = {**PASSED_ON, "PYTHONDONTWRITEBYTECODE": "1", **self.tree.environment()}
        self.port = free_port()
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "-b", f"127.0.0.1:{self.port}"]
        command += ["--workers", str(self._workers)]
        with pinned_to(self.core), (self.home / "service.log").open("ab") as log:
            self._server = spawn(command, death_signal=signal.SIGTERM, cwd=self.tree.folder, env=env, output=log)
        give_up = time.monotonic() + START_S
        while len(self.workers()) < self._workers or ask(self.port, self.read("/orders/1"))[0] in (NO_ANSWER, 500):
            if self._server.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"The service did not start:\n{self.log()[-3000:]}")
            time.sleep(0.1)

    def add_login(self, password: str) -> None:
        """A second login with the rights of the first, which still works: the settings name the new one from now on."""
        self._old_url = self.tree.settings["DATABASE_URL"]
        with self.admin() as admin:
            admin.execute(sql.SQL("CREATE ROLE shop_2 LOGIN PASSWORD {} IN ROLE shop").format(sql.Literal(password)))
        self.tree.settings["DATABASE_URL"] = f"postgresql://shop_2:{password}@{self.tree.made['database']}"

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
        return Request("GET", path, {"X-Api-Key": self.tree.first("API_KEY")})

    def request_of(self, arrival: Arrival) -> Request:
        """An arrival as this service takes it."""
        headers = {"X-Api-Key": self.tree.first("API_KEY"), "Content-Type": "application/json"}
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
        headers = signed(secret or self.tree.first("WEBHOOK_SECRET"), body, f"msg_{secrets.token_hex(8)}")
        return Request("POST", "/webhooks/payments", {"Content-Type": "application/json", **headers}, body)
