"""Builds on bad days: the engine goes away, the disk fills up, the store cannot be written, somebody stops it.

Through the command line, with the real engines. After every failure: one message, a next step, an exit code of its own,
nothing half-written in the store; and the same command finishes when the trouble is over.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from meltrepro.build.image import Layer
from meltrepro.build.model import Artifact, Execution
from meltrepro.build.process_engine import ProcessEngine
from meltrepro.cli.app import main
from meltrepro.errors import (
    BuildError,
    EngineError,
    Interrupted,
    ManifestError,
    MeltreproError,
    ModelError,
    SourceError,
    StoreError,
    UsageError,
)
from meltrepro.record.reader import campaign_folders
from meltrepro.steps import silent
from meltrepro.store.archive import unpack_root
from meltrepro.store.cas import Store
from tests.fault import building, rig
from tests.fault.building import Command, Compiler, complaint
from tests.fault.engine_server import EngineServer, engine_server
from tests.fault.project import Project, copied, gguf
from tests.fault.test_store_faults import mounted, nothing_half_written, root_only

Refuse = Callable[..., tuple[str, str]]
needs_sandbox = pytest.mark.skipif(shutil.which("bwrap") is None, reason="the engine process needs bubblewrap")
OFFLINE = ("--engine", "process")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project of which nothing is built; no test changes it."""
    return building.make(tmp_path_factory.mktemp("building") / "project")


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy of it that the commands of this process work on."""
    copy = copied(made, tmp_path / "project")
    with building.standing_in(copy.folder):
        yield copy


@pytest.fixture
def patch(project: Project) -> Iterator[pytest.MonkeyPatch]:
    """As `monkeypatch`, undone before the project's own patches are: the other way round, some would stay."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a command that must fail with this error; returns its message and the next step."""

    def run(error: type[MeltreproError], *arguments: object) -> tuple[str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr().err
        assert code == error.exit_code, said
        return complaint(said)

    return run


def build(project: Project) -> tuple[object, ...]:
    return "build", project.spec, *OFFLINE


def check_sound(project: Project) -> None:
    """Every object is whole, nothing lies about, and every result names something that is here."""
    store = Store(project.store)
    assert nothing_half_written(store)
    for kind in ("artifacts", "base-layer", "toolchain"):
        assert all(store.has(value["digest"]) for value in store.list_refs(kind).values())


def finishes(project: Project, *arguments: str) -> None:
    """The same command again, without trouble."""
    assert main(["build", str(project.spec), *(arguments or OFFLINE)]) == 0
    check_sound(project)
    assert building.MODEL in yaml.safe_load(project.lock.read_text())["artifacts"]


# -- the engine goes away -----------------------------------------------------------------------------------------


@pytest.fixture
def engine(project: Project, patch: pytest.MonkeyPatch) -> Iterator[EngineServer]:
    """A Docker engine of our own making."""
    script = rig.SCRIPT.format(python=sys.executable).encode()
    with tempfile.TemporaryDirectory() as short:  # the path of a socket may not be long
        socket = Path(short) / "docker.sock"
        patch.setenv("DOCKER_HOST", f"unix://{socket}")
        files = {"bin/melt-runner": script, "bin/quantize": b"#!/bin/sh\n"}
        with engine_server(socket, EngineServer(files, gguf("quantized"))) as server:
            yield server


@pytest.mark.parametrize("request_", ["load", "build", "archive", "wait"])
def test_the_engine_goes_away(project: Project, engine: EngineServer, refuse: Refuse, request_: str) -> None:
    engine.dies = request_
    message, hint = refuse(EngineError, "build", project.spec)
    assert "the Docker engine went away" in message
    assert "doctor" in hint
    check_sound(project)
    assert not project.lock.exists()
    engine.revive()
    finishes(project, "--engine", "docker")


@pytest.mark.parametrize("request_", ["build", "archive"])
def test_the_engine_ends_too_soon(project: Project, engine: EngineServer, refuse: Refuse, request_: str) -> None:
    engine.quits = request_
    message, _ = refuse(EngineError, "build", project.spec)
    assert "stopped in the middle" in message
    check_sound(project)
    engine.revive()
    finishes(project, "--engine", "docker")


def test_the_disk_of_the_engine_is_full(project: Project, engine: EngineServer, refuse: Refuse) -> None:
    engine.full = True
    message, hint = refuse(BuildError, "build", project.spec)
    assert "no space left on device" in message
    assert "where Docker keeps its data" in hint
    engine.revive()
    finishes(project, "--engine", "docker")


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("out/../evil", tarfile.REGTYPE, ""),
        ("/tmp/evil", tarfile.REGTYPE, ""),
        ("out/evil", tarfile.SYMTYPE, "/etc/passwd"),
        ("out/evil", tarfile.SYMTYPE, "../../../evil"),
        ("out/evil", tarfile.LNKTYPE, "/etc/passwd"),
        ("out/evil", tarfile.CHRTYPE, ""),
    ],
)
def test_a_build_leaves_what_leads_out(
    project: Project, engine: EngineServer, refuse: Refuse, name: str, kind: bytes, target: str
) -> None:
    """And the Docker engine hands it over as it is."""
    engine.evil = tarfile.TarInfo(name)
    engine.evil.type, engine.evil.linkname = kind, target
    message, hint = refuse(BuildError, "build", project.spec)
    assert re.search(rf"left: unsafe to unpack: {name!r} (leads out of the folder|is neither)", message)
    assert "/out" in hint
    check_sound(project)
    engine.revive()
    finishes(project, "--engine", "docker")


