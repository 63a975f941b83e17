"""Makes the secrets of `docker compose up`, once: a folder for each who has to know, and only that, so that each can be
a volume of its own.

    settings/settings.env   what the service reads
    database/password       what PostgreSQL is made with
    metrics/token           what Prometheus shows at /metrics
"""

import os
import secrets
import sys
from pathlib import Path

from orders_api.dev.local import new_jwt_key, new_webhook_secret


def make(folder: Path) -> bool:
    """Returns whether there was anything to make. The settings come last: they say that the others are there."""
    settings = folder / "settings" / "settings.env"
    if settings.exists():
        return False
    password, token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    _write(folder / "database" / "password", password)
    _write(folder / "metrics" / "token", token)
    made = {
        "DATABASE_URL": f"postgresql://orders:{password}@database/orders",
        "JWT_KEYS": new_jwt_key(),
        "WEBHOOK_SECRETS": new_webhook_secret(),
        "METRICS_TOKEN": token,
    }
    # A shell reads it; nothing in these alphabets means anything to a shell.
    _write(settings, "".join(f"{name}={value}\n" for name, value in made.items()))
    return True


def _write(file: Path, text: str) -> None:
    """Readable to all who see the volume: they run as different users."""
    unfinished = file.with_suffix(".new")
    unfinished.write_text(text)
    unfinished.chmod(0o444)
    os.replace(unfinished, file)


if __name__ == "__main__":
    print("Made new secrets." if make(Path(sys.argv[1])) else "The secrets are there.")
