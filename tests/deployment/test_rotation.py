"""Each secret is rotated with traffic running: new instances start, the old ones drain, and no request fails.

The steps are those of docs/deployment.md. While two generations run side by side, connections go to either.
"""

import secrets
import signal
from collections.abc import Callable, Iterator

import httpx
import psycopg
import pytest

from orders_api import migrator
from orders_api.dev import EmbeddedPostgres
from orders_api.dev.local import new_jwt_key
from perf.router import Router
from tests import pooler
from tests.client import Client
from tests.conftest import ROOT, Server, a_postgres
from tests.deployment.traffic import Traffic
from tests.payments.conftest import whsec
from tests.payments.provider import Provider
from tests.reporting.sentry import Sentry
from tests.web.raw import wait_until

LOGIN_SQL = (ROOT / "conf/login.sql").read_text()
SCRAM = "local all postgres trust\nlocal all all scram-sha-256\n"
EACH_TIME = {"Connection": "close"}  # beside those who keep their connection: they see both generations


class Deployment:
    """One instance behind a router, until it is replaced by its successor."""

    def __init__(self, serve: Callable[..., Server], router: Router, traffic: Traffic, **settings: str) -> None:
        self.settings = {"WEB_CONCURRENCY": "1", **settings}
        self.router, self.traffic, self.serve = router, traffic, serve
        self.database_url = self.settings.pop("DATABASE_URL", None)
        self.current = serve(database_url=self.database_url, **self.settings)
        self.database_url = self.database_url or self.current.database_url
        # What a server of the tests gets of its own is the deployment's.
        self.settings.setdefault("JWT_KEYS", self.current.env["JWT_KEYS"])
        self.draining: list[Server] = []
        router.targets = [self.current]

    def roll(self, **changes: str) -> None:
        """Starts an instance with changed settings, lets both serve, then drains the old one by SIGTERM."""
        old = self.current
        self.database_url = changes.pop("DATABASE_URL", self.database_url)
        self.settings |= changes
        self.current = self.serve(database_url=self.database_url, **self.settings)
        self.router.targets = [old, self.current]
        self.traffic.some_more(16)
        self.router.targets = [self.current]
        self.traffic.some_more(2)
        self.draining.append(old)
        old.process.send_signal(signal.SIGTERM)

    def drained(self) -> None:
        """Returns when the old instances have ended."""
        assert [old.process.wait(27) for old in self.draining] == [0] * len(self.draining)


@pytest.fixture
def router() -> Iterator[Router]:
    one = Router()
    yield one
    one.close()


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def deploy(serve, router, traffic) -> Callable[..., Deployment]:
    return lambda **settings: Deployment(serve, router, traffic, **settings)


@pytest.fixture
def people(router) -> Iterator[Callable[[], Client]]:
    made: list[Client] = []

    def join() -> Client:
        made.append(Client(router.url).register().login())
        return made[-1]

    yield join
    for one in made:
        one.close()


def refresh(client: Client) -> httpx.Response:
    answer = client.http.post("/auth/refresh", json={"refresh_token": client.refresh_token}, headers=EACH_TIME)
    if answer.is_success:
        client.access_token, client.refresh_token = answer.json()["access_token"], answer.json()["refresh_token"]
    return answer


def test_jwt_keys(deploy, people, traffic):
    old, new = new_jwt_key(), new_jwt_key()
    deployment = deploy(JWT_KEYS=old)
    alice, elder = people(), people()

    def alices() -> list[httpx.Response]:
        return [alice.get("/auth/me"), refresh(alice), alice.get("/auth/me", headers=EACH_TIME)]

    def elders() -> list[httpx.Response]:
        return [elder.get("/orders"), elder.get("/auth/me", headers=EACH_TIME)]

    with traffic.flowing([alices, elders]):
        deployment.roll(JWT_KEYS=f"{old},{new}")
        deployment.roll(JWT_KEYS=f"{new},{old}")
        refresh(elder)  # a quarter of an hour later no token of the old key lives
        deployment.roll(JWT_KEYS=new)
        deployment.drained()
    assert traffic.failures == []