def test_a_user_who_cannot_make_the_base_learns_it_before_anything_is_fetched(
    project: Project, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And who has it already needs no more than that."""
    patch.setattr(os, "geteuid", lambda: 1000)
    for made in (project.store / "refs" / "base-layer").iterdir():
        kept = made.rename(project.folder / made.name)
    assert main([str(argument) for argument in build(project)]) == EngineError.exit_code
    said = capsys.readouterr().err
    assert "this user cannot make the base image" in said
    assert "cannot find newuidmap" in said
    assert "fetch" not in said
    kept.rename(project.store / "refs" / "base-layer" / kept.name)
    finishes(project)


@pytest.mark.parametrize(("jobs", "name"), [("5", "out/evil"), ("6", "out/folder/evil")])
def test_a_build_by_processes_leaves_a_link(
    project: Project, refuse: Refuse, patch: pytest.MonkeyPatch, jobs: str, name: str
) -> None:
    """What is said of it, and how the command ends, depends on no engine."""
    patch.setenv("MELTREPRO_JOBS", jobs)
    message, hint = refuse(BuildError, *build(project))
    assert f"left: unsafe to unpack: {name!r} is neither a plain file nor a folder" in message
    assert "/out" in hint
    check_sound(project)


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("../evil", tarfile.REGTYPE, ""),
        ("evil/passwd", tarfile.REGTYPE, ""),
        ("opt", tarfile.SYMTYPE, "/etc"),
        ("b", tarfile.LNKTYPE, "../../evil"),
        ("b", tarfile.BLKTYPE, ""),
    ],
)
def test_a_layer_leads_out(tmp_path: Path, name: str, kind: bytes, target: str) -> None:
    """Of a root that the engine process unpacks: nothing is written, not even within the store."""
    layer, link, entry = tmp_path / "layer.tar", tarfile.TarInfo("evil"), tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    entry.type, entry.linkname = kind, target
    with tarfile.open(layer, "w") as tar:
        tar.addfile(link)
        tar.addfile(entry)
    store = Store(tmp_path / "store")
    with pytest.raises(SourceError, match="unsafe to unpack"):
        ProcessEngine(lambda: [Layer(layer, "0" * 64)], store, 1, silent).root()
    assert nothing_half_written(store)
    assert not any((store.root / "rootfs").iterdir())


def test_no_engine(project: Project, refuse: Refuse, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("DOCKER_HOST", f"unix://{project.folder}/nobody.sock")
    message, hint = refuse(EngineError, "build", project.spec)
    assert "no Docker engine answers" in message
    assert "nobody.sock" in message
    assert "--engine process" in hint


def test_no_sandbox(project: Project, refuse: Refuse, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PATH", str(project.folder / "bin"))
    message, hint = refuse(EngineError, *build(project))
    assert "bubblewrap" in message
    assert "doctor --fix" in hint


@needs_sandbox
def test_the_compiler_is_killed(project: Project, refuse: Refuse, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("MELTREPRO_JOBS", str(Compiler.dies.value))
    message, hint = refuse(EngineError, *build(project))
    assert "compile was killed" in message
    assert "memory" in hint
    check_sound(project)
    patch.setenv("MELTREPRO_JOBS", "1")
    finishes(project)


@needs_sandbox
@pytest.mark.parametrize(("stage", "jobs"), [("build llama.cpp", Compiler.hangs), ("quantize", Compiler.works)])
def test_the_sandbox_is_killed(project: Project, stage: str, jobs: Compiler) -> None:
    command = Command(project, "build", str(project.spec), *OFFLINE, MELTREPRO_JOBS=str(jobs.value))
    command.wait_for(stage)
    command.sandbox().kill()
    assert command.end() == EngineError.exit_code, command.errors
    message, hint = complaint(command.errors)
    assert "was killed" in message
    assert "same command" in hint
    check_sound(project)
    finishes(project)


# -- the disk fills up --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(made: Project, tmp_path: Path) -> Iterator[Project]:
    """The project with its store on a disk of 40 MB."""
    folder = tmp_path / "small"
    (folder / "cache").mkdir(parents=True)
    with mounted(folder / "cache", "-t", "tmpfs", "-o", "size=40m", "tmpfs"):
        project = copied(made, folder)
        with building.standing_in(folder):
            yield project


def leave(project: Project, kilobytes: int) -> Path:
    """Fill the store's disk but for this much; returns the file to remove."""
    ballast = project.folder / "cache" / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(65536)):
            pass
    os.truncate(ballast, ballast.stat().st_size - kilobytes * 1024)
    return ballast


