"""`make prove` and `make prove-long`: nothing lost, nothing doubled, nobody let in, whatever is done to the service.

SEED=… runs the schedule of faults and the clients' choices of an earlier run again.
"""

import os
import secrets
import sys

from perf.record import ROOT, circumstances, write_result
from tests.proofs import report
from tests.proofs.figures import figures, total
from tests.proofs.history import Recorder
from tests.proofs.plan import LONG, SHORT
from tests.proofs.site import Site
from tests.proofs.trial import Trial, trial

KEPT = ROOT / ".local" / "proofs"


def main() -> int:
    size = LONG if sys.argv[1:] == ["long"] else SHORT
    first = int(os.environ.get("SEED") or secrets.randbelow(10**6))
    where = circumstances()
    trials = []
    for seed in range(first, first + size.runs):
        print(f"SEED={seed} at {where['commit']}: {sum(size.faults.values())} faults", flush=True)
        with Site() as site:
            trials.append(trial(site, size, seed))
        _keep_history(trials[-1])
    runs = [figures(one) for one in trials]
    all_runs = total(size, runs)
    print(report.summary(size, runs, all_runs))
    kept = write_result(size.name, {**where, "all": all_runs, "runs": runs})
    report.draw(trials, kept.with_suffix(".svg"), f"orders-api under faults, {where['commit']}")
    print(f"Kept in {kept.relative_to(ROOT)} and .svg; the histories in {KEPT.relative_to(ROOT)}")
    return _verdict(all_runs["complaints"])


def _keep_history(one: Trial) -> None:
    """One file: the attempts of all clients in their order, then the faults."""
    KEPT.mkdir(parents=True, exist_ok=True)
    file = KEPT / f"history-{one.seed}.jsonl"
    file.unlink(missing_ok=True)
    recorder = Recorder(file)
    for line in (*one.run.attempts, *one.run.faults):
        recorder.write(line)


def _verdict(complaints: list[str]) -> int:
    for sentence in complaints:
        print(f"FAILED: {sentence}")
    print("Failed." if complaints else "Passed: nothing lost, nothing doubled, nobody let in.")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
