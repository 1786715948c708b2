"""`meltrepro lock --upgrade`: one pin moves, everything else stays, and what moved is shown."""

from __future__ import annotations

import pytest

from meltrepro import errors
from meltrepro.cli.app import main
from meltrepro.manifest.lock import Lock, differences, dump_lock
from tests.fault.project import LOCAL, MODEL, PACKAGED, SDIST, Project, Refuse, gguf, sha256


def upgrade(project: Project, name: str, capsys: pytest.CaptureFixture[str]) -> tuple[Lock, Lock, str]:
    """The lock before and after, and what was printed."""
    before = project.read_lock()
    capsys.readouterr()
    assert main(["lock", str(project.spec), "--upgrade", name]) == 0
    return before, project.read_lock(), capsys.readouterr().out


@pytest.mark.parametrize("name", ["local", LOCAL, "local.gguf"])
def test_a_file_that_changed(project: Project, capsys: pytest.CaptureFixture[str], name: str) -> None:
    new = gguf("another training")
    (project.spec.parent / "local.gguf").write_bytes(new)
    before, after, said = upgrade(project, name, capsys)
    assert after.sources[LOCAL].digest == sha256(new)
    moved = {entry for entry, _ in differences(before, after).items()}
    assert {entry for entry in moved if not entry.startswith("artifacts: ")} <= {
        f"sources: {LOCAL}: digest",
        f"sources: {LOCAL}: size",
    }
    assert all(MODEL in entry for entry in moved if entry.startswith("artifacts: "))
    lines = [line for line in said.splitlines() if LOCAL in line]
    assert [line[0] for line in lines] == ["-", "+"]
    assert before.sources[LOCAL].digest in lines[0] and sha256(new) in lines[1]
    assert main(["build", str(project.spec)]) == 0
    built = project.read_lock()
    assert built.artifacts[MODEL].digest != before.artifacts[MODEL].digest
    assert set(built.artifacts) == set(before.artifacts)
    assert main(["build", str(project.spec), "--locked"]) == 0


@pytest.mark.parametrize("name", ["toolchain", "llama.cpp", "packaged", SDIST, PACKAGED, "llama-cpp-python"])
def test_what_did_not_change_stays(project: Project, capsys: pytest.CaptureFixture[str], name: str) -> None:
    before, after, _ = upgrade(project, name, capsys)
    assert main(["build", str(project.spec)]) == 0
    assert project.read_lock() == before
    assert after.model_copy(update={"artifacts": before.artifacts}) == before


def test_todays_base_is_not_to_be_had_offline(project: Project, refuse: Refuse) -> None:
    before = project.snapshot()
    assert (
        "the packages of the base image"
        in refuse(errors.OfflineError, "lock", project.spec, "--upgrade", "base").message
    )
    assert project.snapshot() == before
    lock = project.read_lock()
    assert lock.base is not None
    project.object(lock.base.layer).unlink()
    for package in lock.base.packages.values():
        project.object(package.digest).unlink()
    refuse(errors.OfflineError, "lock", project.spec)
    assert main(["build", str(project.spec), "--locked"]) == 0, "what is built needs no base"


def test_offline_a_base_that_vanished_is_pinned_anew_from_what_is_here(project: Project, refuse: Refuse) -> None:
    """As it is with a network when the archive has moved on; artifacts do not depend on it."""
    true = project.read_lock()
    assert true.base is not None
    gone = {name: package.model_copy(update={"digest": "0" * 64}) for name, package in true.base.packages.items()}
    base = true.base.model_copy(update={"packages": gone, "layer": "1" * 64})
    project.lock.write_text(dump_lock(true.model_copy(update={"base": base})))
    text = project.lock.read_bytes()
    assert f"expected {true.base.layer}" in refuse(errors.LockMismatch, "lock", project.spec, "--check").message
    assert project.lock.read_bytes() == text
    assert main(["lock", str(project.spec)]) == 0
    assert project.read_lock() == true


def test_only_looking_changes_nothing(project: Project, refuse: Refuse) -> None:
    (project.spec.parent / "local.gguf").write_bytes(gguf("another training"))
    text = project.lock.read_bytes()
    refusal = refuse(errors.LockMismatch, "lock", project.spec, "--upgrade", "local", "--check")
    assert LOCAL in refusal.message
    assert project.lock.read_bytes() == text


def test_a_name_that_nothing_has(project: Project, refuse: Refuse) -> None:
    text = project.lock.read_bytes()
    refusal = refuse(errors.LockError, "lock", project.spec, "--upgrade", "toolchian")
    assert "nothing in the lock is called 'toolchian'" in refusal.message
    assert "toolchain" in refusal.hint
    assert project.lock.read_bytes() == text


def test_without_upgrade_a_pin_stays_and_the_change_is_told(project: Project, refuse: Refuse) -> None:
    (project.spec.parent / "local.gguf").write_bytes(gguf("another training"))
    refusal = refuse(errors.DigestMismatch, "lock", project.spec)
    assert project.read_lock().sources[LOCAL].digest in refusal.message