def names_the_disk(project: Project, message: str) -> bool:
    return str(project.folder / "cache") in message and "No space left on device" in message


@root_only
@needs_sandbox
@pytest.mark.parametrize("kilobytes", [0, 8, 1024, 2048, 4096, 6144, 8192, 9216, 10240])
def test_the_disk_fills_up_anywhere(small_disk: Project, refuse: Refuse, kilobytes: int) -> None:
    """Toolchain, root file system, recipe, log, result, archive, conversion: whatever is the first that does not fit."""
    ballast = leave(small_disk, kilobytes)
    message, hint = refuse(StoreError, *build(small_disk))
    assert names_the_disk(small_disk, message)
    assert "meltrepro gc" in hint
    check_sound(small_disk)
    ballast.unlink()
    finishes(small_disk)


@root_only
@needs_sandbox
def test_the_disk_fills_up_under_the_compiler(small_disk: Project, refuse: Refuse) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MELTREPRO_JOBS", str(Compiler.fills.value))
        message, _ = refuse(StoreError, *build(small_disk))
    assert names_the_disk(small_disk, message)
    check_sound(small_disk)
    finishes(small_disk)


@root_only
@needs_sandbox
def test_the_disk_fills_up_under_a_conversion(small_disk: Project, refuse: Refuse) -> None:
    building.write_model(small_disk.spec.parent / "local.gguf", kilobytes=4096)
    assert main([*map(str, build(small_disk))]) == 0
    shutil.rmtree(small_disk.store / "refs" / "artifacts")
    ballast = leave(small_disk, 6 * 1024)
    message, _ = refuse(StoreError, *build(small_disk))
    assert names_the_disk(small_disk, message)
    check_sound(small_disk)
    ballast.unlink()
    finishes(small_disk)


@root_only
def test_the_disk_fills_up_under_the_base(small_disk: Project, refuse: Refuse) -> None:
    building.forget_base(small_disk)
    (small_disk.folder / "order").write_text("fill")
    message, _ = refuse(StoreError, *build(small_disk))
    assert names_the_disk(small_disk, message)
    check_sound(small_disk)
    (small_disk.folder / "order").unlink()
    finishes(small_disk)


# -- somebody stops it ----------------------------------------------------------------------------------------------


def left_running(project: Project) -> list[str]:
    """Command lines of processes that work below the project's folder."""
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if str(project.folder) in line:
                lines.append(line)
    return lines


