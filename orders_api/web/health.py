"""`/healthz`: the process lives. `/readyz`: it can do its work."""

from collections.abc import Callable
from concurrent.futures import Future

import falcon
from marshmallow import fields, validate

from orders_api.admission import Priority
from orders_api.db import db
from orders_api.errors import Problem
from orders_api.memcached import Memcached
from orders_api.web.operations import Answer, Shape, operation
from orders_api.web.resources import Resource

_STATE = """
    SELECT current_setting('transaction_read_only') = 'on', to_regclass('_yoyo_migration') IS NOT NULL,
        array_remove(ARRAY[
            CASE WHEN current_setting('fsync') = 'off' THEN 'fsync' END,
            CASE WHEN current_setting('full_page_writes') = 'off' THEN 'full_page_writes' END,
            CASE WHEN current_setting('synchronous_commit') = 'off' THEN 'synchronous_commit' END
        ], NULL)
"""


class HealthShape(Shape):
    status = fields.String(required=True, validate=validate.OneOf(["ok"]))


class ChecksShape(Shape):
    database = fields.String(required=True, validate=validate.OneOf(["ok"]))
    migrations = fields.String(required=True, validate=validate.OneOf(["ok"]))
    cache = fields.String(required=True, validate=validate.OneOf(["ok", "down"]))


class ReadinessShape(Shape):
    status = fields.String(required=True, validate=validate.OneOf(["ok", "degraded"]))
    checks = fields.Nested(ChecksShape, required=True)


class Health(Resource):
    """`/healthz`"""

    authenticated = False
    limits = ()
    priority = Priority.HEALTH

    @operation("health", "Is the process alive?", "Asks nothing of anybody else.", Answer(200, "It is.", HealthShape))
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.set_header("Cache-Control", "no-store")
        resp.media = {"status": "ok"}


class Readiness(Resource):
    """`/readyz`: the database is writable and migrated. Without memcached it is `degraded`, and still ready.

    `must_be_durable`: neither is it ready on a database that can forget what it has committed.

    Nobody limits who asks, and no other request comes before: so a worker looks once for all who ask meanwhile.
    """

    authenticated = False
    limits = ()
    priority = Priority.HEALTH

    def __init__(self, memcached: Memcached, migrations: Callable[[], list[str]], must_be_durable: bool) -> None:
        self.memcached = memcached
        self.migrations = migrations
        self.must_be_durable = must_be_durable
        self._look: Future[bool] | None = None  # that is under way

    @operation(
        "readiness",
        "Can it do its work?",
        "Whether the database takes writes, keeps them through a crash, and is migrated. Without memcached it is"
        " `degraded`, and still ready.",
        Answer(200, "It can.", ReadinessShape),
        problems=("database_unavailable", "overloaded", "internal_error"),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        cached = self._look.result() if self._look else self._look_for_all()
        resp.set_header("Cache-Control", "no-store")
        resp.media = {
            "status": "ok" if cached else "degraded",
            "checks": {"database": "ok", "migrations": "ok", "cache": "ok" if cached else "down"},
        }

    def _look_for_all(self) -> bool:
        """What `_check` says, to those too who ask before it has; they hold no connection meanwhile."""
        look = self._look = Future()
        try:
            look.set_result(self._check())
        except BaseException as error:
            look.set_exception(error)
        finally:
            self._look = None
        return look.result()

    def _check(self) -> bool:
        """Whether memcached takes values. Raises Problem when the database does not do what it has to."""
        read_only, tables, off = db.execute_sql(_STATE).fetchone()
        if read_only:
            # These sessions may stay read-only when the database no longer is, and without traffic
            # nobody else would find out.
            db.drop_idle()
            raise Problem("database_unavailable", "The database takes no writes.", after_s=1)
        if off and self.must_be_durable:
            detail = (
                f"A crash of the database could take back what was acknowledged: it runs with {' and '.join(off)} off."
            )
            raise Problem("database_unavailable", detail, after_s=1)
        rows = db.execute_sql("SELECT migration_id FROM _yoyo_migration").fetchall() if tables else []
        missing = set(self.migrations()) - {row[0] for row in rows}
        if missing:
            detail = f"{len(missing)} migrations are not applied: run `orders-api migrate`."
            raise Problem("database_unavailable", detail, after_s=1)
        db.release()
        return self.memcached.ping()
