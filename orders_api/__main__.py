"""The `orders-api` command."""

import atexit
import contextlib
import gc
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

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
    atexit.register(gc.freeze)  # else Python looks through all there is for cycles at its end: 0.2 s of the processor


@main.command()
def dev() -> None:
    """Starts everything on this machine, for development (`make run`)."""
    from orders_api.dev import run

    sys.exit(run(os.environ))


@main.command()
def migrate() -> None:
    """Applies the pending migrations."""
    from orders_api import migrator, sightings

    settings = Settings.from_env()
    try:
        applied = migrator.migrate(settings.database_url)
    except migrator.MigrationLockError as error:
        raise click.ClickException(str(error)) from None
    sightings.record(settings)
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
    from orders_api.seeds import seed as make

    with _database(settings):
        made = make(email, password)
    click.echo(f"Made {email} with five orders." if made else f"{email} is already there.")


@main.command()
@click.argument("order_id", type=click.UUID)
@click.option("--refund", is_flag=True, help="Gives the money back instead.")
@click.option("--amount", type=click.IntRange(0), help="In minor units; else the order's total.")
@click.option("--url", help="Of the service; else the one on this machine.")
def pay(order_id: uuid.UUID, refund: bool, amount: int | None, url: str | None) -> None:
    """Pays an order: sends the webhook that a payment provider would send, signed with the first of WEBHOOK_SECRETS."""
    from orders_api.dev import running_env
    from orders_api.payments import provider
    from orders_api.payments.services import find_amount

    settings = Settings.from_env({**running_env(os.environ), **os.environ})
    if not settings.webhook_secrets:
        raise SettingError("WEBHOOK_SECRETS", "is not set, so nothing can be signed")
    with _database(settings):
        total, currency = find_amount(order_id)
    kind, cents = f"payment.{'refunded' if refund else 'succeeded'}", total if amount is None else amount
    address = f"{(url or f'http://127.0.0.1:{settings.port}').rstrip('/')}/webhooks/payments"
    try:
        status, said = provider.send(address, settings.webhook_secrets[0], kind, str(order_id), cents, currency)
    except provider.NotSent as error:
        raise click.ClickException(f"{address} does not answer: {error}.") from None
    if status != HTTPStatus.NO_CONTENT:
        raise click.ClickException(f"{address} answered {status}: {said}")
    click.echo(f"Sent {kind} of {cents} {currency} for {order_id}; the service has it.")


@main.command()
def deliver() -> None:
    """Sends webhooks to users' endpoints until it is told to stop; any number may run."""
    from orders_api import logs, sightings
    from orders_api.reporting import reporter
    from orders_api.webhooks.worker import Worker

    settings = Settings.from_env()
    logs.configure()
    reporter.open(settings)
    worker = Worker(allow_private=settings.webhook_allow_private)
    worker.heed_signals()
    # It starts with the web's settings, also where a change of them runs no `migrate`.
    with contextlib.suppress(psycopg.Error):
        sightings.record(settings)
    try:
        with _database(settings):
            worker.run()
    finally:
        reporter.shut()


@main.command()
def openapi() -> None:
    """Prints the API's description (OpenAPI 3.1); needs no setting."""
    import orjson

    from orders_api.app import describe

    click.echo(orjson.dumps(describe(), option=orjson.OPT_INDENT_2))


@main.group(invoke_without_command=True)
@click.pass_context
def keys(ctx: click.Context) -> None:
    """Shows how old each secret is, never its value; `orders-api keys new` makes new ones."""
    if ctx.invoked_subcommand:
        return
    from orders_api import sightings
    from orders_api.dev import running_env

    try:
        seen = sightings.record(Settings.from_env({**running_env(os.environ), **os.environ}))
    except psycopg.errors.UndefinedTable:
        raise click.ClickException("The database is not migrated: run `orders-api migrate` first.") from None
    for line in sightings.table(seen):
        click.echo(line)


@keys.command()
def new() -> None:
    """Makes a new JWT key and a new webhook secret, and prints them."""
    from orders_api.dev.local import new_jwt_key, new_webhook_secret

    click.echo(f"JWT_KEYS={new_jwt_key()}")
    click.echo(f"WEBHOOK_SECRETS={new_webhook_secret()}")


@main.command()
def expire() -> None:
    """Deletes what is of no use any more, in batches; run it every hour or so.

    Expired idempotency answers and sessions, audit rows after 90 days, ended deliveries after 30.
    """
    from orders_api.accounts.services import expire_sessions
    from orders_api.payments.services import prune_attempts
    from orders_api.web.idempotency import expire_keys
    from orders_api.webhooks.services import prune_deliveries

    with _database(Settings.from_env()):
        click.echo(
            f"Expired {expire_keys()} idempotency keys, {expire_sessions()} sessions,"
            f" {prune_attempts()} audit rows and {prune_deliveries()} deliveries of webhooks."
        )


@contextmanager
def _database(settings: Settings) -> Iterator[None]:
    from orders_api.db import db

    db.open(settings)
    try:
        yield
    finally:
        db.shut()


if __name__ == "__main__":
    main(prog_name="orders-api")
