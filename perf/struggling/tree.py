"""The struggling service's own repository: as it was found, with its .env, and one commit for each cure applied."""

import base64
import os
import secrets
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
CURES = sorted((HERE / "cures").glob("*.patch"))
PASSED_ON = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
WHO = {f"GIT_{role}_{what}": "found@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
GIT_ENV = {**PASSED_ON, **WHO, "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C"}


class Tree:
    """A copy in `folder`. Its secrets are made now, and are worth nothing anywhere else.

    `settings` are what stands in .env, and from the cure on that takes it away, what the environment has to say.
    """

    def __init__(self, folder: Path, database: str, memcached: str) -> None:
        self.folder = folder
        self.cures = 0
        self.made = {
            "database_secret": secrets.token_urlsafe(18),
            "api_key": secrets.token_urlsafe(24),
            "webhook_secret": base64.b64encode(secrets.token_bytes(32)).decode(),
            "database": database,
            "memcached": memcached,
        }
        shutil.copytree(HERE / "as_found", folder, ignore=shutil.ignore_patterns("__pycache__"))
        self.settings: dict[str, str] = {}
        self._write_env()
        self._git("init", "--quiet", "--initial-branch=main")
        self._commit("The service as it was found")

    def apply_next(self) -> tuple[Path, list[Path]]:
        """The patch that was applied, and the migrations that came with it."""
        patch = CURES[self.cures]
        before = set(self.folder.glob("migrations/*.sql"))
        self._git("apply", "--index", patch)
        self.cures += 1
        self._write_env()
        self._commit(patch.stem)
        return patch, sorted(set(self.folder.glob("migrations/*.sql")) - before)

    def environment(self) -> dict[str, str]:
        """What the service has to be started with; nothing while it reads a file."""
        return {} if (self.folder / ".env").exists() else self.settings

    def first(self, name: str) -> str:
        """A setting, or the first entry of the ring that it became."""
        return (self.settings.get(name) or self.settings[f"{name}S"]).split(",")[0]

    def _write_env(self) -> None:
        """`dot_env` stands for the .env that was committed: ours must not hold secrets, not even dead ones."""
        template, env = self.folder / "dot_env", self.folder / ".env"
        if template.exists():
            env.write_text(template.read_text().format(**self.made))
            lines = env.read_text().splitlines()
            self.settings = {name: value for name, _, value in (line.partition("=") for line in lines)}
        elif env.exists():
            env.unlink()
            for name in ("API_KEY", "WEBHOOK_SECRET"):
                self.settings[f"{name}S"] = self.settings.pop(name)

    def _commit(self, message: str) -> None:
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", message)

    def _git(self, *arguments: str | Path) -> None:
        command = ["git", *map(str, arguments)]
        ran = subprocess.run(command, cwd=self.folder, env=GIT_ENV, capture_output=True, text=True, check=False)  # noqa: S603
        if ran.returncode:
            raise RuntimeError(f"git {arguments[0]}: {ran.stderr}")
