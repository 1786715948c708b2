"""Programs kept to some CPUs: asked for, and believed only after the kernel was asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from meltrepro.errors import TargetError
from meltrepro.targets.android.options import AndroidOptions
from meltrepro.targets.remote import affinity
from meltrepro.targets.remote.options import cpus
from meltrepro.targets.remote.shell import Shell
from tests.support.links import LocalLink

MINE = sorted(os.sched_getaffinity(0))
LAST = str(MINE[-1])


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(LocalLink(tmp_path))


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program with the runner's name that a job's supervisor has started, on the last CPU; that is us."""
    (tmp_path / "supervisor").write_text(f"{os.getpid()}\n")
    program = tmp_path / "melt-runner"
    shutil.copy("/bin/sleep", program)
    taskset = affinity.confining(Shell(LocalLink(tmp_path)), LAST)
    process = subprocess.Popen([*taskset, program, "60"])
    yield process
    process.kill()
    process.wait()


def test_a_list_of_cpus() -> None:
    assert cpus("0") == {0}
    assert cpus("0,4-7") == {0, 4, 5, 6, 7}
    with pytest.raises(ValueError, match="invalid literal"):
        cpus("")


def test_a_runner_where_it_should_be(shell: Shell, runner: object, tmp_path: Path) -> None:
    affinity.require(shell, str(tmp_path), LAST)


def test_a_runner_elsewhere(shell: Shell, runner: object, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=rf"here: the runner was to run on CPUs 0-60, and runs on {LAST}"):
        affinity.require(shell, str(tmp_path), "0-60")


def test_the_runner_of_another_job(
    shell: Shell, runner: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affinity, "_STARTS_WITHIN_S", 0.2)
    other = tmp_path / "other"
    other.mkdir()
    (other / "supervisor").write_text("1\n")
    with pytest.raises(TargetError, match="does not show on which CPUs the runner runs"):
        affinity.require(shell, str(other), "0-60")
    (other / "status").touch()
    affinity.require(shell, str(other), "0-60")  # it has ended


def test_it_is_tried_out(shell: Shell) -> None:
    tried = affinity.try_out(shell)
    if MINE[-1] == os.cpu_count() - 1:  # type: ignore[operator]
        assert (tried.set_to, tried.why) == (LAST, "")
    else:
        assert "asked for CPU" in tried.why


def test_threads_follow_cores() -> None:
    assert AndroidOptions(kind="android", cores="4-7").usable_cores == 4
    assert AndroidOptions(kind="android").usable_cores is None
    for wrong in ({"cores": "7-4"}, {"cores": "4-7", "threads": 5}, {"cores": "big"}, {"cores": "4-"}):
        with pytest.raises(ValidationError, match="cores|ascending"):
            AndroidOptions.model_validate({"kind": "android", **wrong})
