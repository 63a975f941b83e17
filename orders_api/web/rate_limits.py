"""Rate limits: per IP before authentication, per user after it, counted in memcached over all processes."""

import ipaddress
import time
from dataclasses import dataclass

import falcon
from limits import RateLimitItem
from limits.storage import MemoryStorage

from orders_api.cache import Cache, Unavailable
from orders_api.errors import Problem
from orders_api.settings import Settings
from orders_api.web.resources import Resource


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a request stands with one limit: what is left of it, and in how many seconds it starts anew."""

    policy: str
    item: RateLimitItem
    count: int
    reset_s: int

    @property
    def remaining(self) -> int:
        return max(0, self.item.amount - self.count)

    @property
    def share_left(self) -> float:
        return self.remaining / self.item.amount

    def headers(self) -> dict[str, str]:
        """draft-ietf-httpapi-ratelimit-headers."""
        return {
            "RateLimit-Policy": f'"{self.policy}";q={self.item.amount};w={self.item.get_expiry()}',
            "RateLimit": f'"{self.policy}";r={self.remaining};t={self.reset_s}',
        }


class Limiter:
    """Counts a hit in a window that starts with its first one. Without memcached each process counts for itself."""

    def __init__(self, settings: Settings, cache: Cache) -> None:
        self.items = {
            "ip": settings.rate_limit_ip,
            "user": settings.rate_limit_user,
            "auth": settings.rate_limit_auth,
        }
        self.cache = cache
        self.own = MemoryStorage()

    def hit(self, policy: str, whom: str) -> Verdict:
        """Raises rate_limited over the limit."""
        item = self.items[policy]
        key = item.key_for(policy, whom)
        window_s = item.get_expiry()
        try:
            count, reset_s = self.cache.count(key, window_s)
        except Unavailable:
            count = self.own.incr(key, window_s)
            reset_s = max(1, round(self.own.get_expiry(key) - time.time() + 0.5))
        verdict = Verdict(policy, item, count, reset_s)
        if count > item.amount:
            raise Problem(
                "rate_limited",
                f"Over {item.amount} requests in {window_s} seconds; try again in {reset_s} s.",
                after_s=reset_s,
                headers=verdict.headers(),
            )
        return verdict


class Limits:
    """Middleware: hits those of the resource's limits that count `stage`: "ip" (before authentication) or "user"."""

    def __init__(self, limiter: Limiter, stage: str, trusted_proxy_hops: int) -> None:
        self.limiter = limiter
        self.by_user = stage == "user"
        self.hops = trusted_proxy_hops

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: Resource, params: dict) -> None:
        if self.by_user and not hasattr(req.context, "user_id"):
            return
        if not self.by_user:
            req.context.client_ip = client_ip(req.remote_addr, req.get_header("X-Forwarded-For"), self.hops)
            req.context.verdicts = []
        whom = str(req.context.user_id) if self.by_user else network_of(req.context.client_ip)
        for policy in resource.limits:
            if (policy == "user") is self.by_user:
                req.context.verdicts.append(self.limiter.hit(policy, whom))

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: Resource | None, req_succeeded: bool
    ) -> None:
        verdicts = getattr(req.context, "verdicts", None)
        if verdicts and resp.get_header("RateLimit") is None:
            resp.set_headers(min(verdicts, key=lambda verdict: verdict.share_left).headers())


def client_ip(socket_ip: str, forwarded_for: str | None, hops: int) -> str:
    """The `hops`-th entry from the right of X-Forwarded-For; the socket's where there is none or it is no address."""
    entries = (forwarded_for or "").split(",")
    if hops == 0 or len(entries) < hops:
        return socket_ip
    try:
        return str(ipaddress.ip_address(_without_port(entries[-hops].strip())))
    except ValueError:
        return socket_ip


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
