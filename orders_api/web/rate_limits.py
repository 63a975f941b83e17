"""Rate limits: per IP before authentication, per user after it, counted in memcached over all processes."""

import functools
import ipaddress
import time
from typing import NamedTuple

import falcon
from limits import RateLimitItem
from limits.storage import MemoryStorage

from orders_api import metrics
from orders_api.errors import Problem
from orders_api.memcached import Batch, Memcached, Reply
from orders_api.settings import Settings
from orders_api.web.resources import Resource

REMEMBERED = 4096  # addresses, keys


class Verdict(NamedTuple):
    """How a request stands with one limit: what is left of it, and in how many seconds it starts anew."""

    policy: str
    item: RateLimitItem
    hits: int
    reset_s: int

    @property
    def remaining(self) -> int:
        return max(0, self.item.amount - self.hits)

    @property
    def share_left(self) -> float:
        return self.remaining / self.item.amount

    def check(self) -> None:
        """Raises rate_limited over the limit."""
        if self.hits > self.item.amount:
            metrics.limit_denials.labels(self.policy).inc()
            raise Problem(
                "rate_limited",
                f"Over {self.item.amount} requests in {self.item.get_expiry()} seconds; try again in {self.reset_s} s.",
                after_s=self.reset_s,
                headers=self.headers(),
            )

    def headers(self) -> dict[str, str]:
        """draft-ietf-httpapi-ratelimit-headers."""
        return {
            "RateLimit-Policy": f'"{self.policy}";q={self.item.amount};w={self.item.get_expiry()}',
            "RateLimit": f'"{self.policy}";r={self.remaining};t={self.reset_s}',
        }


class Limiter:
    """Counts a hit in a window that starts with its first one. Without memcached each process counts for itself."""

    def __init__(self, settings: Settings) -> None:
        self.items = {
            "ip": settings.rate_limit_ip,
            "user": settings.rate_limit_user,
            "auth": settings.rate_limit_auth,
        }
        self.own = MemoryStorage()
        self._used_up: dict[str, float] = {}  # networks, and until when (time.monotonic), as far as this process knows
        # To write a key costs 1 % of a cached read, and the same few send most requests.
        self._key_of = functools.lru_cache(REMEMBERED)(lambda policy, whom: self.items[policy].key_for(policy, whom))

    def hit(self, batch: Batch, policy: str, whom: str) -> "Hit":
        """Counts in a batch that is yet to run."""
        item, key = self.items[policy], self._key_of(policy, whom)
        return Hit(self, policy, item, whom, key, batch.count(whom, key, item.get_expiry()))

    def is_used_up(self, ip: str) -> bool:
        """Whether the limit of this address was, when it was last counted here."""
        return bool(self._used_up) and self._used_up.get(network_of(ip), 0.0) > time.monotonic()

    def note_used_up(self, network: str, for_s: int) -> None:
        if len(self._used_up) >= REMEMBERED:
            del self._used_up[next(iter(self._used_up))]
        self._used_up[network] = time.monotonic() + for_s


class Hit(NamedTuple):
    """One request counted against one limit."""

    limiter: Limiter
    policy: str
    item: RateLimitItem
    whom: str
    key: str
    reply: Reply

    def verdict(self) -> Verdict:
        window_s = self.item.get_expiry()
        if self.reply.value is not None:
            count, left_s = int(self.reply.value), self.reply.number(b"t")
        else:
            metrics.limit_fallbacks.labels(self.policy).inc()
            count = self.limiter.own.incr(self.key, window_s)
            left_s = round(self.limiter.own.get_expiry(self.key) - time.time() + 0.5)
        if count > self.item.amount and self.policy == "ip":
            self.limiter.note_used_up(self.whom, left_s)
        return Verdict(self.policy, self.item, count, max(1, left_s))


class Limits:
    """Middleware: hits those of the resource's limits that count `stage`: "ip" (before authentication) or "user"."""

    def __init__(self, limiter: Limiter, memcached: Memcached, stage: str) -> None:
        self.limiter = limiter
        self.memcached = memcached
        self.by_user = stage == "user"

    def look_ahead(self, req: falcon.Request, resource: Resource, batch: Batch) -> None:
        if self.by_user:
            bearer = req.context.bearer
            limited = bearer and "user" in resource.limits
            req.context.user_hits = [self.limiter.hit(batch, "user", bearer.home)] if limited else []
            return
        network = network_of(req.context.client_ip)
        req.context.verdicts = []
        req.context.ip_hits = [self.limiter.hit(batch, name, network) for name in resource.limits if name != "user"]

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        for hit in req.context.user_hits if self.by_user else req.context.ip_hits:
            verdict = hit.verdict()
            verdict.check()
            req.context.verdicts.append(verdict)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: Resource | None, req_succeeded: bool
    ) -> None:
        if self.by_user:
            self._take_back(req)
        verdicts = getattr(req.context, "verdicts", None)
        if verdicts and resp.get_header("RateLimit") is None:
            resp.set_headers(min(verdicts, key=lambda verdict: verdict.share_left).headers())

    def _take_back(self, req: falcon.Request) -> None:
        """What was counted ahead for a user whom nothing then told to be the one who asked.

        Else who has an old token could use up all of its user's limit with it.
        """
        hits = getattr(req.context, "user_hits", None)
        if hits and not hasattr(req.context, "user_id"):
            batch = self.memcached.batch()
            for hit in hits:
                batch.take_back(hit.whom, hit.key)
            batch.run()


class Failures:
    """Counts by IP what failed, for callers who are not limited in what succeeds: against the IP's limit, and apart."""

    def __init__(self, limiter: Limiter, memcached: Memcached, name: str) -> None:
        self.limiter = limiter
        self.memcached = memcached
        self.name = name

    def add(self, req: falcon.Request) -> tuple[Verdict, int, int]:
        """How the client stands with the IP's limit; how many failures of its own, and of all, a window has seen."""
        network = network_of(req.context.client_ip)
        batch = self.memcached.batch()
        keys = (network, f"{self.name}:{network}", self.name)
        hits = [self.limiter.hit(batch, "ip", key) for key in keys]
        batch.run()
        verdict, own, of_all = (hit.verdict() for hit in hits)
        req.context.verdicts.append(verdict)
        return verdict, own.hits, of_all.hits


def client_ip(socket_ip: str, forwarded_for: str | None, hops: int) -> str:
    """The `hops`-th entry from the right of X-Forwarded-For; the socket's where there is none or it is no address."""
    entries = (forwarded_for or "").split(",")
    if hops == 0 or len(entries) < hops:
        return socket_ip
    try:
        return _address(_without_port(entries[-hops].strip()))
    except ValueError:
        return socket_ip


# Parsing an address costs 3 % of a cached read, and few of them send most requests.
@functools.lru_cache(REMEMBERED)
def _address(text: str) -> str:
    return str(ipaddress.ip_address(text))


@functools.lru_cache(REMEMBERED)
def network_of(ip: str) -> str:
    """What counts as one client: an IPv4 address, or an IPv6 /64."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _without_port(entry: str) -> str:
    """Some proxies write `192.0.2.1:4711` or `[2001:db8::1]:4711`."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry
