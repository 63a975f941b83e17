"""The whole API on one page."""

import falcon

from orders_api import migrator
from orders_api.accounts.passwords import Passwords
from orders_api.accounts.resources import Login, Logout, Me, Refresh, Register
from orders_api.accounts.tokens import AccessTokens
from orders_api.memcached import Memcached
from orders_api.orders.resources import Events, IdempotencyKeyByName, OrderById, OrderEvents, Orders
from orders_api.payments.resources import PaymentWebhook
from orders_api.web.health import Health, Readiness
from orders_api.web.metrics import MetricsByToken
from orders_api.web.pagination import Cursors
from orders_api.web.problems import ProblemByCode, Problems
from orders_api.webhooks.resources import Deliveries, EndpointById, Endpoints, EndpointSecret, Redelivery


def add_routes(
    app: falcon.App,
    *,
    passwords: Passwords,
    tokens: AccessTokens,
    cursors: Cursors,
    memcached: Memcached,
    payments: PaymentWebhook,
    endpoints: Endpoints,
    metrics: MetricsByToken | None,
) -> None:
    app.add_route("/auth/register", Register(passwords))
    app.add_route("/auth/login", Login(passwords, tokens))
    app.add_route("/auth/refresh", Refresh(tokens))
    app.add_route("/auth/logout", Logout())
    app.add_route("/auth/me", Me())

    app.add_route("/orders", Orders(cursors))
    app.add_route("/orders/{order_id}", OrderById())
    app.add_route("/orders/{order_id}/events", OrderEvents(cursors))
    app.add_route("/events", Events(cursors))
    app.add_route("/idempotency-keys/{key:path}", IdempotencyKeyByName())

    app.add_route("/webhooks/payments", payments)

    app.add_route("/webhook-endpoints", endpoints)
    app.add_route("/webhook-endpoints/{endpoint_id}", EndpointById())
    app.add_route("/webhook-endpoints/{endpoint_id}/rotate", EndpointSecret())
    app.add_route("/webhook-endpoints/{endpoint_id}/deliveries", Deliveries(cursors))
    app.add_route("/webhook-endpoints/{endpoint_id}/deliveries/{sequence}/redeliver", Redelivery())

    app.add_route("/problems", Problems())
    app.add_route("/problems/{code}", ProblemByCode())
    app.add_route("/healthz", Health())
    app.add_route("/readyz", Readiness(memcached, migrator.all_ids))
    if metrics:
        app.add_route("/metrics", metrics)