def test_cursor_keys(deploy, people, traffic):
    old, new = new_jwt_key(), new_jwt_key()
    deployment = deploy(CURSOR_KEYS=old)
    alice, walker = people(), people()
    for _ in range(3):
        walker.place()
    cursors = {"feed": "", "page": walker.get("/orders?limit=1").json()["next_cursor"]}

    def follow() -> Iterator[httpx.Response]:
        """Alice's poller keeps its cursor from answer to answer."""
        yield alice.place()
        feed = alice.get(f"/events?limit=1&cursor={cursors['feed']}".removesuffix("&cursor="), headers=EACH_TIME)
        cursors["feed"] = feed.json().get("next_cursor")
        yield feed

    def walk() -> list[httpx.Response]:
        return [walker.get(f"/orders?limit=1&cursor={cursors['page']}", headers=EACH_TIME)]

    with traffic.flowing([follow, walk]):
        deployment.roll(CURSOR_KEYS=f"{old},{new}")
        deployment.roll(CURSOR_KEYS=f"{new},{old}")
        walker.place()  # a page that is cached, for a minute at most, brings an old cursor
        cursors["page"] = walker.get("/orders?limit=1").json()["next_cursor"]
        deployment.roll(CURSOR_KEYS=new)
        deployment.drained()
    assert traffic.failures == []


def test_webhook_secrets(deploy, people, traffic, router):
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    deployment = deploy(WEBHOOK_SECRETS=whsec(old))
    alice, provider = people(), Provider(router.url, old)
    provider.http.headers.update(EACH_TIME)

    def pay() -> Iterator[httpx.Response]:
        order = alice.place()
        yield order
        yield provider.succeeded(order.json())

    with traffic.flowing([pay]):
        deployment.roll(WEBHOOK_SECRETS=f"{whsec(old)},{whsec(new)}")
        provider.secret = new
        traffic.some_more()
        deployment.roll(WEBHOOK_SECRETS=whsec(new))
        deployment.drained()
    provider.close()
    assert traffic.failures == []


def test_the_sentry_dsn(deploy, people, traffic):
    with Sentry() as old, Sentry() as new:
        deployment = deploy(SENTRY_DSN=old.dsn, SENTRY_TRACES_RATE="1")
        alice = people()
        with traffic.flowing([lambda: [alice.place(), alice.get("/orders", headers=EACH_TIME)]]):
            wait_until(lambda: old.of("transaction"))
            deployment.roll(SENTRY_DSN=new.dsn)
            deployment.drained()
            told_the_old, told_the_new = len(old.of("transaction")), len(new.of("transaction"))
            wait_until(lambda: len(new.of("transaction")) > told_the_new)
        assert len(old.of("transaction")) == told_the_old
    assert traffic.failures == []


@pytest.fixture
def guarded() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that asks for passwords, with two logins for the service."""
    with a_postgres() as postgres:
        migrator.migrate(postgres.start())
        (postgres.data_dir / "pg_hba.conf").write_text(SCRAM)
        with psycopg.connect(postgres.url(), autocommit=True) as owner:
            owner.execute("SELECT pg_reload_conf()")
            for login in ("orders_blue", "orders_green"):
                owner.execute(LOGIN_SQL.replace("orders_service", login))
        yield postgres


@pytest.mark.skipif(pooler.ON, reason="PgBouncer knows the logins' passwords itself")
def test_the_database_password(deploy, people, traffic, guarded):
    """Two logins take turns, so that none is ever without a valid password."""

    def url(login: str) -> str:
        return guarded.url().replace("user=postgres", f"user={login}&password={login}-secret")

    def sessions() -> list[str]:
        query = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'orders-api'"
        return [login for (login,) in owner.execute(query)]

    with psycopg.connect(guarded.url(), autocommit=True) as owner:
        owner.execute("ALTER ROLE orders_blue PASSWORD 'orders_blue-secret'")
        deployment = deploy(DATABASE_URL=url("orders_blue"))
        alice = people()
        with traffic.flowing([lambda: [alice.place(), alice.get("/orders", headers=EACH_TIME)]]):
            owner.execute("ALTER ROLE orders_green PASSWORD 'orders_green-secret'")
            deployment.roll(DATABASE_URL=url("orders_green"))
            deployment.drained()
            owner.execute("ALTER ROLE orders_blue PASSWORD NULL")
            wait_until(lambda: sessions() == ["orders_green"])
            traffic.some_more()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(url("orders_blue"))
    assert traffic.failures == []
