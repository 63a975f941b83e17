"""What can be said of Dockerfile and docker-compose.yml without an engine; conf/container-test runs them for real."""

import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orders_api.dev.local import new_jwt_key
from orders_api.migrator import all_ids
from orders_api.settings import _TABLE, Settings
from tests.conftest import BASE_ENV, ROOT, free_port

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "orders-api"]
RUNNING = [name for name in OURS if name != "secrets"]
SETTINGS = {"ENVIRONMENT", *_TABLE}
COPIED = re.findall(r"^COPY (?!--from)(.+) (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
SOURCES = sorted({source for sources, _ in COPIED for source in sources.split()})

KEPT_OUT = [
    *(".env", "secrets.env", "orders_api/.env", "conf/.env", ".local/secrets.env", ".git/config", ".venv/bin/python"),
    *("tests/conftest.py", "perf/results", "README.md", "docker-compose.yml", "orders_api/__pycache__/app.pyc"),
]


def resolved(value: object) -> str:
    """As compose reads it where nothing is set: `${NAME:-default}`."""
    return re.sub(r"\$\{\w+(?::-([^}]*))?\}", lambda match: match[1] or "", str(value))


def in_context(path: str) -> bool:
    """Whether .dockerignore lets a path through: the last rule that fits it, or a folder above it, decides."""
    above = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
    let_in = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        rule = line.removeprefix("!")
        anywhere = rule.removeprefix("**/") if rule.startswith("**/") else None
        if any(
            fnmatch.fnmatchcase(Path(one).name, anywhere) if anywhere else one == rule or rule == "*" for one in above
        ):
            let_in = line.startswith("!")
    return let_in


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """The volumes after the first start."""
    folder = tmp_path_factory.mktemp("secrets")
    for name in ("settings", "database", "metrics"):
        (folder / name).mkdir()
    assert "Made" in make_secrets(folder)
    return folder


def make_secrets(folder: Path) -> str:
    command = [sys.executable, "conf/make-secrets.py", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def environment_of(service: str, made: Path) -> dict[str, str]:
    """What a command of the service sees: run through the compose file's own entrypoint."""
    entrypoint = [word.replace("$$", "$") for word in SERVICES[service]["entrypoint"]]
    entrypoint[2] = entrypoint[2].replace("/secrets/", f"{made}/settings/")
    given = {name: resolved(value) for name, value in SERVICES[service]["environment"].items()}
    printed = subprocess.run(
        [*entrypoint, "env", "-0"], env={"PATH": BASE_ENV["PATH"], **given}, capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split("=", 1) for line in printed.split("\0") if line)


@pytest.mark.parametrize("service", RUNNING)
def test_each_setting_in_the_compose_file_is_one_of_ours(service):
    assert set(SERVICES[service]["environment"]) <= SETTINGS


@pytest.mark.parametrize("service", RUNNING)
def test_production_takes_the_made_secrets_from_the_compose_files_entrypoint(service, made):
    settings = Settings.from_env(environment_of(service, made))

    database = SERVICES["database"]["environment"]
    assert settings.production
    assert settings.database_url.startswith(f"postgresql://{database['POSTGRES_USER']}:")
    assert settings.database_url.endswith("@database/orders")
    assert (made / "database/password").read_text() in settings.database_url
    assert settings.metrics_token == (made / "metrics/token").read_text()
    assert [host for host, _ in settings.memcached_servers] == ["cache"]
    assert {"database", "cache"} <= SERVICES.keys()


def test_a_second_start_keeps_the_secrets(made):
    before = {file: file.read_text() for file in made.rglob("*") if file.is_file()}

    assert "are there" in make_secrets(made)
    assert {file: file.read_text() for file in made.rglob("*") if file.is_file()} == before
    assert len(before) == 3


def test_no_two_clones_have_the_same_secrets(made, tmp_path):
    for name in ("settings", "database", "metrics"):
        (tmp_path / name).mkdir()
    make_secrets(tmp_path)

    for file in ("settings/settings.env", "database/password", "metrics/token"):
        assert (tmp_path / file).read_text() != (made / file).read_text()


def test_there_is_no_secret_in_the_compose_file():
    text = (ROOT / "docker-compose.yml").read_text()

    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            secret = re.search("PASSWORD|SECRET|TOKEN|KEY|DSN", variable) and not variable.startswith("GF_")
            assert not secret or variable.endswith("_FILE") or resolved(value) == "", f"{name}: {variable}"
    assert not re.search(r"://[^/\s]*:[^/\s]*@", text)


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_confined(name):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["stop_grace_period"] == "30s"  # past gunicorn's graceful_timeout
    assert service["restart"] == ("no" if name in ("secrets", "migrate") else "unless-stopped")


def test_what_is_published_is_on_loopback_and_without_a_profile_it_is_the_api_alone():
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)
    assert [name for name in ports if "profiles" not in SERVICES[name]] == ["api"]


def test_each_image_has_a_tag():
    images = {service["image"] for service in SERVICES.values() if "build" not in service}
    bases = set(re.findall(r"^FROM (\S+:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))

    assert len(images) == 4
    assert len(bases) == 1
    assert all(re.fullmatch(r"[a-z/]+:v?\d[\w.-]*", image) for image in images | bases)


def test_a_folder_that_the_compose_file_mounts_is_there():
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    folders = [source for source in mounted if source.startswith("./")]

    assert folders
    assert all((ROOT / source).is_dir() for source in folders)
    assert {source for source in mounted if not source.startswith("./")} == set(COMPOSE["volumes"])


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_images_copy_is_there_and_gets_to_the_builder(source):
    assert (ROOT / source).exists()
    assert in_context(source)


@pytest.mark.parametrize("path", KEPT_OUT)
def test_what_is_no_part_of_an_image_does_not_get_to_the_builder(path):
    assert not in_context(path)


def test_what_the_image_holds_is_enough_to_start(tmp_path):
    """The build stage's files in a folder of their own: gunicorn loads the application and finds the migrations."""
    for sources, target in COPIED:
        for source in (source for source in sources.split() if not source.startswith("perf/")):
            copy_as_docker_does(ROOT / source, tmp_path / target, into=len(sources.split()) > 1 or target.endswith("/"))
    env = {"PATH": BASE_ENV["PATH"], "PYTHONPATH": str(tmp_path), "PORT": str(free_port())}
    env |= {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "MEMCACHED_SERVERS": "127.0.0.1:1", "JWT_KEYS": new_jwt_key()}

    def say(*words: str) -> str:
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout

    count = "from orders_api import migrator; print(migrator.__file__, len(migrator.all_ids()))"
    assert say("-c", count).split() == [str(tmp_path / "orders_api/migrator.py"), str(len(all_ids()))]
    say("-m", "gunicorn", "-c", "conf/gunicorn.conf.py", "--check-config")


def test_what_the_load_image_holds_imports_nothing_else_of_perf():
    """Read from the sources: Locust is not among what the tests install."""
    held = {Path(source).stem for source in SOURCES if source.startswith("perf/")}
    texts = [(ROOT / "perf" / f"{name}.py").read_text() for name in held]

    assert {name for text in texts for name in re.findall(r"^from perf\.(\w+) import", text, re.MULTILINE)} < held


def copy_as_docker_does(source: Path, target: Path, *, into: bool) -> None:
    """A folder's content, a file into a folder or under a name."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        return
    target = target / source.name if into else target
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def test_the_health_check_tells_a_living_service_from_a_dead_one(server):
    (line,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert yaml.safe_load(line) == ["python", "conf/healthcheck.py"] == SERVICES["api"]["healthcheck"]["test"][1:]

    def ask(port: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "conf/healthcheck.py"]
        env = {"PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    assert ask(server.port).returncode == 0
    dead = ask(free_port())
    assert dead.returncode == 1
    assert "does not answer" in dead.stderr


def test_the_image_runs_the_procfiles_commands():
    """So that what is deployed from the image and what a platform deploys are one."""
    procfile = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
    (cmd,) = re.findall(r'^CMD (\["gunicorn".*\])$', (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert yaml.safe_load(cmd) == shlex.split(procfile["web"]) == SERVICES["api"]["command"]
    assert SERVICES["migrate"]["command"] == shlex.split(procfile["release"])
    assert SERVICES["worker"]["command"] == shlex.split(procfile["worker"])
