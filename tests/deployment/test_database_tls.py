"""`DATABASE_URL` with TLS options, on a PostgreSQL that speaks TLS: the service trusts whom it is told to."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from orders_api.dev import EmbeddedPostgres
from orders_api.dev.children import primary_group, unprivileged
from tests import pooler
from tests.client import Client, assert_problem
from tests.conftest import a_postgres, free_port
from tests.test_commands import run

SYSTEM = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
pytestmark = [
    pytest.mark.skipif(not SYSTEM, reason="the embedded PostgreSQL knows no TLS, and no other is installed"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with"),
    pytest.mark.skipif(pooler.ON, reason="PgBouncer's own way to PostgreSQL is set in its configuration"),
]


class TlsPostgres(EmbeddedPostgres):
    """On TCP, where there is TLS, and with a certificate for localhost."""

    def __init__(self, home: Path) -> None:
        super().__init__(home / "data", home / "s", durable=False, environ={"PG_BINDIR": str(SYSTEM[-1].parent)})
        self.port = free_port()
        self.certificate, self.key = certificate(home / "server")

    def url(self, database: str = "orders", options: str = "sslmode=require") -> str:
        return f"postgres://postgres@localhost:{self.port}/{database}?{options}"

    def _flags(self) -> list[str]:
        values = {"listen_addresses": "localhost", "port": self.port, "ssl": "on"}
        values |= {"ssl_cert_file": self.certificate, "ssl_key_file": self.key}
        return [*super()._flags(), *(word for name, value in values.items() for word in ("-c", f"{name}={value}"))]


def certificate(path: Path) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, and its key, which only PostgreSQL may read."""
    pem, key = path.with_suffix(".pem"), path.with_suffix(".key")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(["openssl", *kind, *subject, "-keyout", key, "-out", pem], check=True, capture_output=True)
    key.chmod(0o600)
    if user := unprivileged():
        shutil.chown(key, user, primary_group(user))
    return pem, key


@pytest.fixture(scope="module")
def tls_postgres() -> Iterator[TlsPostgres]:
    with a_postgres(TlsPostgres) as postgres:
        postgres.start()
        yield postgres


def test_release_and_service_reach_a_database_that_they_verify(tls_postgres, serve):
    url = tls_postgres.url(options=f"sslmode=verify-full&sslrootcert={tls_postgres.certificate}")
    released = run("migrate", DATABASE_URL=url)
    carol = Client(serve(database_url=url, WEB_CONCURRENCY="1").url).register().login()
    placed = carol.place()
    with psycopg.connect(url) as sql:
        query = (
            "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            " WHERE application_name = 'orders-api'"
        )
        encrypted = sql.execute(query).fetchall()
    carol.close()

    assert released.stdout.startswith("Applied 0001_accounts"), released.stderr
    assert placed.status_code == 201
    assert encrypted == [(True,)]


def test_a_database_that_another_authority_vouches_for_is_not_trusted(tls_postgres, serve, tmp_path):
    stranger, _ = certificate(tmp_path / "stranger")
    server = serve(
        database_url=tls_postgres.url(options=f"sslmode=verify-full&sslrootcert={stranger}"), WEB_CONCURRENCY="1"
    )
    nobody = Client(server.url)

    assert_problem(nobody.get("/readyz"), 503, "database_unavailable")
    nobody.close()