@needs_sandbox
@pytest.mark.parametrize(
    ("stage", "jobs"),
    [
        ("rootfs.unpack", Compiler.works),
        ("build builder", Compiler.works),
        ("build llama.cpp", Compiler.hangs),
        ("untie", Compiler.works),
        ("quantize", Compiler.works),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_is_interrupted(project: Project, stage: str, jobs: Compiler, number: int) -> None:
    """By a signal to the whole group, as a terminal sends it: one line, nothing left, and a rerun finishes."""
    command = Command(project, "build", str(project.spec), *OFFLINE, MELTREPRO_JOBS=str(jobs.value))
    command.wait_for(stage)
    command.interrupt(number)
    assert command.end() == Interrupted.exit_code, command.errors
    message, hint = complaint(command.errors)
    assert "\n" not in message
    assert "goes on where this one stopped" in hint
    assert left_running(project) == []
    check_sound(project)
    finishes(project)


@needs_sandbox
def test_a_sandbox_is_stopped_at_any_age(project: Project) -> None:
    """Even while it is setting itself up, when what it has started would not end with it."""
    unpack_root([project.folder / "root.tar"], project.folder / "root", "root.tar")
    folder = project.folder / "root" / "opt" / "toolchain"
    bundle = Artifact("sleep", "bundle", "", "", folder, folder, 0)
    argv = (*building.in_kit("sleep"), "1000")
    engine = ProcessEngine(list, Store(project.store), 1, silent)
    for age in range(60):
        assert engine.execute(Execution(argv, bundle, timeout_s=age / 5000)).timed_out
        assert left_running(project) == [], f"stopped after {age / 5} ms"


@pytest.mark.parametrize("order", ["hang", "stubborn"])
def test_the_assembly_of_the_base_is_interrupted(project: Project, order: str) -> None:
    """With mmdebstrap's own children, and where it does not obey."""
    building.forget_base(project)
    (project.folder / "order").write_text(order)
    command = Command(project, "build", str(project.spec), *OFFLINE)
    command.wait_for("base.assemble")
    while len(psutil.Process(command.process.pid).children(recursive=True)) < 2:
        time.sleep(0.01)
    command.interrupt(signal.SIGINT)
    assert command.end() == Interrupted.exit_code, command.errors
    assert left_running(project) == []
    check_sound(project)
    (project.folder / "order").unlink()
    finishes(project)


# -- a store that cannot be written --------------------------------------------------------------------------------


@root_only
def test_a_store_on_a_disk_that_is_read_only(project: Project, refuse: Refuse) -> None:
    cache = project.folder / "cache"
    with mounted(cache, "--bind", str(cache)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(cache)], check=True)
        message, _ = refuse(StoreError, *build(project))
    assert str(cache) in message
    assert "Read-only file system" in message
    finishes(project)


def test_a_file_where_the_cache_should_be(
    project: Project, refuse: Refuse, tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    patch.setenv("MELTREPRO_CACHE", str(tmp_path / "file"))
    message, _ = refuse(UsageError, *build(project))
    assert message == f"MELTREPRO_CACHE: expected a folder, but {tmp_path / 'file'} is a file"
    assert (tmp_path / "file").read_text() == "not a folder"


# -- what a build leaves behind -------------------------------------------------------------------------------------


@needs_sandbox
def test_a_campaign_keeps_the_logs_of_artifacts_that_were_built_before_it(project: Project) -> None:
    finishes(project)
    assert main(["run", str(project.spec), "--no-track", *OFFLINE]) == 0
    (campaign,) = campaign_folders(project.folder / "home" / "records")
    (bundle,), (quantizer,), (model,) = (
        [path.read_text() for path in (campaign / "builds").rglob("build.log") if part in str(path)]
        for part in ("run", "quantize", "q8_0")
    )
    assert "compiled" in bundle
    assert "compiled" in quantizer
    assert "quantizing to Q8_0" in model


# -- models that are none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "step"),
    [(b"PK\x03\x04 a zip", "unpack"), (b"\0", "get the file again"), (b"<html>Sign in</html>", "/resolve/")],
)
def test_a_model_that_is_no_gguf_file(project: Project, refuse: Refuse, content: bytes, step: str) -> None:
    """Said before anything is built, with its place in the manifest, and mended by the right file."""
    true = (project.spec.parent / "local.gguf").read_bytes()
    (project.spec.parent / "local.gguf").write_bytes(content)
    message, hint = refuse(ModelError, *build(project))
    assert "models.local.source.file: local.gguf is not a GGUF file" in message
    assert step in hint
    check_sound(project)
    (project.spec.parent / "local.gguf").write_bytes(true)
    assert main([str(argument) for argument in build(project)]) == 0


def test_an_empty_model_file_is_told_with_its_place(project: Project, refuse: Refuse) -> None:
    (project.spec.parent / "local.gguf").write_bytes(b"")
    message, hint = refuse(ManifestError, *build(project))
    assert "source.file: expected a file" in message
    assert "local.gguf is empty" in message
    assert "mend the paths" in hint
    check_sound(project)
