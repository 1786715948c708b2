"""The package that a virtual iPhone gets, as a phone would see it."""

from __future__ import annotations

import plistlib
import zipfile
from pathlib import Path

import pytest

from meltrepro.errors import BuildError, StoreError
from meltrepro.lab.iphone.apps import Apps
from meltrepro.targets.ios.app_package import check_app, runner_package, runner_package_digest


def test_a_runner_becomes_an_app_of_the_lab(tmp_path: Path) -> None:
    runner = tmp_path / "melt-runner"
    runner.write_bytes(b"a program")
    with runner_package(runner, "org.meltrepro.runner") as package:
        with zipfile.ZipFile(package) as archive:
            info = plistlib.loads(archive.read("Payload/melt-runner.app/Info.plist"))
        assert info["CFBundleIdentifier"] == "org.meltrepro.runner"
        with pytest.raises(BuildError, match="not signed"):
            check_app(package, "org.meltrepro.runner", "it")
        app = Apps(tmp_path / "apps").install(package)
    assert app.describe()["CFBundleExecutable"] == "melt-runner"
    assert app.program[-1].endswith("bundle/melt-runner")
    assert Path(app.program[-1]).read_bytes() == b"a program"
    assert app.program[2].endswith("runner_app.py"), "the lab's app goes around the runner"
    assert not package.exists()


def test_it_is_known_by_its_runner(tmp_path: Path) -> None:
    runner = tmp_path / "melt-runner"
    runner.write_bytes(b"a program")
    first = runner_package_digest(runner)
    assert runner_package_digest(runner) == first
    runner.write_bytes(b"another")
    assert runner_package_digest(runner) != first
    runner.unlink()
    with pytest.raises(StoreError):
        runner_package_digest(runner)
