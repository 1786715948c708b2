"""Bundles by somebody who knows the format and put programs of their own into an honest one, with every digest right.

What they bring is measured and replayed where it may be, and is believed nowhere else: after every command, what the store
of this machine knew before is compared byte by byte.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from meltrepro import errors, settings
from meltrepro.build import base
from meltrepro.build.model import Execution, Exit
from meltrepro.build.tools import Tools
from meltrepro.cli.app import main
from meltrepro.manifest.lock import Lock, LockedPackage, dump_lock, load_lock
from meltrepro.manifest.sources import UrlSource
from meltrepro.record.campaign import campaign_bytes, parse_campaign
from meltrepro.replay import archive, gaps
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from tests.fault.project import MODEL, Project, Refuse, SmallEngine, other, runner_of, sha256
from tests.fault.rig import SCRIPT
from tests.fault.test_bundle_tampering import contents

EVIL = SCRIPT.format(python=sys.executable).encode() + b"# by a stranger\n"
PROGRAMS = ("bin/melt-runner", "bin/melt-sampler", "bin/melt-agent")


@dataclass
class Forger:
    """Everything that a bundle holds, to be changed and sealed anew."""

    files: dict[str, bytes]
    lock: Lock
    about: dict[str, Any]
    campaign: str

    def replace(self, name: str, programs: Mapping[str, bytes]) -> str:
        """Put programs into the artifact of a name, and its new digest into the lock; returns the old one."""
        old = self.lock.artifacts[name]
        tar = io.BytesIO(self.files.pop(f"objects/{old.digest}"))
        out = io.BytesIO()
        with (
            tarfile.open(fileobj=tar) as before,
            tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as after,
        ):
            for entry in before:
                if entry.name.removeprefix("bundle/") not in programs:
                    after.addfile(entry, before.extractfile(entry) if entry.isreg() else None)
            for path, content in programs.items():
                entry = tarfile.TarInfo(f"bundle/{path}")
                entry.size, entry.mode = len(content), 0o755
                after.addfile(entry, io.BytesIO(content))
        new = sha256(out.getvalue())
        self.files[f"objects/{new}"] = out.getvalue()
        artifacts = {**self.lock.artifacts, name: old.model_copy(update={"digest": new})}
        self.lock = self.lock.model_copy(update={"artifacts": artifacts})
        return old.digest

    def state(self, name: str) -> None:
        """Let the statements of an artifact be about what is in the lock."""
        digest = self.lock.artifacts[name].digest
        for kind, place in (("provenance", "subject"), ("sbom", "metadata")):
            member = f"attestations/{name}/{kind}.json"
            document = json.loads(self.files[member])
            if kind == "provenance":
                document[place][0]["digest"]["sha256"] = digest
            else:
                document[place]["component"]["hashes"][0]["content"] = digest
            self.files[member] = json.dumps(document).encode()

    def record(self, **changes: str) -> None:
        """Change entries of the campaign's cells, and seal it with the lock as it is."""
        member = f"records/{self.campaign}/campaign.json"
        document = parse_campaign(self.files[member])
        lock = dump_lock(self.lock).encode()
        cells = [cell.model_copy(update=changes) for cell in document.cells]
        files = {**document.files, "lock.yaml": sha256(lock)}
        self.files[member] = campaign_bytes(document.model_copy(update={"cells": cells, "files": files}))
        self.files["lock.yaml"] = self.files[f"records/{self.campaign}/lock.yaml"] = lock

    def write(self, path: Path) -> None:
        """The bundle, whole by every rule of its format."""
        labels = self.about.get("labels", {})
        about = {**self.about, "labels": {name: label for name, label in labels.items() if name in self.files}}
        archive.write(path, about, self.files)


def forger(made: Project) -> Forger:
    lock = load_lock(made.campaign / "lock.yaml")
    assert lock is not None
    about = dict(archive.verify(made.bundle).about)
    return Forger(contents(made.bundle), lock, about, made.campaign.name)


