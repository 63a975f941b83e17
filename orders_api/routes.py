"""The whole API on one page."""

from orders_api import migrator
from orders_api.accounts.passwords import Passwords
from orders_api.accounts.resources import Login, Logout, Me, Refresh, Register
from orders_api.accounts.tokens import AccessTokens
from orders_api.memcached import memcached
from orders_api.orders.resources import Events, IdempotencyKeyByName, OrderById, OrderEvents, Orders
from orders_api.payments.resources import PaymentWebhook
from orders_api.settings import Settings
from orders_api.web.docs import Docs, DocsAsset
from orders_api.web.health import Health, Readiness
from orders_api.web.metrics import MetricsByToken
from orders_api.web.openapi import OpenApi
from orders_api.web.pagination import Cursors
from orders_api.web.problem_pages import ProblemByCode, Problems
from orders_api.web.rate_limits import Failures, Limiter
from orders_api.web.resources import Resource
from orders_api.webhooks.queries import outbox
from orders_api.webhooks.resources import Deliveries, EndpointById, Endpoints, EndpointSecret, Redelivery


def routes(settings: Settings, tokens: AccessTokens, limiter: Limiter) -> dict[str, Resource]:
    """Every route by its template."""
    passwords, cursors = Passwords(settings.bcrypt_rounds), Cursors(settings.cursor_keys)
    failures = Failures(limiter, memcached, "webhooks")
    table: dict[str, Resource] = {}
    table |= {
        "/auth/register": Register(passwords),
        "/auth/login": Login(passwords, tokens),
        "/auth/refresh": Refresh(tokens),
        "/auth/logout": Logout(),
        "/auth/me": Me(),
        #
        "/orders": Orders(cursors),
        "/orders/{order_id}": OrderById(),
        "/orders/{order_id}/events": OrderEvents(cursors),
        "/events": Events(cursors),
        "/idempotency-keys/{key:path}": IdempotencyKeyByName(),
        #
        "/webhooks/payments": PaymentWebhook(settings.webhook_secrets, failures),
        #
        "/webhook-endpoints": Endpoints(allow_private=settings.webhook_allow_private),
        "/webhook-endpoints/{endpoint_id}": EndpointById(),
        "/webhook-endpoints/{endpoint_id}/rotate": EndpointSecret(),
        "/webhook-endpoints/{endpoint_id}/deliveries": Deliveries(cursors),
        "/webhook-endpoints/{endpoint_id}/deliveries/{sequence}/redeliver": Redelivery(),
        #
        "/problems": Problems(),
        "/problems/{code}": ProblemByCode(),
        "/openapi.json": OpenApi(table),
        "/docs": Docs(),
        "/docs/{asset}": DocsAsset(),
        "/healthz": Health(),
        "/readyz": Readiness(memcached, migrator.all_ids, must_be_durable=settings.production),
        "/metrics": MetricsByToken(settings.metrics_token, settings.release, outbox),
    }
    return table
