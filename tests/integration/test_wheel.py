"""The built wheel works outside any checkout, with the dependencies that it declares and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meltrepro import resources
from meltrepro.errors import EngineError
from tests import release
from tests.integration.conftest import ROOT


def check(command: list[str | Path], folder: Path, **variables: str) -> str:
    """Run a program in a folder, with nothing in the environment that leads back to the checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHONPATH", "VIRTUAL_ENV"))}
    done = subprocess.run(
        command, cwd=folder, env={**environment, **variables}, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the locked backend."""
    folder = tmp_path_factory.mktemp("wheel")
    check([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT], folder)
    (wheel,) = folder.glob("meltrepro-*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path) -> Iterator[Path]:
    """A new environment that holds the wheel and what it declares to need, at the locked versions; for every user."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert uv is not None, "make setup puts uv into .venv"
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        folder.chmod(0o755)
        check([uv, "venv", "--quiet", "--python", _interpreter(), folder / "venv"], folder)
        pins: list[str | Path] = ["--constraints", ROOT / "requirements" / "dev.lock"]
        check([uv, "pip", "install", "--quiet", "--python", folder / "venv" / "bin" / "python", *pins, wheel], folder)
        yield folder / "venv"


def _interpreter() -> str:
    """This one, or the system's where other users cannot get at this one."""
    folders = Path(sys.executable).resolve().parents
    system = Path("/usr/bin/python3")
    return sys.executable if all(each.stat().st_mode & 1 for each in folders) or not system.exists() else str(system)


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """The example manifests in a folder outside the checkout."""
    return Path(shutil.copytree(ROOT / "specs", tmp_path / "specs"))


def test_the_wheel_holds_the_package_and_its_data_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    images = [f"meltrepro/_data/images/{name}" for name in resources.files(resources.images())]
    assert sorted(name for name in names if "/images/" in name) == sorted(images)
    assert {"meltrepro/_data/docs/exit-codes.md", "meltrepro/studies/melt/reference/accuracy.csv"} <= set(names)
    assert [name for name in names if not name.startswith("meltrepro/") or "__pycache__" in name] == []
    assert [name for name in names if "/docs/" in name and ("/." in name or name.endswith((".css", ".js")))] == [], (
        "that is the site's"
    )


def test_two_builds_in_other_places_at_other_times_have_the_same_bytes(tmp_path: Path) -> None:
    """And the bill of what the wheel installs follows from it."""
    built = []
    for name, umask in (("a", 0o022), ("b/other place", 0o077)):
        before = os.umask(umask)
        try:
            sources = release.copy_sources(tmp_path / name)
            for path in sources.rglob("*"):
                os.utime(path, (0, 10**9 + umask), follow_symlinks=False)
            built.append(release.build(sources, tmp_path / f"{name}.dist", 1_800_000_000))
        finally:
            os.umask(before)
    assert [path.suffix for path in built[0]] == [".whl", ".gz"]
    assert [(path.name, release.sha256(path)) for path in built[0]] == [(p.name, release.sha256(p)) for p in built[1]]
    bill = release.bill(built[0][0])
    assert bill == release.bill(built[1][0])
    document = json.loads(bill)
    assert release.sha256(built[0][0]) == document["metadata"]["component"]["hashes"][0]["content"]
    names = {component["name"] for component in document["components"]}
    assert {"pydantic", "typer", "mlflow-skinny"} <= names
    assert not names & {"pytest", "mypy", "pymobiledevice3", "meltrepro"}
    assert all(component["hashes"] for component in document["components"])


def test_it_runs_from_its_own_environment(environment: Path, specs: Path) -> None:
    where = check([environment / "bin" / "python", "-c", "import meltrepro; print(meltrepro.__file__)"], specs)
    assert Path(where).is_relative_to(environment)
    assert check([environment / "bin" / "meltrepro", "validate", "quickstart.yaml"], specs).startswith("ok")


def test_its_schema_is_the_one_that_is_checked_in(environment: Path, tmp_path: Path) -> None:
    schema = check([environment / "bin" / "meltrepro", "schema"], tmp_path)
    assert schema == (ROOT / "docs" / "schema" / "manifest.schema.json").read_text(encoding="utf-8")


def test_its_recipes_give_the_identities_of_the_checkout(environment: Path, specs: Path) -> None:
    arguments = ["plan", "quickstart.yaml", "--json"]
    installed = json.loads(check([environment / "bin" / "meltrepro", *arguments], specs))
    checkout = json.loads(check([sys.executable, "-m", "meltrepro", *arguments], specs))
    for plan in (installed, checkout):
        plan["estimate"].pop("free_bytes")  # other programs write to that disk
    assert installed == checkout
    assert installed["cells"]


def test_an_ordinary_user_begins_without_a_checkout_or_docker(environment: Path) -> None:
    """`init`, `validate`, `plan` and `doctor` as a user who owns nothing but a folder; what is missing has a remedy."""
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, user, user)

        def call(*arguments: str) -> subprocess.CompletedProcess[str]:
            known = {"HOME": name, "PATH": "/usr/bin:/bin", "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
            command: list[str | Path] = [environment / "bin" / "meltrepro", *arguments]
            who: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if os.geteuid() == 0 else {}
            return subprocess.run(
                command, cwd=name, env=known, capture_output=True, text=True, check=False, timeout=120, **who
            )

        assert call("init", "study").returncode == 0
        assert call("validate", "study/quickstart.yaml").stdout.startswith("ok")
        planned = call("plan", "study/quickstart.yaml")
        assert planned.returncode == 0, planned.stderr
        assert "smollm2-135m/q4_0" in planned.stdout
        looked = call("doctor", "--engine", "process", "--json")
        assert looked.returncode in (0, EngineError.exit_code), looked.stderr
        found = {check["name"]: check for check in json.loads(looked.stdout)}
        assert found["docker engine"]["state"] == "optional"
        assert all(check["remedy"] for check in found.values() if check["state"] != "ok")


def test_every_module_of_the_wheel_can_be_imported(environment: Path, tmp_path: Path) -> None:
    """Whatever is imported must be declared: the development requirements are not here."""
    code = (
        "import importlib, pkgutil, meltrepro\n"
        "def missing(name): assert name == 'meltrepro.testing', name\n"
        "found = pkgutil.walk_packages(meltrepro.__path__, 'meltrepro.', onerror=missing)\n"
        "names = [m.name for m in found if m.name not in ('meltrepro.__main__', 'meltrepro.testing')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(len(names))"
    )
    assert int(check([environment / "bin" / "python", "-c", code], tmp_path)) > 50


def test_the_contract_suites_say_what_they_need(environment: Path) -> None:
    command: list[str | Path] = [environment / "bin" / "python", "-c", "import meltrepro.testing.targets"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.endswith("the contract suites need pytest: pip install 'meltrepro[testing]'\n")
