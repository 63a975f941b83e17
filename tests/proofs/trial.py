"""One run: a crowd at work, faults beside it, and the judgement."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.proofs.books import read_books
from tests.proofs.checker import Run, Violation, check
from tests.proofs.crowd import Crowd
from tests.proofs.customer import Errand
from tests.proofs.faults import inject
from tests.proofs.history import Fault
from tests.proofs.plan import Size, schedule
from tests.proofs.site import Site

REST_S = 10


@dataclass(frozen=True)
class Trial:
    """`began`, `over`: monotonic ns; between them the crowd began new work."""

    seed: int
    began: int
    over: int
    run: Run
    violations: list[Violation]


def trial(site: Site, size: Size, seed: int) -> Trial:
    """Drives the schedule of this seed through, then lets everybody finish, and judges."""
    crowd = Crowd(_errand(site, size, seed), site.users(size.users), size.clients, site.stack.home)
    try:
        began = time.monotonic_ns()
        crowd.start()
        time.sleep(size.warm_up_s)
        faults = _drive(site, schedule(size, seed), seed)
        time.sleep(size.warm_up_s)
        over = time.monotonic_ns()
        crowd.go_home()
    finally:
        crowd.stop()
    taken = _at_rest(site)
    crowd.audit()
    run = Run(crowd.attempts(), faults, read_books(site.stack.database_url), taken)
    return Trial(seed, began, over, run, check(run))


def _at_rest(site: Site) -> int:
    """How many places are still taken when all have had time to be given back."""
    give_up = time.monotonic() + REST_S
    while (taken := site.places_taken()) and time.monotonic() < give_up:
        time.sleep(0.1)
    return taken


def _errand(site: Site, size: Size, seed: int) -> Errand:
    return Errand(
        seed=seed,
        port=site.served.port,
        secret=site.secret,
        pace_s=size.pace_s,
        gone=size.gone,
        rushes=size.rushes,
        doubled=size.doubled,
        drain_s=size.drain_s,
    )


def _drive(site: Site, lanes: Sequence[Sequence[tuple[float, str]]], seed: int) -> list[Fault]:
    """Returns when all lanes are at their end. What fails in one is raised here."""

    def one(number: int) -> list[Fault]:
        chance = random.Random(f"faults:{seed}:{number}")
        done = []
        for pause_s, kind in lanes[number]:
            time.sleep(pause_s)
            done.append(inject(kind, site, chance))
        return done

    done = site.hands.map(one, range(len(lanes)))
    return sorted((fault for lane in done for fault in lane), key=lambda fault: fault.start)
