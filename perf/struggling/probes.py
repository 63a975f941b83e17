"""One question for each symptom, asked of a site before and after its cure."""

import base64
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg

from perf.stack import ROOT
from perf.struggling.load import NO_ANSWER, Answer, Request, ask, at_once, signed
from perf.struggling.machine import memory_mb
from perf.struggling.site import Site
from perf.struggling.tree import GIT_ENV

QUERIES = {
    "items of an order": "SELECT * FROM order_items WHERE order_id = %(order)s",
    "newest of a status": "SELECT * FROM orders WHERE status = 'pending' ORDER BY created_at DESC, id DESC LIMIT 20",
}
SCANNER = ROOT / "conf" / "secrets"
READERS = 200
FORGERIES = 10  # of each kind
CROWD = 60  # more than the service has connections
STUCK_S = 3.0  # three times as long as a cured one lets its readers wait for a connection
URLS = 6000


def plans(site: Site) -> dict[str, dict[str, Any]]:
    """EXPLAIN (ANALYZE, BUFFERS): the whole text, and from it the index, the buffers and the milliseconds."""
    found = {}
    with site.admin() as admin:
        for name, query in QUERIES.items():
            words = {"order": site.orders // 2}
            for _ in range(2):  # the second finds all it needs in memory
                rows = admin.execute(f"EXPLAIN (ANALYZE, BUFFERS) {query}", words).fetchall()
            found[name] = _plan([row[0] for row in rows])
    return found


def buffers_by_status_alone(site: Site) -> int:
    """What the newest of a status read with the index that comes to mind first; it is gone afterwards."""
    with site.admin() as admin:
        admin.execute("CREATE INDEX by_status_alone ON orders (status)")
    found = plans(site)["newest of a status"]
    with site.admin() as admin:
        admin.execute("DROP INDEX by_status_alone")
    assert found["index"] == "by_status_alone", found
    return found["buffers"]


def _plan(lines: list[str]) -> dict[str, Any]:
    text = "\n".join(lines)
    index = re.search(r"Index Scan using (\w+)", text)
    index = index or re.search(r"Bitmap Index Scan on (\w+)", text)
    buffers = re.search(r"Buffers: shared (?:hit=(\d+))?\s?(?:read=(\d+))?", text)
    took = re.search(r"Execution Time: ([\d.]+)", text)
    assert buffers
    assert took
    return {
        "index": index[1] if index else None,
        "buffers": sum(int(number or 0) for number in buffers.groups()),
        "ms": float(took[1]),
        "plan": lines,
    }


def statements(site: Site) -> int:
    """How many statements a page with items takes, from pg_stat_statements; the cache does not know it yet."""
    _forget(site)
    status, _, _ = ask(site.port, site.read("/orders?status=paid&include=items&page=9"))
    assert status == 200, status
    return sum(_calls(site).values())


def stampede(site: Site, held_s: float = 0.0) -> dict[str, Any]:
    """200 readers of a page that nobody has asked for yet, all in one moment.

    `held_s`: nobody gets it before that, so that a quick machine's first reader can't serve those behind him.
    """
    _forget(site)
    begin = time.monotonic()
    request = site.read("/orders?status=paid&include=items&page=11")
    answers = (
        _behind_a_lock(site, [request] * READERS, held_s)
        if held_s
        else at_once(site.port, [request] * READERS, READERS)
    )
    took = time.monotonic() - begin
    calls = _calls(site)
    loads = sum(count for query, count in calls.items() if 'FROM "orders" AS "t1"' in query)
    return {
        "readers": READERS,
        "loads": loads,
        "statements": sum(calls.values()),
        "failed": _failed(answers),
        "seconds": round(took, 2),
    }


def crowd(site: Site) -> dict[str, Any]:
    """60 reads while the database stands still: what becomes of those for whom there is no connection."""
    requests = [site.read(f"/orders/{number}?include=items&_={secrets.token_hex(4)}") for number in range(1, CROWD + 1)]
    answers = _behind_a_lock(site, requests, STUCK_S)
    counted = Counter(status for status, _, _ in answers)
    told = sum(status == 503 and "retry-after" in headers for status, headers, _ in answers)
    errors = counted[500] + counted[NO_ANSWER]
    return {"readers": CROWD, "answered": counted[200], "errors": errors, "told_to_come_back": told}


def memory(site: Site) -> dict[str, float]:
    """The workers' memory before and after 6,000 distinct URLs that ask for 100 pages."""
    pages = [site.read(f"/orders?status=paid&page={1 + n % 100}&_={n}") for n in range(URLS)]
    at_once(site.port, [site.read(f"/orders/{n}") for n in range(1, 41)], 8)  # what every worker needs anyway
    before = memory_mb(site.workers())
    answers = at_once(site.port, pages, 6)
    assert not _failed(answers), Counter(answer[0] for answer in answers)
    return {"before_mb": before, "after_mb": memory_mb(site.workers())}


def forged_webhooks(site: Site) -> dict[str, Any]:
    """Deliveries that no provider sent: unsigned, signed by another secret, of an hour ago, with a changed body."""
    with site.admin() as admin:
        rows = admin.execute("SELECT id FROM orders WHERE status = 'pending' ORDER BY id LIMIT %s", [4 * FORGERIES + 1])
        *victims, real = [row[0] for row in rows.fetchall()]
        before = _audited(admin)
        answers = at_once(site.port, [_forged(site, n, order) for n, order in enumerate(victims)], 8)
        refused = sum(status in (401, 403) for status, _, _ in answers)
        rows = admin.execute("SELECT count(*) FROM orders WHERE id = ANY(%s) AND status = 'paid'", [victims])
        paid = rows.fetchall()[0][0]
        audited = _audited(admin) - before
        accepted = ask(site.port, site.payment(real))[0]
    return {"sent": len(victims), "refused": refused, "audited": audited, "paid": paid, "signed_one": accepted}


def _forged(site: Site, number: int, order: int) -> Request:
    good = site.payment(order)
    plain = {"Content-Type": "application/json"}
    match number % 4:
        case 0:
            return good._replace(headers=plain)
        case 1:
            return site.payment(order, secret="whsec_" + "A" * 44)
        case 2:
            old = signed(site.tree.first("WEBHOOK_SECRET"), good.body, "msg_old", int(time.time()) - 3600)
            return good._replace(headers={**plain, **old})
    return good._replace(body=good.body + b" ")


def _audited(admin: psycopg.Connection[Any]) -> int:
    """Refusals on record; none where there is no record."""
    if not admin.execute("SELECT 1 FROM pg_class WHERE relname = 'webhook_audit'").fetchone():
        return 0
    return admin.execute("SELECT count(*) FROM webhook_audit WHERE outcome <> 'verified'").fetchall()[0][0]


def scan(site: Site) -> list[str]:
    """What the project's scanner finds in the site's files and their history, as `path:line: rule (where)`."""
    command = [sys.executable, str(SCANNER / "scan.py")]
    ran = subprocess.run(command, cwd=site.tree.folder, env=GIT_ENV, capture_output=True, text=True, check=False)  # noqa: S603
    if ran.returncode not in (0, 1):
        raise RuntimeError(ran.stderr)
    return [line for line in ran.stdout.splitlines() if re.match(r"\S+:\d+: ", line)]


def gate(site: Site, old: list[str]) -> dict[str, int]:
    """What the cured repository's .ci/secrets ends with, as CI runs it: as it is, and with a new secret on its way in.

    `old`: finds of the history, allowed because what was found is worthless since.
    """
    scanner = site.home / "scanner"
    shutil.copytree(SCANNER, scanner, dirs_exist_ok=True)
    with (scanner / "allowed").open("a") as allowed:
        allowed.writelines(f"{line} # rotated\n" for line in old)
    without = _ended_with(site, scanner)
    (site.tree.folder / "pay.py").write_text(f'WEBHOOK_SECRET = "whsec_{secrets.token_urlsafe(32)}"\n')
    planted = _ended_with(site, scanner)
    (site.tree.folder / "pay.py").unlink()
    return {"allowed": len(old), "without": without, "with_a_new_one": planted}


def _ended_with(site: Site, scanner: Path) -> int:
    env = {**GIT_ENV, "SCANNER": str(scanner), "PATH": f"{Path(sys.executable).parent}:{GIT_ENV['PATH']}"}
    command = [site.tree.folder / ".ci" / "secrets"]
    return subprocess.run(command, cwd=site.tree.folder, env=env, capture_output=True, check=False).returncode  # noqa: S603


def rotate(site: Site) -> dict[str, Any]:
    """Every secret that was in the tree, in the order that loses no request; asked at each step. In statuses."""
    old = [site.read("/orders/1"), site.payment(1)]
    keys, webhooks = site.tree.first("API_KEY"), site.tree.first("WEBHOOK_SECRET")
    key, webhook = secrets.token_urlsafe(24), f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    site.add_login(secrets.token_urlsafe(18))
    site.serve(API_KEYS=f"{key},{keys}", WEBHOOK_SECRETS=f"{webhook},{webhooks}")
    new = [site.read("/orders/1"), site.payment(1)]
    both = [ask(site.port, request)[0] for request in (*old, *new)]
    site.serve(API_KEYS=key, WEBHOOK_SECRETS=webhook)
    site.close_old_login()
    return {
        "both": both,
        "new": [ask(site.port, request)[0] for request in new],
        "old": [ask(site.port, request)[0] for request in old],
        "old_login_works": site.old_login_works(),
    }


def _behind_a_lock(site: Site, requests: list[Request], held_s: float) -> list[Answer]:
    """Sends all at once while the orders are locked."""
    answers: list[Answer] = []
    with psycopg.connect(site.postgres.url("shop")) as locker:
        locker.execute("LOCK TABLE orders, order_items IN ACCESS EXCLUSIVE MODE")
        readers = threading.Thread(target=lambda: answers.extend(at_once(site.port, requests, len(requests))))
        readers.start()
        readers.join(held_s)
        locker.rollback()
    readers.join()
    return answers


def _forget(site: Site) -> None:
    with site.admin() as admin:
        admin.execute("SELECT pg_stat_statements_reset()")


def _calls(site: Site) -> dict[str, int]:
    """The service's own statements since they were forgotten, and how often each was called.

    Without `SELECT 1`, by which a pool looks after a connection that was idle.
    """
    with site.admin() as admin:
        rows = admin.execute(
            "SELECT query, calls FROM pg_stat_statements"
            " WHERE userid = 'shop'::regrole AND query !~* '^(SET|BEGIN|COMMIT|ROLLBACK|SELECT (1|[$]1)$)'"
        ).fetchall()
    return dict(rows)


def _failed(answers: list[Answer]) -> int:
    return sum(status >= 500 or status == NO_ANSWER for status, _, _ in answers)
