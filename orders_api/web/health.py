"""`/healthz`: the process lives. `/readyz`: it can do its work."""

from collections.abc import Callable

import falcon
from marshmallow import fields, validate

from orders_api.admission import Priority
from orders_api.db import db
from orders_api.errors import Problem
from orders_api.memcached import Memcached
from orders_api.web.operations import Answer, Shape, operation
from orders_api.web.resources import Resource


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
    """`/readyz`: the database is writable and migrated. Without memcached it is `degraded`, and still ready."""

    authenticated = False
    limits = ()
    priority = Priority.HEALTH

    def __init__(self, memcached: Memcached, migrations: Callable[[], list[str]]) -> None:
        self.memcached = memcached
        self.migrations = migrations

    @operation(
        "readiness",
        "Can it do its work?",
        "Whether the database takes writes and is migrated. Without memcached it is `degraded`, and still ready.",
        Answer(200, "It can.", ReadinessShape),
        problems=("database_unavailable", "overloaded", "internal_error"),
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        read_only, tables = db.execute_sql(
            "SELECT current_setting('transaction_read_only') = 'on', to_regclass('_yoyo_migration') IS NOT NULL"
        ).fetchone()
        if read_only:
            # These sessions may stay read-only when the database no longer is, and without traffic
            # nobody else would find out.
            db.drop_idle()
            raise Problem("database_unavailable", "The database takes no writes.", after_s=1)
        rows = db.execute_sql("SELECT migration_id FROM _yoyo_migration").fetchall() if tables else []
        missing = set(self.migrations()) - {row[0] for row in rows}
        if missing:
            detail = f"{len(missing)} migrations are not applied: run `orders-api migrate`."
            raise Problem("database_unavailable", detail, after_s=1)
        cached = self.memcached.ping()
        resp.set_header("Cache-Control", "no-store")
        resp.media = {
            "status": "ok" if cached else "degraded",
            "checks": {"database": "ok", "migrations": "ok", "cache": "ok" if cached else "down"},
        }
