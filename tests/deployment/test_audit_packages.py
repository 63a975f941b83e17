"""The audit of the packages, against a small server that speaks OSV's protocol."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port


class Osv(BaseHTTPRequestHandler):
    """Knows one vulnerability: of gunicorn before 19.5."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = asked["package"]
        known = {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "19.5"}]}]}
        one = {"id": "PYSEC-2018-0", "modified": "2018-01-01T00:00:00Z", "affected": [{"package": package, **known}]}
        body = json.dumps(
            {"vulns": [one]} if (package["name"], asked["version"]) == ("gunicorn", "19.4") else {}
        ).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    server.status = 200
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def audit(installed: Path, port: int, cache: Path, *more: str) -> tuple[int, str]:
    where = ["--vulnerability-service=osv", f"--osv-url=http://127.0.0.1:{port}/v1/query", f"--cache-dir={cache}"]
    ran = subprocess.run(
        [sys.executable, ROOT / "conf" / "audit_packages.py", f"--path={installed}", *where, *more],
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout + ran.stderr


def install(folder: Path, name: str, version: str) -> None:
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_known_vulnerability_fails_the_check(osv, tmp_path):
    install(tmp_path / "site", "gunicorn", "19.4")
    install(tmp_path / "site", "falcon", "4.4")

    told = audit(tmp_path / "site", osv.server_port, tmp_path)

    assert told == (1, "gunicorn 19.4: PYSEC-2018-0, fixed in 19.5\n")


def test_packages_without_one_pass(osv, tmp_path):
    install(tmp_path / "site", "gunicorn", "27.0")

    assert audit(tmp_path / "site", osv.server_port, tmp_path) == (0, "")


@pytest.mark.parametrize("reached", [False, True])
def test_a_service_that_gives_no_answer_is_told_and_passes(osv, tmp_path, reached):
    install(tmp_path / "site", "gunicorn", "19.4")
    osv.status = 503

    told = audit(tmp_path / "site", osv.server_port if reached else free_port(), tmp_path)

    assert told == (0, "skipped: no service of known vulnerabilities can be reached\n")


def test_a_mistake_in_the_call_is_no_reason_to_skip(osv, tmp_path):
    code, told = audit(tmp_path, osv.server_port, tmp_path, "--no-such-option")

    assert code == 1
    assert "skipped" not in told
