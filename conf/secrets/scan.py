"""Looks for secrets in the files and the whole history of the repository it is called in. Needs no network.

A line for each find, never with the secret. Exits with 1 after a find, with 2 when it could not look.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
KINGFISHER = Path(sys.executable).parent / "kingfisher"
RULE_CACHE = Path(sys.prefix) / "kingfisher-rules"  # 500 rules compile in 7 s, once
FOUND, FOUND_VALID = 200, 205  # kingfisher's exit codes
NOT_OURS = {".venv", ".local", ".git", "__pycache__"}  # where there is no git to ask what is ignored
NO_GIT = "There is no git repository here: the files were looked at, a history was not."
ADVICE = """\
Take it out. If it was pushed, it is known: replace it where it is used first.
No secret? Write kingfisher:ignore in a comment on its line; for one that history keeps, see conf/secrets/allowed."""


class CannotLookError(Exception):
    """Something that must not pass for "no secrets"."""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="secrets-") as scratch:
        try:
            allowed = allowed_finds()
            note, paths, commits = what_to_look_at(Path(scratch))
            finds = [find for find in scan(paths, Path(scratch), commits) if find not in allowed]
        except CannotLookError as error:
            print(f"secrets: {error}", file=sys.stderr)
            return 2
    print(*finds, note, sep="\n")
    if finds:
        print(ADVICE)
    return 1 if finds else 0


def what_to_look_at(scratch: Path) -> tuple[str, list[Path], list[str]]:
    """A sentence about it; the paths: the files, and copies of all commits and of their messages; the commits."""
    if not shutil.which("git") or not in_a_repository():
        paths = [path for path in Path().rglob("*") if not NOT_OURS & set(path.parts) and path.is_file()]
        return NO_GIT, paths, []
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    files = [Path(name) for name in listed if name and Path(name).is_file()]
    commits = copy_history(scratch)
    note = f"Looked at {len(files)} files and {len(commits)} commits."
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        note += " This clone is shallow: `git fetch --unshallow` brings the older ones."
    return note, [*files, scratch], commits


def in_a_repository() -> bool:
    asked = subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, text=True, env=git_environment())
    if asked.returncode and "not a git repository" not in asked.stderr:
        raise CannotLookError(asked.stderr.strip())
    return asked.returncode == 0


def copy_history(scratch: Path) -> list[str]:
    """Copies what every ref reaches, without what lies around in the object store here. The commits, oldest first."""
    source, copy, messages = (
        git("rev-parse", "--absolute-git-dir").strip(),
        scratch / "history.git",
        scratch / "messages",
    )
    git("clone", "--quiet", "--mirror", "--no-local", "--template=", source, copy)
    messages.mkdir()
    log = git("-C", copy, "log", "--all", "--reverse", "--no-show-signature", "--format=%H%n%B%x00")
    commits = [entry.strip("\n").partition("\n") for entry in log.split("\0")[:-1]]
    for commit, _, message in commits:
        (messages / commit).write_text(message, errors="surrogateescape")
    return [commit for commit, _, _ in commits]


def git(*arguments: str | Path) -> str:
    ran = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, errors="surrogateescape", env=git_environment()
    )
    if ran.returncode:
        raise CannotLookError(f"git {arguments[0]}: {ran.stderr.strip()}")
    return ran.stdout


def git_environment() -> dict[str, str]:
    """Its messages in English, and nothing of a hook's, which would lead it from the copy back to the repository."""
    ours = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")
    return {"LC_ALL": "C", **{name: value for name, value in os.environ.items() if name not in (*ours, "LC_ALL")}}


def scan(paths: list[Path], scratch: Path, commits: list[str]) -> list[str]:
    """kingfisher's finds as `path:line: rule (where)`: once as one of the files, once with the oldest commit."""
    finds: dict[tuple[str, str, str, bool], tuple[int, str]] = {}
    age = {commit: at for at, commit in enumerate(commits)}
    for found in kingfisher(paths)["findings"] if paths else []:
        rule, place = found["rule"]["id"], found["finding"]
        path, commit = place_of(place, scratch)
        where = f"commit {commit[:12]}" if commit else "in the files"
        line = age.get(commit or "", 0), f"{path}:{place['line']}: {rule} ({where})"
        # The same secret in many versions of a file is one find. What stands for it is salted anew in each run.
        same = (rule, path, place["snippet"], commit is None)
        finds[same] = min(line, finds.get(same, line))
    return sorted(line for _, line in finds.values())


def kingfisher(paths: list[Path]) -> dict:
    """Its report on the paths, the secrets redacted; nothing is asked of any service."""
    offline = ["--no-validate", "--no-update-check"]
    output = ["--redact", "--no-dedup", "--quiet", "--format=json"]
    rules = [f"--rules-path={HERE / 'rules.yml'}", f"--rule-cache-dir={RULE_CACHE}"]
    ran = subprocess.run([KINGFISHER, "scan", *offline, *output, *rules, "--", *paths], capture_output=True)
    try:
        report = json.loads(ran.stdout)
        looked = report["audit"]["summary"]
    except (ValueError, KeyError):
        looked = {}
    whole = looked.get("scan_succeeded") and not looked["scan_failed"] and not looked["scan_partial"]
    if ran.returncode not in (0, FOUND, FOUND_VALID) or not whole:
        raise CannotLookError(f"kingfisher ended with {ran.returncode}: {ran.stderr.decode(errors='replace').strip()}")
    return report


def place_of(place: dict, scratch: Path) -> tuple[str, str | None]:
    """The path, and the commit if it is of the history."""
    path = Path(place["path"])
    if path.is_relative_to(scratch):
        return "(message)", path.name
    return str(path), place.get("git_metadata", {}).get("commit", {}).get("id")


def allowed_finds() -> set[str]:
    """The lines of `allowed`, word for word as they are printed; each has a reason behind it."""
    finds = set()
    for line in (HERE / "allowed").read_text().splitlines():
        find, _, reason = line.partition(" # ")
        if line.strip() and not line.startswith("#"):
            if not reason.strip():
                raise CannotLookError(f"conf/secrets/allowed has no reason for {find}")
            finds.add(find.strip())
    return finds


if __name__ == "__main__":
    sys.exit(main())
