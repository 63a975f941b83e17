"""Secrets that look real, made anew in each run, and what looks like one and is none."""

import base64
import secrets
import string
import zlib
from collections.abc import Callable
from typing import NamedTuple

LETTERS = string.ascii_letters + string.digits
CAPITALS = string.ascii_uppercase + string.digits
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def some(length: int, alphabet: str = LETTERS) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def base64_of(size: int) -> str:
    return base64.b64encode(secrets.token_bytes(size)).decode()


def base64url_of(size: int) -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(size)).decode().rstrip("=")


def github_token() -> str:
    """With the checksum that GitHub puts at the end."""
    body, rest = some(30), ""
    checksum = zlib.crc32(body.encode())
    for _ in range(6):
        checksum, digit = divmod(checksum, 62)
        rest = BASE62[digit] + rest
    return f"ghp_{body}{rest}"


def pem() -> str:
    """A key's armour around noise."""
    text = base64_of(1190)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {'RSA PRIVATE'} KEY-----", *lines, f"-----END {'RSA PRIVATE'} KEY-----"])


class Plant(NamedTuple):
    """A secret in a file, between two texts."""

    file: str
    before: str
    secret: Callable[[], str]
    behind: str = "\n"


AWS_ID = f"AKIA{some(16, string.ascii_uppercase + '234567')}"
SLACK = "https://hooks.slack.com/services/"
PLANTS = {
    "AWS key pair": [
        Plant("credentials", f"[ci]\naws_access_key_id = {AWS_ID}\naws_secret_access_key = ", lambda: base64_of(30)),
        Plant(".env", "AWS_SECRET_ACCESS_KEY=", lambda: base64_of(30)),
    ],
    "Stripe key": [Plant("pay.py", 'stripe.api_key = "', lambda: f"sk_live_{some(24)}", '"\n')],
    "Slack webhook": [
        Plant("tell.py", f'URL = "{SLACK}', lambda: f"T{some(10, CAPITALS)}/B{some(10, CAPITALS)}/{some(24)}", '"\n')
    ],
    "GitHub token": [Plant("release.sh", "export GITHUB_TOKEN=", github_token)],
    "PEM key": [Plant("tls.pem", "", pem)],
    "JWT_KEYS": [
        Plant(".env", "ENVIRONMENT=production\nJWT_KEYS=2026-11:", lambda: base64url_of(32)),
        Plant("values.yaml", "env:\n  - name: JWT_KEYS\n    value: a:", lambda: base64url_of(32)),
    ],
    "WEBHOOK_SECRETS": [
        Plant(".env", "WEBHOOK_SECRETS=whsec_", lambda: base64_of(32)),
        Plant("values.yaml", 'env:\n  WEBHOOK_SECRETS: "whsec_', lambda: base64_of(24), '"\n'),
    ],
    "password in DATABASE_URL": [
        Plant(".env", "DATABASE_URL=postgres://orders:", lambda: some(12), "@db.internal:5432/orders\n"),
        Plant("dev.yml", "x:\n  DATABASE_URL: postgresql://orders:", lambda: some(8, "abc"), "@localhost/orders\n"),
    ],
    "password in a compose file": [
        Plant("docker-compose.yml", "services:\n  db:\n    environment:\n      POSTGRES_PASSWORD: ", lambda: some(12)),
        Plant("compose.yaml", "x:\n  - POSTGRES_PASSWORD=${POSTGRES_PASSWORD:-", lambda: some(9), "}\n"),
    ],
    "tokens": [
        Plant(".env", "METRICS_TOKEN=", lambda: f"{some(20)}42"),
        Plant("app.json", '{"SENTRY_DSN": "https://', lambda: secrets.token_hex(16), '@o1.ingest.sentry.io/2"}\n'),
    ],
}

NONE_AT_ALL = {
    ".env.example": "JWT_KEYS=\nWEBHOOK_SECRETS=\nDATABASE_URL=\nPGPASSWORD=\nMETRICS_TOKEN=\nAWS_SECRET_ACCESS_KEY=\n",
    "README.md": "`JWT_KEYS` is a ring of `kid:base64url`, `WEBHOOK_SECRETS` one of `whsec_<base64>`.\n"
    'DATABASE_URL="postgres://orders:$PGPASSWORD@localhost/orders" make run\n'
    "DATABASE_URL=postgres://orders:$SECRET@db/orders, DATABASE_URL=postgres://user:password@host:5432/name\n",
    "docker-compose.yml": "services:\n  db:\n    environment:\n"
    "      POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?run make first}\n"
    "      POSTGRES_PASSWORD_FILE: /run/secrets/postgres\n"
    "      DATABASE_URL: postgres://orders:${POSTGRES_PASSWORD}@db:5432/orders\n      JWT_KEYS: ${JWT_KEYS}\n",
    "settings.py": 'keys = os.environ["JWT_KEYS"]\nPGPASSWORD = read(path)\nbody = {"password": request["password"]}\n'
    'ORDER = "01a20814-59e4-74bc-910e-372d2e4587d7"\n',
    "ci.yml": "env:\n  PGPASSWORD: ${{ secrets.DATABASE }}\n  METRICS_TOKEN: ${{ secrets.METRICS }}\n",
}
