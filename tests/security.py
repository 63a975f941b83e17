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
# What each group has to try, at the least: a piece of the name of a test that passed.
CLAUSES = {
    1: (
        "[none]",
        "[NONE]",
        "[RS256]",
        "/dev/null]",
        "OR 1=1",
        "kid_is_refused[0]",
        "[jku]",
        "[x5u]",
        "[jwk]",
        "[crit]",
    ),
    2: ("expired", "wrong_claim", "required[jti]", "required[aud]", "typ", "signature", "deleted_user", "logged_out"),
    3: ("body_and_statements", "same_time"),
    4: ("another_spelling", "share_one_count", "client_address", "100_guesses_at_once", "cache_flush"),
    5: ("more_than_72_bytes", "byte_80"),
    6: ("anothers_order", "anothers_history", "another_users_key", "same_path", "remembered_order", "elses_endpoint"),
    7: (
        "say_is_an_unknown_field[status]",
        "[user_id]",
        "[id]",
        "[created_at]",
        "alike[",
        "registers_sets_nothing_else",
    ),
    8: ("amount_is_refused[-1]", "[0]", "[1.0]", "[string]", "[true]", "[2^63]", "overflows", "[usd]", "[XXX]", "\\u"),
    9: ("[empty]", "[256 characters]", "control_character", "another_users_key"),
    10: ("any_character", "[huge]", "another_users", "mismatch[changed-status]"),
    11: ("range_is_refused[0]", "[-1]", "[1000000000]", "[abc]", "twice"),
    12: ("[no signature]", "[an empty signature]", "[one bit off]", "written_anew", "[v0 only]", "[too old]",
        "[from the future]", "repeated_id", "rotation", "[not ASCII]"),
    13: ("flood",),
    14: ("100_000_levels", "[NaN]", "[a duplicate key]", "[a lone high surrogate", "5,000 digits]", "order mark]",
        "[trailing bytes]", "nul_character"),
    15: ("more_is_too_large", "chunks_is_too_large", "[gzip]", "[multipart", "form-urlencoded]"),
    16: ("[TRACE]", "[DEBUG]", "override", "bring_a_header_in[CRLF]", "fresh_id"),
    17: ("[CL and TE]", "[CL twice, different]", "bad_chunk", "[Host twice]", "[no Host]", "[Idempotency-Key twice]"),
    18: ("headers_that_drip", "cut_at_the_deadline", "headers_that_never_end", "bodies_that_never_end"),
    19: ("any_envelope", "in_the_log", "repeats_a_secret[a wrong password]", "[a refresh token]", "[a signature]"),
    20: ("tells_nothing",),
    21: ("a_location", "a_link", "an_error"),
    22: ("start_without[MEMCACHED_SERVERS]", "without[JWT_KEYS]", "31 bytes]", "own network]", "not_shown[JWT_KEYS"),
    23: ("no_ddl[CREATE TABLE", "DELETE FROM {}-webhook_attempts", "-order_events", "-payment_events"),
    24: ("user_gets_exactly", "address_gets_exactly", "logins_get_exactly"),
    25: ("decoder", "schemas", "reads_text"),
}  # fmt: skip
_NUMBER = re.compile(r"::test_proof_(\d+)_")


@dataclass
class Catalogue:
    """A pytest plugin: counts outcomes by group."""

    outcomes: dict[int, Counter[str]] = field(default_factory=lambda: {number: Counter() for number in GROUPS})
    failed: list[str] = field(default_factory=list)
    passed: dict[int, list[str]] = field(default_factory=lambda: {number: [] for number in GROUPS})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        match = _NUMBER.search(report.nodeid)
        if match and (report.when == "call" or not report.passed):
            self.outcomes[int(match[1])][report.outcome] += 1
            if report.passed:
                self.passed[int(match[1])].append(report.nodeid)
            if report.failed:
                self.failed.append(report.nodeid)

    def table(self) -> str:
        lines = [f"{'':2}  {'attack':88} {'passed':>6} {'failed':>6} {'skipped':>7}"]
        for number, title in GROUPS.items():
            counts = self.outcomes[number]
            lines.append(f"{number:2}  {title:88} {counts['passed']:6} {counts['failed']:6} {counts['skipped']:7}")
        return "\n".join(lines)

    def complaints(self) -> list[str]:
        return [*self.failed, *(f"group {number}: no test of “{clause}” passed" for number, clause in self.unproven())]

    def unproven(self) -> list[tuple[int, str]]:
        return [
            (number, clause)
            for number in GROUPS
            for clause in CLAUSES[number]
            if not any(clause in name for name in self.passed[number])
        ]


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
