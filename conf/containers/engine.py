"""A Docker engine: this machine's, or, as root on Debian, one of our own with stand-ins for the published images."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SUITE = "trixie"  # what the base image is made of; its Python is the base image's too
BASE = "python:3.13-slim-trixie"
STAND_INS = {
    "postgres": "postgres:18-trixie",
    "memcached": "memcached:1.6-trixie",
    "prometheus": "prom/prometheus:v3.13.3",
}
IN_THE_BASE = "python3,python3-pip,python3-venv,ca-certificates"
PACKAGES = {
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
}
# It leaves the machine's firewall alone: ports are published by a proxy, and what is built uses the machine's network.
QUIETLY = ["--bridge=none", "--iptables=false", "--ip-masq=false"]
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
START_S = 30


class Skip(Exception):  # noqa: N818
    """Why containers can't be run here."""


class Engine:
    """`docker` and `docker compose`, on one engine and in one project."""

    def __init__(self, project: str, env: Mapping[str, str], *, own: bool) -> None:
        self.env = {**os.environ, **env}
        self.own = own
        plugin = subprocess.run(["docker", "compose", "version"], env=self.env, capture_output=True, check=False)
        self._compose = [*(["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]), "-p", project]

    def docker(self, *words: str, check: bool = True) -> str:
        return run(["docker", *words], self.env, check=check)

    def compose(self, *words: str, check: bool = True) -> str:
        return run([*self._compose, *words], self.env, check=check)

    def build(self, tag: str, *words: str, context: Path = ROOT) -> None:
        """Our own engine has no bridge of its own to the network."""
        network = ["--network", "host"] if self.own else []
        self.docker("build", "--quiet", *network, "--tag", tag, *words, str(context))


def run(command: list[str], env: Mapping[str, str] | None = None, *, check: bool = True) -> str:
    """What it says; it ends this script if it fails, unless told otherwise."""
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if check and done.returncode:
        sys.exit(f"{' '.join(command[:4])} … failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return (done.stdout + done.stderr).strip()


@contextmanager
def engine(project: str, env: Mapping[str, str]) -> Iterator[Engine]:
    """Raises Skip where there is none and none can be had."""
    there = shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False)
    if there and there.returncode == 0:
        yield Engine(project, env, own=False)
        return
    _get_programs()
    home = Path(tempfile.mkdtemp(prefix="orders-engine-", dir="/var/tmp"))
    daemon = _start(home)
    try:
        own = Engine(project, {**env, "DOCKER_HOST": f"unix://{home}/socket", "DOCKER_BUILDKIT": "0"}, own=True)
        _wait(own, daemon, home)
        _make_images(own, home)
        yield own
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        run(["umount", f"{home}/exec-root/netns/default"], check=False)  # it forgets this one
        shutil.rmtree(home, ignore_errors=True)


def _get_programs() -> None:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Skip("no Docker engine answers, and only root on Debian can install one")
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return
    print("Installing " + ", ".join(missing), flush=True)
    apt = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # else Debian starts an engine too
    for command in (["apt-get", "update", "-qq"], apt):
        if subprocess.run(command, env=env, capture_output=True, check=False).returncode:
            raise Skip(f"no Docker engine answers, and `{' '.join(command[:2])}` failed: is there a network?")


def _start(home: Path) -> subprocess.Popen[bytes]:
    places = [f"--{name}={home / name}" for name in ("data-root", "exec-root", "pidfile")]
    with (home / "log").open("wb") as log:
        command = ["dockerd", *places, f"--host=unix://{home}/socket", *QUIETLY]
        return subprocess.Popen(command, stdout=log, stderr=log)


def _wait(own: Engine, daemon: subprocess.Popen[bytes], home: Path) -> None:
    give_up = time.monotonic() + START_S
    while subprocess.run(["docker", "info"], env=own.env, capture_output=True, check=False).returncode:
        if daemon.poll() is not None or time.monotonic() > give_up:
            said = (home / "log").read_text(errors="replace").splitlines()
            raise Skip("Debian's Docker engine does not start here: " + (said[-1] if said else "it said nothing"))
        time.sleep(0.3)


def _make_images(own: Engine, home: Path) -> None:
    root = home / "root"
    print(f"Making {BASE} from Debian {SUITE}", flush=True)
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={IN_THE_BASE}", SUITE, root], capture_output=True, check=False
    )
    if made.returncode:
        raise Skip(f"debootstrap failed: is there a network? {made.stdout.decode().splitlines()[-1:]}")
    for name in ("python", "pip"):
        (root / "usr/local/bin" / name).symlink_to(f"/usr/bin/{name}3")
    # The network here may have an authority of its own; pip brings its own list otherwise.
    shutil.copy(Path("/") / CERTIFICATES, root / CERTIFICATES)
    (root / "etc/pip.conf").write_text(f"[global]\ncert = /{CERTIFICATES}\n")
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", BASE], stdin=tar.stdout, env=own.env, capture_output=True, check=True)
    for target, tag in STAND_INS.items():
        print(f"Making {tag} from Debian's and PyPI's programs", flush=True)
        own.build(tag, "--target", target, context=HERE)
