"""`make secrets`, on repositories with and without a secret."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import BASE_ENV, ROOT
from tests.deployment.plants import NONE_AT_ALL, PLANTS, pem, some

SCANNER = ROOT / "conf" / "secrets"
WHO = {f"GIT_{role}_{what}": f"{role}@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
ENV = {**BASE_ENV, **WHO, "GIT_CONFIG_GLOBAL": "/dev/null"}


def git(repository: Path, *arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=repository, env=ENV, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def commit(repository: Path, message: str = "Change it") -> str:
    """The short hash, as the scanner prints it."""
    git(repository, "add", "--all", "--force")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(repository, "rev-parse", "HEAD")[:12]


def scan(folder: Path, scanner: Path = SCANNER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, scanner / "scan.py"], cwd=folder, env=ENV, capture_output=True, text=True, check=False
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "README.md").write_text("A service.\n")
    commit(folder)
    return folder


def stripe_key() -> str:
    return f'KEY = "sk_live_{some(24)}"\n'


@pytest.mark.parametrize("what", PLANTS)
def test_a_committed_secret_is_found_and_not_told(repository, what):
    secrets = {plant: plant.secret() for plant in PLANTS[what]}
    for plant, secret in secrets.items():
        (repository / plant.file).write_text(plant.before + secret + plant.behind)
    planted = commit(repository)

    told = scan(repository)

    assert told.returncode == 1, told.stderr
    for plant, secret in secrets.items():
        places = told_of(told, plant.file, 1 + plant.before.count("\n"))
        assert places == {"in the files", f"commit {planted}"}, told.stdout
        assert not any(part in told.stdout + told.stderr for part in secret.split("\n"))


def told_of(told: subprocess.CompletedProcess[str], file: str, line: int) -> set[str]:
    """Where a secret at this place was found: in the files, in a commit."""
    finds = [find for find in told.stdout.splitlines() if find.startswith(f"{file}:{line}: ")]
    return {find.rpartition("(")[2].rstrip(")") for find in finds}


def test_a_secret_deleted_by_a_later_commit_is_found(repository):
    (repository / "pay.py").write_text(stripe_key())
    planted = commit(repository)
    with (repository / "pay.py").open("a") as file:
        file.write("# Another version of the file, with the same key.\n")
    commit(repository)
    (repository / "pay.py").unlink()
    commit(repository)

    told = scan(repository)

    assert told.returncode == 1
    assert told.stdout.startswith(f"pay.py:1: betterleaks.stripe-access-token (commit {planted})\n")
    assert "in the files" not in told.stdout


def test_a_secret_on_another_branch_and_one_in_a_message_are_found(repository):
    git(repository, "checkout", "--quiet", "-b", "aside")
    (repository / "pay.py").write_text(stripe_key())
    planted = commit(repository)
    git(repository, "checkout", "--quiet", "main")
    written = commit(repository, stripe_key())

    told = scan(repository)

    assert told_of(told, "pay.py", 1) == {f"commit {planted}"}
    assert told_of(told, "(message)", 1) == {f"commit {written}"}


def test_a_file_that_is_not_committed_yet_is_looked_at_but_an_ignored_one_is_not(repository):
    (repository / ".gitignore").write_text("ignored.py\n")
    (repository / "ignored.py").write_text(stripe_key())
    (repository / "new.py").write_text(stripe_key())

    told = scan(repository)

    assert told.returncode == 1
    assert told_of(told, "new.py", 1) == {"in the files"}
    assert "ignored.py" not in told.stdout


def test_a_place_for_a_secret_is_none(repository):
    for name, text in NONE_AT_ALL.items():
        (repository / name).write_text(text)
    commit(repository)

    told = scan(repository)

    assert (told.returncode, told.stdout) == (0, "Looked at 5 files and 2 commits.\n"), told.stdout + told.stderr


def test_a_shallow_clone_says_that_it_is_one(repository, tmp_path):
    (repository / "pay.py").write_text(stripe_key())
    commit(repository)
    (repository / "pay.py").unlink()
    commit(repository)
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{repository}", "shallow")

    told = scan(tmp_path / "shallow")

    assert told.returncode == 0, told.stdout + told.stderr
    assert "1 files and 1 commits. This clone is shallow" in told.stdout


def test_without_git_the_files_are_looked_at(tmp_path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "tool.py").write_text(stripe_key())
    (tmp_path / "tls.pem").write_text(pem())

    told = scan(tmp_path)

    assert told.returncode == 1
    finds, _, rest = told.stdout.partition(
        "There is no git repository here: the files were looked at, a history was not"
    )
    assert finds == "tls.pem:1: betterleaks.private-key (in the files)\n"
    assert rest.startswith(".\n")


def test_a_history_that_cannot_be_read_does_not_pass(repository):
    head = git(repository, "rev-parse", "HEAD")
    (repository / ".git" / "objects" / head[:2] / head[2:]).unlink()

    told = scan(repository)

    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("secrets: git clone: ")


def test_a_find_is_allowed_word_for_word_and_for_a_reason(repository, tmp_path):
    (repository / "pay.py").write_text(stripe_key())
    planted = commit(repository)
    (repository / "pay.py").unlink()
    commit(repository)
    scanner = tmp_path / "scanner"
    shutil.copytree(SCANNER, scanner)
    find = f"pay.py:1: betterleaks.stripe-access-token (commit {planted})"

    (scanner / "allowed").write_text(f"{find} # revoked on the day it was pushed\n")
    assert scan(repository, scanner).returncode == 0
    (scanner / "allowed").write_text(f"{find.replace(':1:', ':2:')} # another line\n")
    assert scan(repository, scanner).returncode == 1
    (scanner / "allowed").write_text(f"{find}\n")
    assert scan(repository, scanner).returncode == 2


def test_we_keep_no_secret():
    told = scan(ROOT)

    assert told.returncode == 0, told.stdout + told.stderr