def consistently(made: Project, path: Path) -> tuple[str, str]:
    """A bundle whose runner, sensor logger, agent and quantizer are a stranger's; digests of its two bundles."""
    forged = forger(made)
    runner, quantizer = runner_of(forged.lock), quantizer_of(forged.lock)
    forged.replace(runner, dict.fromkeys(PROGRAMS, EVIL))
    forged.replace(quantizer, {"bin/quantize": EVIL})
    for name in (runner, quantizer):
        forged.state(name)
    forged.record(bundle_digest=forged.lock.artifacts[runner].digest, runner_digest=sha256(EVIL))
    forged.write(path)
    return forged.lock.artifacts[runner].digest, forged.lock.artifacts[quantizer].digest


def quantizer_of(lock: Lock) -> str:
    return next(name for name in lock.artifacts if "/quantize/" in name)


def refs(project: Project) -> dict[str, bytes]:
    """All that this machine knows by itself, but for which lock files there are."""
    root = project.store / "refs"
    files = [path for path in root.rglob("*") if path.is_file() and path.parent.name != "roots"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@dataclass
class Watched(SmallEngine):
    """A small engine that also runs trials, and remembers what it ran."""

    ran: list[str] = field(default_factory=list)
    """Digests of bundles."""

    def execute(self, execution: Execution) -> Exit:
        self.ran.append(execution.bundle.digest)
        if "/source" in execution.readonly:
            return super().execute(execution)
        record = execution.writable["/record"]
        argv = [each.replace("/record", str(record)) for each in execution.argv[1:]]
        program = execution.bundle.path / execution.argv[0].removeprefix("/bundle/")
        return Exit(subprocess.run([program, *argv], check=False).returncode)

    def beside(self, execution: Execution) -> AbstractContextManager[str]:
        self.ran.append(execution.bundle.digest)
        return contextlib.nullcontext("")


@pytest.fixture
def engine(project: Project, monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched()
    monkeypatch.setattr(Tools, "_make_engine", lambda tools: tools.layers() and watched)
    return watched


@pytest.fixture
def elsewhere(made: Project, project: Project) -> tuple[str, str]:
    """The bundle of a stranger, on a machine that has built and measured the same; not under the same id."""
    digests = consistently(made, project.bundle)
    shutil.rmtree(project.folder / "home")
    return digests


# -- what is known here stays as it is ----------------------------------------------------------------------------


COMMANDS: dict[str, tuple[str, ...]] = {
    "import": ("bundle", "import", "BUNDLE"),
    "verify": ("bundle", "verify", "BUNDLE"),
    "report": ("report", "BUNDLE", "--no-track", "-o", "REPORT"),
    "replay": ("replay", "BUNDLE", "--no-track", "--maximum", "5"),
    # The other model is a file of the machine that measured.
    "rebuild": ("replay", "BUNDLE", "--no-track", "--only", "packaged/*", "--rebuild"),
}
CODES: dict[str, tuple[int, ...]] = {"replay": (0, 60, 61), "rebuild": (errors.VerifyError.exit_code,)}


def call(project: Project, command: tuple[str, ...]) -> int:
    places = {"BUNDLE": str(project.bundle), "REPORT": str(project.folder / "report")}
    return main([places.get(each, each) for each in command])


@pytest.mark.parametrize("name", list(COMMANDS))
def test_nothing_of_ones_own_is_replaced(
    project: Project, engine: Watched, elsewhere: tuple[str, str], name: str
) -> None:
    before, lock = refs(project), project.lock.read_bytes()
    assert call(project, COMMANDS[name]) in CODES.get(name, (0,))
    assert refs(project) == before
    assert project.lock.read_bytes() == lock
    assert set(engine.ran) == ({elsewhere[0]} if name == "replay" else set()), "nothing else runs anything"
    engine.ran.clear()
    mine = project.read_lock().artifacts[runner_of(project.read_lock())].digest
    assert main(["run", str(project.spec), "--no-track", "--quiet", "--set", "targets.host.sandbox=container"]) == 0
    assert set(engine.ran) == {mine}, "a run of one's own runs one's own program"
    after = refs(project)
    assert {name: ref for name, ref in after.items() if name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} <= {"files"}, "the manifest's file was read"


def test_what_is_built_on_a_base_of_others_is_believed_where_that_is_the_base_alone(
    made: Project, project: Project, engine: Watched
) -> None:
    """A lock of a stranger's beside a manifest, and the base that it names from a bundle."""
    forged = forger(made)
    assert forged.lock.base is not None
    base_layer = b"a base with another shell"
    forged.files[f"objects/{sha256(base_layer)}"] = base_layer
    del forged.files[f"objects/{forged.lock.base.layer}"]
    theirs = forged.lock.base.model_copy(update={"layer": sha256(base_layer)})
    forged.lock = forged.lock.model_copy(update={"base": theirs})
    forged.record()
    forged.write(project.bundle)
    shutil.rmtree(project.folder / "home")
    assert main(["bundle", "import", str(project.bundle)]) == 0
    shutil.rmtree(project.store / "refs" / "artifacts")
    project.lock.write_text(dump_lock(forged.lock))
    for _ in range(2):
        assert main(["build", str(project.spec)]) == 0
        assert not (project.store / "refs" / "artifacts").exists()
        assert list((project.store / "scopes" / sha256(base_layer) / "refs" / "artifacts").glob("*.json"))
        assert main(["gc"]) == 0


def test_no_manifest_is_told_what_only_a_lock_said_of_a_source(project: Project) -> None:
    store = Store(project.store)
    theirs = store.put_bytes(b"weights of a stranger, imported")
    fetcher = Fetcher(store, settings.load(), lambda step: None)
    source = UrlSource(url="https://models.example/model.gguf", digest=theirs)
    assert fetcher.pin(source, project.folder).digest == theirs
    assert fetcher.known(source) is not None
    assert fetcher.known(source.model_copy(update={"digest": None})) is None


@pytest.mark.parametrize("name", ["import", "report", "replay", "rebuild"])
def test_a_machine_that_has_built_nothing_does_not_take_a_strangers_program(
    project: Project, engine: Watched, elsewhere: tuple[str, str], name: str
) -> None:
    shutil.rmtree(project.store / "refs" / "artifacts")
    project.lock.unlink()
    assert call(project, COMMANDS[name]) in CODES.get(name, (0,))
    assert not (project.store / "refs" / "artifacts").exists()
    assert main(["build", str(project.spec)]) == 0
    assert not set(elsewhere) & {each.digest for each in project.read_lock().artifacts.values()}


@pytest.mark.parametrize("known", [True, False])
def test_a_rebuild_believes_no_strangers_word(
    project: Project, engine: Watched, elsewhere: tuple[str, str], refuse: Refuse, known: bool
) -> None:
    """That the key in the lock leads to the digest in the lock, is what a rebuild is to find out."""
    if not known:
        shutil.rmtree(project.store / "refs" / "artifacts")
    refusal = refuse(errors.VerifyError, "replay", project.bundle, "--only", "packaged/*", "--no-track", "--rebuild")
    assert f"the same inputs gave other bytes: the lock has {elsewhere[0]}" in refusal.message
    assert engine.ran == []


def test_pins_of_a_bundle_need_no_network_and_are_no_pins_of_ones_own(
    made: Project, project: Project, engine: Watched
) -> None:
    shutil.copy(made.bundle, project.bundle)
    shutil.rmtree(project.folder / "home")
    shutil.rmtree(project.store)
    shutil.rmtree(project.mirrored)
    project.mirrored.mkdir()
    (project.mirrored / "mirrors.yaml").write_text("mirrors: {}\n")
    assert call(project, COMMANDS["rebuild"]) in (0, 60, 61)
    assert {name.split("/")[0] for name in refs(project)} <= {"files"}
    assert main(["build", str(project.spec)]) == 0, "its lock names the very bytes, which are here"


def test_no_package_of_a_stranger_is_installed_to_make_a_base_image(
    made: Project, project: Project, engine: Watched, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scripts would run outside of any sandbox. The layer of the lock is not inside, the packages are."""
    called: list[object] = []
    monkeypatch.setattr(base, "_mmdebstrap", lambda *arguments: called.append(arguments))
    forged = forger(made)
    assert forged.lock.base is not None
    forged.files[f"objects/{sha256(EVIL)}"] = EVIL
    package = LockedPackage(version="13", architecture="amd64", digest=sha256(EVIL))
    packages = {"base-files": package}
    changed = forged.lock.base.model_copy(update={"layer": sha256(b"another layer"), "packages": packages})
    forged.lock = forged.lock.model_copy(update={"base": changed})
    forged.record()
    forged.write(project.bundle)
    shutil.rmtree(project.folder / "home")
    shutil.rmtree(project.store / "refs" / "artifacts")
    refusal = refuse(errors.LockError, "replay", project.bundle, "--only", "packaged/*", "--no-track", "--rebuild")
    assert "Debian archive does not have 1 package of it: base-files 13" in refusal.message
    assert called == []


# -- whose programs run, and where --------------------------------------------------------------------------------


def test_a_replay_says_whose_programs_it_runs_and_has_them_in_a_sandbox(
    project: Project, engine: Watched, elsewhere: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest asks for `sandbox: bare`."""
    call(project, (*COMMANDS["replay"], "--json"))
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if line.startswith("runs programs")]
    name = runner_of(project.read_lock())
    assert "came with this record and were not built here" in line
    assert f"{name} (sha256 {elsewhere[0][:12]}...)" in line
    assert "in a sandbox without network" in line
    assert "host: in a sandbox, not bare" in said.err
    assert set(engine.ran) == {elsewhere[0]}
    assert json.loads(said.out)["programs"] == [{"name": name, "sha256": elsewhere[0], "built_here": False}]


def test_ones_own_programs_run_as_they_did(
    project: Project, engine: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(project.campaign), "--no-track", "--only", "packaged/*"]) in (0, 60, 61)
    said = capsys.readouterr().err
    assert "runs programs alone that were built on this machine" in said
    assert "not bare" not in said
    assert engine.ran == []


def test_a_bare_target_of_the_command_line_is_no_way_around(
    project: Project, engine: Watched, elsewhere: tuple[str, str]
) -> None:
    call(project, (*COMMANDS["replay"], "--target", "{kind: host, sandbox: bare, threads: 1}"))
    assert set(engine.ran) == {elsewhere[0]}


@pytest.mark.parametrize("options", [(), ("--only", "packaged/*"), ("--engine", "process"), ("--rebuild",)])
def test_where_no_engine_answers_nothing_of_a_stranger_is_unpacked(
    project: Project, engine: Watched, refuse: Refuse, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    shutil.rmtree(project.folder / "home")
    monkeypatch.setattr(gaps, "engine_problems", lambda *_: ["no engine answers"])
    before = project.snapshot()
    refusal = refuse(errors.PlanError, "replay", project.bundle, "--no-track", *options)
    assert "no engine answers" in refusal.message
    assert project.snapshot() == before
    assert engine.ran == []
    gaps.require_ready(project.bundle, settings.load(), "docker", only=["*/phone/*"])  # nothing of it runs here


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--rebuild",), errors.PlanError.exit_code)])
def test_ones_own_bundle_of_a_bare_target_needs_no_engine(
    project: Project, engine: Watched, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], code: int
) -> None:
    monkeypatch.setattr(gaps, "engine_problems", lambda *_: ["no engine answers"])
    found = main(["replay", str(project.bundle), "--no-track", "--only", "packaged/*", *options])
    assert found in ((0, 60, 61) if code == 0 else (code,))
    assert engine.ran == []


# -- what verify says ---------------------------------------------------------------------------------------------


def test_verify_says_what_this_machine_has_built(
    made: Project, project: Project, elsewhere: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    lock = project.read_lock()
    runner, quantizer = runner_of(lock), quantizer_of(lock)
    assert main(["bundle", "verify", str(project.bundle)]) == 0
    said = capsys.readouterr()
    assert "nothing in it is signed" in said.out
    assert f"the same bytes  {MODEL}" in said.out
    for name, digest in zip((runner, quantizer), elsewhere, strict=True):
        assert f"OTHER BYTES     {name}" in said.out
        assert f"warning: {name}: here it has sha256 {lock.artifacts[name].digest}, in the bundle {digest}" in said.err
    shutil.rmtree(project.store)
    assert main(["bundle", "verify", str(project.bundle)]) == 0
    said = capsys.readouterr()
    assert f"never           {runner}" in said.out
    assert said.err == ""


def _lock_alone(forged: Forger, name: str) -> tuple[str, str]:
    old = forged.replace(name, {PROGRAMS[1]: EVIL})
    forged.record()
    return old, forged.lock.artifacts[name].digest


def _not_the_statement(forged: Forger, name: str) -> tuple[str, str]:
    old, new = _lock_alone(forged, name)
    forged.record(bundle_digest=new)
    return old, new


def _not_the_lock(forged: Forger, name: str) -> tuple[str, str]:
    lock = forged.lock
    old = forged.replace(name, {PROGRAMS[1]: EVIL})
    new = forged.lock.artifacts[name].digest
    forged.about["labels"] = {f"objects/{new}": f"the artifact {name}"}
    forged.lock = lock
    return old, new


def _not_the_runner(forged: Forger, name: str) -> tuple[str, str]:
    forged.replace(name, {PROGRAMS[0]: EVIL})
    forged.state(name)
    member = f"records/{forged.campaign}/campaign.json"
    forged.record(bundle_digest=forged.lock.artifacts[name].digest)
    return parse_campaign(forged.files[member]).cells[0].runner_digest, sha256(EVIL)


def _not_the_model(forged: Forger, name: str) -> tuple[str, str]:
    forged.record(model_digest=other(forged.lock.artifacts[MODEL].digest))
    return forged.lock.artifacts[MODEL].digest, other(forged.lock.artifacts[MODEL].digest)


def _another_lock(forged: Forger, name: str) -> tuple[str, str]:
    true = forged.files["lock.yaml"]
    forged.files["lock.yaml"] = true + b"# read me first\n"
    return sha256(forged.files["lock.yaml"]), sha256(true)


LIES: dict[str, tuple[Callable[[Forger, str], tuple[str, str]], str]] = {
    "its statements are about other bytes": (_not_the_statement, "NAME: other bytes than its lock says"),
    "its records are about other bytes": (_lock_alone, "NAME: other bytes than its lock says"),
    "the lock names what is not inside": (_not_the_lock, "NAME: other bytes than its lock says"),
    "another runner inside the bundle": (_not_the_runner, "NAME: other bytes than its record says"),
    "another model was measured": (_not_the_model, "other bytes than its lock says"),
    "another lock beside the record": (_another_lock, "lock.yaml is not that of records/"),
}


@pytest.mark.parametrize("lie", list(LIES))
def test_a_bundle_whose_parts_contradict_each_other(made: Project, project: Project, refuse: Refuse, lie: str) -> None:
    change, message = LIES[lie]
    forged = forger(made)
    name = runner_of(forged.lock)
    digests = change(forged, name)
    forged.write(project.bundle)
    shutil.rmtree(project.folder / "home")
    (project.folder / "home").mkdir()
    before = project.snapshot()
    for command in (("bundle", "verify"), ("bundle", "import"), ("replay",), ("report",)):
        refusal = refuse(errors.BundleError, *command, project.bundle)
        assert message.replace("NAME", name) in refusal.message
        assert all(digest in refusal.message for digest in digests)
    assert project.snapshot() == before


@pytest.mark.parametrize("tar", [b"", b"no tar", b"\0" * 1024])
def test_a_bundle_of_programs_that_is_none(made: Project, project: Project, refuse: Refuse, tar: bytes) -> None:
    forged = forger(made)
    name = runner_of(forged.lock)
    artifact = forged.lock.artifacts[name]
    forged.files[f"objects/{sha256(tar)}"] = tar
    forged.lock = forged.lock.model_copy(
        update={"artifacts": {**forged.lock.artifacts, name: artifact.model_copy(update={"digest": sha256(tar)})}}
    )
    forged.state(name)
    forged.record(bundle_digest=sha256(tar))
    forged.write(project.bundle)
    refuse(errors.BundleError, "bundle", "verify", project.bundle)
