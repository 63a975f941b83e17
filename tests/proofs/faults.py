"""What is done to the service: each fault a function, which returns when the service can work again."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg

from tests.proofs.history import Fault
from tests.proofs.site import Site

Break = Callable[[Site, random.Random], None]
FAULTS: dict[str, Break] = {}
OF_A_WORKER = ("worker killed", "worker stopped", "master told to end", "master told to reload")


def fault(kind: str) -> Callable[[Break], Break]:
    def register(break_: Break) -> Break:
        FAULTS[kind] = break_
        return break_

    return register


def inject(kind: str, site: Site, chance: random.Random) -> Fault:
    start = time.monotonic_ns()
    FAULTS[kind](site, chance)
    return Fault(kind, start, time.monotonic_ns())


@fault("worker killed")
def _(site: Site, chance: random.Random) -> None:
    os.kill(chance.choice(site.workers()), signal.SIGKILL)


@fault("worker stopped")
def _(site: Site, chance: random.Random) -> None:
    """Until the master has seen that its heart does not beat, and has replaced it."""
    worker = chance.choice(site.workers())
    os.kill(worker, signal.SIGSTOP)
    site.wait_for_workers({worker})


@fault("master told to end")
def _(site: Site, _chance: random.Random) -> None:
    site.restart()


@fault("master told to reload")
def _(site: Site, _chance: random.Random) -> None:
    old = set(site.workers())
    site.served.process.send_signal(signal.SIGHUP)
    site.wait_for_workers(old)


@fault("PostgreSQL crashed")
def _(site: Site, _chance: random.Random) -> None:
    """`pg_ctl -m immediate`: no checkpoint, recovery at the next start."""
    postgres = site.stack.postgres
    postgres.process.send_signal(signal.SIGQUIT)
    postgres.process.wait(10)
    postgres.start()


@fault("backends terminated")
def _(site: Site, _chance: random.Random) -> None:
    for _ in range(3):
        with suppress(psycopg.OperationalError), site.sql() as connection:  # PostgreSQL may crash meanwhile
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orders-api'"
            )
        time.sleep(0.05)


@fault("answer to COMMIT lost")
def _(site: Site, _chance: random.Random) -> None:
    site.command("drop")


@fault("PostgreSQL stalled")
def _(site: Site, chance: random.Random) -> None:
    with site.stopped(site.postgres_pids()):
        time.sleep(chance.uniform(2, 5))


@fault("PostgreSQL's connections reset")
def _(site: Site, _chance: random.Random) -> None:
    site.command("reset")


@fault("memcached killed")
def _(site: Site, chance: random.Random) -> None:
    memcached = site.stack.memcached
    memcached.process.kill()
    memcached.process.wait()
    time.sleep(chance.uniform(0, 1.5))
    memcached.start(int(site.address.split(":")[1]))


@fault("memcached flushed")
def _(site: Site, _chance: random.Random) -> None:
    assert site.memcached_says(b"flush_all") == b"OK\r\n"


@fault("memcached stopped")
def _(site: Site, chance: random.Random) -> None:
    pid = site.stack.memcached.process.pid
    with site.stopped([pid]):
        time.sleep(chance.uniform(0.2, 2))


@fault("pool exhausted")
def _(site: Site, _chance: random.Random) -> None:
    """Everything waits for one lock, each on a connection of its own."""
    with site.sql() as connection, connection.transaction():
        connection.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        time.sleep(2)


@fault("database read-only")
def _(site: Site, chance: random.Random) -> None:
    with site.sql() as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        time.sleep(chance.uniform(0.5, 1.5))
        connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        connection.execute("SELECT pg_reload_conf()")
