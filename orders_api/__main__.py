"""The `orders-api` command."""

import base64
import os
import secrets
import sys

import click
import psycopg

from orders_api.errors import Problem
from orders_api.settings import SettingError, Settings

EX_CONFIG = 78  # sysexits.h: something is wrong with the configuration


class Commands(click.Group):
    """Turns what an operator can cure into one sentence: a traceback would hide it, and might show a value."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SettingError as error:
            click.echo(f"orders-api: {error}", err=True)
            sys.exit(EX_CONFIG)
        except psycopg.OperationalError as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise click.ClickException(f"The database can't be reached (DATABASE_URL): {said}") from None
        except Problem as problem:
            raise click.ClickException(f"{problem.type.title} ({problem.code}).") from None


@click.group(cls=Commands)
def main() -> None:
    """Runs and tends the orders service."""


@main.command()
def dev() -> None:
    """Starts everything on this machine, for development (`make run`)."""
    from orders_api.dev import run

    sys.exit(run(os.environ))


@main.command()
def migrate() -> None:
    """Applies the pending migrations."""
    from orders_api import migrator

    try:
        applied = migrator.migrate(Settings.from_env().database_url)
    except migrator.MigrationLockError as error:
        raise click.ClickException(str(error)) from None
    click.echo("Applied " + ", ".join(applied) if applied else "Nothing to apply.")


@main.command()
@click.option("--count", default=1, type=click.IntRange(1), show_default=True, help="How many, newest first.")
def rollback(count: int) -> None:
    """Takes back the last migrations."""
    from orders_api import migrator

    try:
        undone = migrator.rollback(Settings.from_env().database_url, count)
    except migrator.MigrationLockError as error:
        raise click.ClickException(str(error)) from None
    click.echo("Rolled back " + ", ".join(undone) if undone else "Nothing to roll back.")


@main.command()
@click.option("--email", default="demo@example.com", show_default=True)
@click.option("--password", envvar="DEMO_PASSWORD", required=True, help="Better given as DEMO_PASSWORD.")
def seed(email: str, password: str) -> None:
    """Makes a demo user with a few orders; development only."""
    settings = Settings.from_env()
    if settings.production:
        raise SettingError("ENVIRONMENT", "is production, where no demo user is made")
    from orders_api.db import db
    from orders_api.seeds import seed as make

    db.open(settings)
    try:
        made = make(email, password)
    finally:
        db.shut()
    click.echo(f"Made {email} with five orders." if made else f"{email} is already there.")


@main.command()
def keys() -> None:
    """Makes a new JWT key and a new webhook secret, and prints them."""
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    click.echo(f"JWT_KEYS={secrets.token_hex(4)}:{key}")
    click.echo(f"WEBHOOK_SECRETS=whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")


@main.command()
def expire() -> None:
    """Deletes expired idempotency answers and sessions, in batches; run it every hour or so."""
    settings = Settings.from_env()
    from orders_api.accounts.services import expire_sessions
    from orders_api.db import db
    from orders_api.web.idempotency import expire_keys

    db.open(settings)
    try:
        click.echo(f"Expired {expire_keys()} idempotency keys and {expire_sessions()} sessions.")
    finally:
        db.shut()


if __name__ == "__main__":
    main(prog_name="orders-api")
