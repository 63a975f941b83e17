"""`make schemathesis`: requests made from /openapi.json, good and bad, one by one and in sequences, every check on.

CASES: how many at least. SEED: those of an earlier run.
"""

import base64
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

from perf import figures
from perf.record import ROOT, circumstances, write_result
from perf.stack import Served, Stack, seed_users, tokens

CASES = 2_000
CALLERS = 2_000  # of these all but one log out
# What the description makes by itself, and what each further example of all operations adds at the least.
FIXED, PER_EXAMPLE, FEWEST_EXAMPLES = 1_700, 20, 10
CONFIG = ROOT / "tests" / "proofs" / "schemathesis.toml"
LIMITS = dict.fromkeys(("RATE_LIMIT_IP", "RATE_LIMIT_USER", "RATE_LIMIT_AUTH"), "1000000/minute")


def main() -> int:
    wanted = int(os.environ.get("CASES") or CASES)
    seed = int(os.environ.get("SEED") or secrets.randbelow(10**6))
    print(f"SEED={seed}: at least {wanted} cases", flush=True)
    with Stack() as stack:
        report = run(stack, wanted, seed)
    lines = [_row(operation, phases) for operation, phases in sorted(report["valid_rates"].items())]
    print(figures.table(lines))
    generated, failures = report["test_cases"]["generated"], report["failures"]
    print(f"{generated} cases in {report['running_time']:.0f} s, {len(failures)} kinds of failures;")
    print(f"justified one by one in tests/proofs/described.py: {report['excused']}")
    kept = {**circumstances(), "seed": seed, "cases": generated, "seconds": report["running_time"]}
    write_result("schemathesis", {**kept, "failures": failures, "excused": report["excused"], "operations": lines})
    return _verdict(report, wanted)


def run(stack: Stack, wanted: int, seed: int) -> dict[str, Any]:
    """schemathesis' own report, with `excused`: how often each exception was made."""
    secret, metrics_token = secrets.token_bytes(32), secrets.token_hex(16)
    signing = {"WEBHOOK_SECRETS": f"whsec_{base64.b64encode(secret).decode()}", "METRICS_TOKEN": metrics_token}
    served = stack.serve(ENVIRONMENT="development", BCRYPT_ROUNDS="4", TRUSTED_PROXY_HOPS="0", **LIMITS, **signing)
    callers, excused = stack.home / "callers", stack.home / "excused.json"
    callers.touch(mode=0o600)
    callers.write_text("\n".join(tokens(served, seed_users(stack.database_url, CALLERS))))
    hooked = {"SERVED": served.url, "CALLERS": str(callers), "EXCUSED": str(excused), "PROVIDER_SECRET": secret.hex()}
    examples = max(FEWEST_EXAMPLES, (wanted - FIXED) // PER_EXAMPLE)
    report = _schemathesis(served, {**hooked, "METRICS_TOKEN": metrics_token}, examples, seed, stack.home)
    return {**report, "excused": json.loads(excused.read_text())}


def _schemathesis(served: Served, hooked: dict[str, str], examples: int, seed: int, home: Path) -> dict[str, Any]:
    report = home / "report.json"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    options = ["--checks", "all", "--continue-on-failure", "--max-examples", str(examples), "--seed", str(seed)]
    kept = ["--no-color", "--report", "json", "--report-json-path", str(report), f"{served.url}/openapi.json"]
    environment = {**os.environ, **hooked, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *options, *kept], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode or not report.exists():
        print("\n".join(line[:400] for line in (done.stdout + done.stderr).splitlines()))
    if not report.exists():
        raise RuntimeError("schemathesis did not run: see above")
    return json.loads(report.read_text())


def _row(operation: str, phases: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Of the requests that should be good: what became of them."""
    outcomes = ("accepted", "rejected", "conflicts", "unreachable")
    return {"operation": operation, **{name: sum(phase[name] for phase in phases.values()) for name in outcomes}}


def _verdict(report: dict[str, Any], wanted: int) -> int:
    complaints = [f"{failure['title']}: {failure['operations']}" for failure in report["failures"]]
    if report["test_cases"]["generated"] < wanted:
        complaints.append(f"only {report['test_cases']['generated']} cases were made")
    unproven = [
        operation for operation, phases in report["valid_rates"].items() if not _row(operation, phases)["accepted"]
    ]
    complaints += [f"no good request of {operation} was accepted" for operation in unproven if operation not in NO_DATA]
    for sentence in complaints:
        print(f"FAILED: {sentence}")
    return bool(complaints or report["errors"] or not report["complete"])


# Only `orders-api deliver`, which does not run here, makes what it could send again.
NO_DATA = ("POST /webhook-endpoints/{endpoint_id}/deliveries/{sequence}/redeliver",)

if __name__ == "__main__":
    sys.exit(main())
