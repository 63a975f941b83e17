"""The composition root: what the application is made of, and what happens to a request, in order."""

import base64
import functools
from typing import Any

import falcon
import falcon.media
import falcon.routing
import orjson

from orders_api import logs
from orders_api.accounts import services as accounts
from orders_api.accounts.tokens import AccessTokens
from orders_api.admission import in_flight
from orders_api.cache import cache
from orders_api.db import db
from orders_api.memcached import memcached
from orders_api.reporting import reporter
from orders_api.routes import routes
from orders_api.settings import MIN_KEY_BYTES, Settings
from orders_api.web import problems
from orders_api.web.admission import AtTheDoor, Users
from orders_api.web.authentication import Authentication
from orders_api.web.caching import Caching
from orders_api.web.connections import Connections
from orders_api.web.cors import Cors
from orders_api.web.lookahead import LookAhead
from orders_api.web.metrics import start_sampling
from orders_api.web.openapi import document
from orders_api.web.rate_limits import Limiter, Limits
from orders_api.web.resources import Methods, Queries
from orders_api.web.shedding import Shedding
from orders_api.web.tracing import Traced, Tracing

# As many as there are connections: more in flight only make each other wait (make storm).
MIN_IN_FLIGHT = 4

NO_KEY = base64.urlsafe_b64encode(bytes(MIN_KEY_BYTES)).decode()  # of 256 zeros: signs nothing


def create_app(settings: Settings) -> Shedding:
    """The WSGI application. Call it once a process, after the fork: sockets are never shared."""
    logs.configure()
    reporter.open(settings)
    db.open(settings)
    memcached.open(settings)
    in_flight.open(max(MIN_IN_FLIGHT, settings.database_pool_size))
    tokens = AccessTokens(settings.jwt_keys)
    limiter = Limiter(settings)
    by_ip = Limits(limiter, memcached, "ip")
    authentication = Authentication(functools.partial(accounts.identify, tokens))
    by_user = Limits(limiter, memcached, "user")
    middleware: list[Any] = [
        Tracing(server_timing=settings.server_timing),
        *([Cors(settings.cors_origins)] if settings.cors_origins else []),
        Methods(),
        AtTheDoor(
            LookAhead(memcached, by_ip, authentication, by_user, Caching(cache)), limiter, settings.trusted_proxy_hops
        ),
        by_ip,
        Users(),
        authentication,
        by_user,
        Queries(),
    ]
    router = falcon.routing.CompiledRouter()
    app = falcon.App(middleware=middleware, router=router)
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = falcon.media.JSONHandler(dumps=orjson.dumps)
    problems.register(app)
    for template, resource in routes(settings, tokens, limiter).items():
        if resource.exists:
            app.add_route(template, resource)
    if settings.metrics_token:
        start_sampling(memcached)
    return Shedding(Connections(Traced(app)), router, limiter, settings)


def describe() -> dict[str, Any]:
    """The API's description, of which no setting changes anything."""
    settings = Settings.from_env({"ENVIRONMENT": "development", "DATABASE_URL": "postgresql:///", "JWT_KEYS": NO_KEY})
    return document(routes(settings, AccessTokens(settings.jwt_keys), Limiter(settings)))
