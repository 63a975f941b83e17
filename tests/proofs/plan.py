"""What a run consists of: how many faults of each kind, in which order, and what it must have shown in the end."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

# Two sequences of faults run side by side, for troubles don't wait for each other.
LANES = (
    (
        "worker killed",
        "worker stopped",
        "master told to end",
        "master told to reload",
        "PostgreSQL crashed",
        "PostgreSQL stalled",
        "PostgreSQL's connections reset",
        "pool exhausted",
        "database read-only",
    ),
    ("backends terminated", "answer to COMMIT lost", "memcached killed", "memcached flushed", "memcached stopped"),
)


@dataclass(frozen=True)
class Size:
    """`calm_s`: the mean pause between two faults of a lane. `least`: the figures that all runs together must reach."""

    name: str
    faults: Mapping[str, int]
    least: Mapping[str, int]
    calm_s: tuple[float, float] = (0.6, 1.6)
    clients: int = 24
    users: int = 12
    pace_s: float = 0.05
    gone: float = 0.05
    rushes: float = 0.08
    doubled: float = 0.3
    warm_up_s: float = 1.5
    drain_s: float = 20.0
    runs: int = field(default=1)


SHORT = Size(
    name="prove",
    faults={
        "worker killed": 6,
        "worker stopped": 1,
        "master told to end": 1,
        "master told to reload": 1,
        "PostgreSQL crashed": 4,
        "backends terminated": 4,
        "answer to COMMIT lost": 4,
        "PostgreSQL stalled": 1,
        "PostgreSQL's connections reset": 1,
        "memcached killed": 1,
        "memcached flushed": 1,
        "memcached stopped": 1,
        "pool exhausted": 1,
        "database read-only": 1,
    },
    least={"acknowledged": 1_000, "unknown": 200, "faults": 25, "rushes": 15, "doubled": 50},
)
# Three seeds; the figures are those of all three together.
LONG = Size(
    name="prove-long",
    runs=3,
    faults={
        "worker killed": 14,
        "worker stopped": 2,
        "master told to end": 2,
        "master told to reload": 2,
        "PostgreSQL crashed": 9,
        "backends terminated": 9,
        "answer to COMMIT lost": 7,
        "PostgreSQL stalled": 2,
        "PostgreSQL's connections reset": 2,
        "memcached killed": 2,
        "memcached flushed": 2,
        "memcached stopped": 2,
        "pool exhausted": 2,
        "database read-only": 2,
    },
    clients=30,
    pace_s=0.03,
    gone=0.1,
    doubled=0.6,
    least={"acknowledged": 25_000, "unknown": 1_500, "faults": 150, "rushes": 300, "doubled": 2_000},
)


def schedule(size: Size, seed: int) -> list[list[tuple[float, str]]]:
    """For each lane its faults in their order, each with the pause before it, in seconds."""
    chance = random.Random(f"schedule:{seed}")
    lanes = []
    for kinds in LANES:
        faults = [kind for kind in kinds for _ in range(size.faults.get(kind, 0))]
        chance.shuffle(faults)
        lanes.append([(chance.uniform(*size.calm_s), kind) for kind in faults])
    return lanes
