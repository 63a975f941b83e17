"""From a trial to its figures: what was done, what was lost, and how soon the service was back."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tests.proofs.checker import DOUBLED, LEAKED, LOST, WRONG
from tests.proofs.customer import RUSHED
from tests.proofs.history import UNKNOWN, WRITES, Attempt, Fault
from tests.proofs.plan import Size
from tests.proofs.trial import Trial

S = 1_000_000_000
KINDS = (LOST, DOUBLED, LEAKED, WRONG)
FIRST_ACK_S = {"PostgreSQL": 3.0, "database": 3.0, "backends": 3.0, "answer": 3.0, "pool": 3.0}
OTHERS_FIRST_ACK_S = 2.0
# These take nothing away for a time: the clock runs from their beginning. After the others it runs from when the
# service could work again, PostgreSQL has recovered and answers, say.
AT_ONCE = ("worker killed", "master told to reload", "PostgreSQL's connections reset")


def figures(trial: Trial) -> dict[str, Any]:
    attempts, faults = trial.run.attempts, trial.run.faults
    writes = [attempt for attempt in attempts if attempt.operation in WRITES]
    violations = Counter(violation.kind for violation in trial.violations)
    return {
        "seed": trial.seed,
        "seconds": round((trial.over - trial.began) / S, 1),
        "operations": len(attempts),
        "acknowledged": sum(attempt.ok for attempt in writes),
        "unknown": sum(attempt.outcome == UNKNOWN for attempt in writes),
        "gone": sum(attempt.outcome == UNKNOWN and attempt.status is None for attempt in writes),
        "rushes": _rushes(writes),
        "doubled": _doubled(writes),
        "faults": len(faults),
        **{f"{kind}_violations": violations[kind] for kind in KINDS},
        "recoveries": [_recovery(fault, trial) for fault in faults],
        "violations": [f"{violation.rule}: {violation.what}" for violation in trial.violations[:50]],
    }


def _rushes(writes: Iterable[Attempt]) -> int:
    """Keys that eight clients sent at once."""
    return len({attempt.key for attempt in writes if attempt.key.startswith(RUSHED)})


def _doubled(writes: Iterable[Attempt]) -> int:
    """Webhooks that were acknowledged more than once."""
    acknowledged = Counter(attempt.key for attempt in writes if attempt.ok and attempt.operation in ("pay", "refund"))
    return sum(count > 1 for count in acknowledged.values())


def _recovery(fault: Fault, trial: Trial) -> dict[str, Any]:
    """The first write that began after the fault and was acknowledged; another fault may stand in its way."""
    since = fault.start if fault.kind in AT_ONCE else fault.end
    kinds = {fault.kind}
    for other in trial.run.faults:
        if other.kind not in AT_ONCE and other.start <= since < other.end:
            since = other.end
            kinds.add(other.kind)
    acknowledged = (a.end for a in trial.run.attempts if a.ok and a.operation in WRITES and a.start >= since)
    return {
        "kind": fault.kind,
        "at_s": round((fault.start - trial.began) / S, 2),
        "lasted_s": round((fault.end - fault.start) / S, 2),
        "first_ack_s": round((min(acknowledged, default=trial.over + 60 * S) - since) / S, 3),
        "at_most_s": max(first_ack_bound(kind) for kind in kinds),
    }


def total(size: Size, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of all runs together; `complaints`: what is not as it must be, each a sentence."""
    names = [name for name in runs[0] if isinstance(runs[0][name], int | float) and name != "seed"]
    sums = {name: round(sum(run[name] for run in runs), 1) for name in names}
    few = [f"{name} are {sums[name]}, fewer than {least}" for name, least in size.least.items() if sums[name] < least]
    recoveries = [one for run in runs for one in run["recoveries"]]
    late = [
        f"the first acknowledgement after '{one['kind']}' at {one['at_s']} s took {one['first_ack_s']} s"
        for one in recoveries
        if one["first_ack_s"] > one["at_most_s"]
    ]
    return {**sums, "complaints": [*(what for run in runs for what in run["violations"]), *few, *late]}


def first_ack_bound(kind: str) -> float:
    return FIRST_ACK_S.get(kind.split("'")[0].split()[0], OTHERS_FIRST_ACK_S)
