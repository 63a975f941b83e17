"""The embedded services behind `orders-api dev` and the tests: finds or starts PostgreSQL and memcached."""

from orders_api.dev.children import DevError
from orders_api.dev.memcached import EmbeddedMemcached
from orders_api.dev.postgres import EmbeddedPostgres
from orders_api.dev.runner import run, running_env

__all__ = ["DevError", "EmbeddedMemcached", "EmbeddedPostgres", "run", "running_env"]
