"""Trials in containers of a device's engine: what is asked of it, and what cannot be. A script stands in for the engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meltrepro.build.model import Artifact
from meltrepro.errors import TargetError
from meltrepro.targets.base import RUNNER
from meltrepro.targets.remote.containers import Containers
from meltrepro.targets.remote.deploy import DeviceCache
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.ssh.options import LinuxOptions
from tests.support.links import LocalLink

IMAGE = f"example.org/cuda@sha256:{'1' * 64}"
DOCKER = """#!/bin/sh
echo "$*" >> "{log}"
case "$1 $2" in
    "info "*) echo '{runtimes}' ;;
    "image inspect") exit {known} ;;
    "ps "*) echo one; echo two ;;
esac
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Artifact:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/bundle.json").write_text(json.dumps({"libc": "musl"}))
    (tmp_path / "bundle.tar").write_bytes(b"programs")
    return Artifact("f/run/x", "bundle", "a" * 64, "b" * 64, tmp_path / "bundle.tar", tmp_path / "bundle", 8, "aarch64")


def engine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, runtimes: str = '{"runc":{}}', known: int = 0
) -> LocalLink:
    """A device with an engine, which writes down what it is asked for."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER.format(log=folder / "asked", runtimes=runtimes, known=known))
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return LocalLink(folder)


def containers(link: LocalLink, image: str | None = None, cores: str | None = None) -> Containers:
    return Containers(Shell(link), "/var/tmp/m", image, cores)


@pytest.mark.parametrize("nvidia", [False, True])
def test_nothing_but_the_trials_folder_can_be_written(
    nvidia: bool, tmp_path: Path, bundle: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = engine(tmp_path, monkeypatch, runtimes='{"nvidia":{},"runc":{}}' if nvidia else '{"runc":{}}')
    found = containers(link, cores="4-7").command(bundle, RUNNER, "/var/tmp/m/jobs/trial-1", ["request", "events"])
    assert found[:3] == [str(tmp_path / "programs/docker"), "run", "--rm"]
    assert {
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--cpuset-cpus=4-7",
        "--mount=type=bind,source=/var/tmp/m,target=/var/tmp/m,readonly",
        "--mount=type=bind,source=/var/tmp/m/jobs/trial-1,target=/var/tmp/m/jobs/trial-1",
    } <= set(found)
    assert ("--runtime=nvidia" in found) == nvidia
    assert found[-4] == "--entrypoint=/bundle/bin/melt-runner"
    assert found[-3].startswith("meltrepro/runtime:") and found[-2:] == ["request", "events"]


def test_an_image_of_the_boards_own_runs_the_runner_that_was_deployed(
    tmp_path: Path, bundle: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = containers(engine(tmp_path, monkeypatch), IMAGE).command(
        bundle, RUNNER, "/var/tmp/m/jobs/trial-1", ["r", "e"]
    )
    assert found[-4:] == ["--entrypoint=/var/tmp/m/jobs/trial-1/melt-runner", IMAGE, "r", "e"]


def test_an_image_is_loaded_once(tmp_path: Path, bundle: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    link = engine(tmp_path, monkeypatch)
    containers(link).load(bundle, DeviceCache(Shell(link), str(tmp_path)), lambda sent, size: None)
    assert "load" not in (tmp_path / "asked").read_text()


def test_programs_that_need_a_c_library_need_an_image_that_has_one(
    tmp_path: Path, bundle: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle.path / "bundle.json").write_text(json.dumps({"libc": "glibc"}))
    link = engine(tmp_path, monkeypatch)
    with pytest.raises(TargetError, match="need the device's own C library") as caught:
        containers(link).load(bundle, DeviceCache(Shell(link), str(tmp_path)), lambda sent, size: None)
    assert "container: NAME@sha256" in str(caught.value.hint)
    containers(link, IMAGE).load(bundle, DeviceCache(Shell(link), str(tmp_path)), lambda sent, size: None)


def test_a_board_without_an_engine_says_so(tmp_path: Path, bundle: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    link = engine(tmp_path, monkeypatch)
    (tmp_path / "programs/docker").write_text("#!/bin/sh\necho 'permission denied' >&2\nexit 1\n")
    with pytest.raises(TargetError, match="cannot use docker: permission denied") as caught:
        containers(link).command(bundle, RUNNER, "/var/tmp/m/jobs/trial-1", [])
    assert "group docker" in str(caught.value.hint)


def test_a_folder_that_no_mount_can_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match="cannot be shown to a container"):
        Containers(Shell(engine(tmp_path, monkeypatch)), "/var/a,b", None, None)


def test_containers_are_removed_by_their_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert containers(engine(tmp_path, monkeypatch)).clear() == 2
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["ps -aq --filter label=meltrepro.root=/var/tmp/m", "rm -f one", "rm -f two"]


@pytest.mark.parametrize(
    ("container", "fine"), [(True, True), (IMAGE, True), ("sha256:" + "2" * 64, True), ("cuda:latest", False)]
)
def test_an_image_is_named_by_digest(container: bool | str, fine: bool) -> None:
    entry = {"kind": "linux", "host": "board", "container": container}
    if fine:
        assert LinuxOptions.model_validate(entry).container == container
        return
    with pytest.raises(ValueError, match="container"):
        LinuxOptions.model_validate(entry)
