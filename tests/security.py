"""`make security`: the catalogue of attacks, by number, and what became of each.

The tests stand with the capability that is attacked; `test_proof_4_…` is of group 4.
"""

import re
import sys
from collections import Counter
from dataclasses import dataclass, field

import pytest

GROUPS = {
    1: "access tokens: none, other algorithms, kid, jku, x5u, jwk, crit",
    2: "access tokens: expired, forged claims, altered signatures, closed sessions, deleted users",
    3: "login: unknown email and wrong password are alike, in body and time",
    4: "lockout dodged by spelling, address, 100 at once, a flushed cache",
    5: "passwords of 73 bytes and more",
    6: "another user's orders, events, keys, cursors, cached pages",
    7: "fields that are not the client's to set",
    8: "amounts and currencies that are none",
    9: "idempotency keys: malformed, another user's",
    10: "cursors: changed, huge, foreign, of other filters",
    11: "limits out of range, given twice",
    12: "webhooks: unsigned, altered, too old, replayed, in rotation",
    13: "a flood of bad webhooks",
    14: "JSON: nesting, NaN, duplicate keys, surrogates, huge integers, NUL",
    15: "bodies over the cap, encoded, of other types",
    16: "methods, overrides, header injection by trace ids",
    17: "request smuggling",
    18: "slow headers, slow bodies",
    19: "secrets in logs, reports and error bodies",
    20: "what a 5xx tells",
    21: "Host and X-Forwarded-Host",
    22: "production with weak settings",
    23: "the database role of the application",
    24: "rate limits under parallel requests",
    25: "the worst input for regexes and validators",
}
_NUMBER = re.compile(r"::test_proof_(\d+)_")


@dataclass
class Catalogue:
    """A pytest plugin: counts outcomes by group."""

    outcomes: dict[int, Counter[str]] = field(default_factory=lambda: {number: Counter() for number in GROUPS})
    failed: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        match = _NUMBER.search(report.nodeid)
        if match and (report.when == "call" or not report.passed):
            self.outcomes[int(match[1])][report.outcome] += 1
            if report.failed:
                self.failed.append(report.nodeid)

    def table(self) -> str:
        lines = [f"{'':2}  {'attack':88} {'passed':>6} {'failed':>6} {'skipped':>7}"]
        for number, title in GROUPS.items():
            counts = self.outcomes[number]
            lines.append(f"{number:2}  {title:88} {counts['passed']:6} {counts['failed']:6} {counts['skipped']:7}")
        return "\n".join(lines)

    def complaints(self) -> list[str]:
        unproven = [number for number in GROUPS if not self.outcomes[number]["passed"]]
        return [*self.failed, *(f"no test of group {number} passed" for number in unproven)]


def main() -> int:
    catalogue = Catalogue()
    code = pytest.main(
        ["-n", "3", "-o", "addopts=-q --strict-markers", "-k", "test_proof_", "tests"], plugins=[catalogue]
    )
    print(f"\n{catalogue.table()}")
    for sentence in catalogue.complaints():
        print(f"FAILED: {sentence}")
    return int(bool(code or catalogue.complaints()))


if __name__ == "__main__":
    sys.exit(main())
