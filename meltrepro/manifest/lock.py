"""The lock: every "which one exactly?" that a manifest leaves open, answered by digests, in one text file.

It stands beside the manifest (`spec.yaml` -> `spec.lock.yaml`) and is committed with it. One line an entry, in a stable
order, so that a change of one pin is a change of one line. It names no server: where bytes come from is each
machine's own affair, what they are is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from meltrepro.errors import LockError, LockFormatError, Problem
from meltrepro.manifest.base import Bytes, Commit, Label, Sha256, Strict
from meltrepro.manifest.yaml.positions import read_file
from meltrepro.manifest.yaml.tree import Position
from meltrepro.untrusted import as_model
from meltrepro.words import shorten

FORMAT = 1
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
ArtifactName = Annotated[str, StringConstraints(pattern=rf"^{_PART}/{_PART}/{_PART}(/(logits/)?{_PART})?$")]
"""How the id of what a build made is spelled (record/ids.py)."""


class LockedSource(Strict):
    """One input by digest."""

    digest: Sha256 = Field(description="sha256 of the bytes that are used.")
    size: Bytes | None = None
    filename: Label | None = Field(None, description="Distribution file that the bytes come from or out of.")
    archive: Sha256 | None = Field(None, description="sha256 of that distribution file, where it is not used whole.")


class LockedName(Strict):
    """What a repository of the hub that is named without a commit, or a name in one of git, stands for."""

    revision: Commit
    below: Commit | None = Field(
        None,
        description="Of a checkout with changes: the commit that they were made to; `revision` is then what git would make of both.",
    )
    licence: Label | None = Field(None, description="Of the weights, as the repository's page says.")


class LockedPackage(Strict):
    """One Debian package of the base image."""

    version: Label
    architecture: Label
    digest: Sha256


class LockedBase(Strict):
    """The base image."""

    suite: Label
    layer: Sha256 = Field(description="sha256 of the assembled layer.")
    image: Label | None = Field(
        None,
        pattern=r"(^|@)sha256:[0-9a-f]{64}$",
        description="Container image by digest that the layer is made of, instead of packages.",
    )
    packages: dict[str, LockedPackage] = Field(default_factory=dict)


class LockedInterpreter(Strict):
    """What tools of frameworks run on, such as converters of checkpoints: Python and its C library, perhaps with torch."""

    suite: Label
    packages: dict[str, LockedPackage]


class LockedToolchain(Strict):
    """The compilers."""

    digest: Sha256 = Field(description="Identity of wheels and wrappers.")
    image: Label = Field(description="Id of the image of base and toolchain.")
    wheels: dict[str, Sha256]


class LockedArtifact(Strict):
    """A build output: what went in (`key`) and what came out (`digest`)."""

    key: Sha256
    digest: Sha256


class Lock(Strict):
    """The whole file."""

    lock: Literal[1] = 1
    manifest: Sha256 = Field(description="Digest of what the pins follow from; a lock of another manifest is refused.")
    names: dict[str, LockedName] = Field(default_factory=dict)
    sources: dict[str, LockedSource] = Field(default_factory=dict)
    prompts: dict[str, Sha256] = Field(default_factory=dict)
    base: LockedBase | None = None
    toolchain: LockedToolchain | None = None
    interpreter: LockedInterpreter | None = None
    torch: LockedInterpreter | None = Field(default=None, description="An interpreter that has torch.")
    recipes: dict[str, Sha256] = Field(default_factory=dict)
    artifacts: dict[ArtifactName, LockedArtifact] = Field(default_factory=dict)

    def narrowed(self, artifacts: Collection[str], recipes: Collection[str]) -> Lock:
        """The same pins with no other artifacts and recipes than these: what one campaign rests on."""
        return self.model_copy(
            update={
                "artifacts": {name: each for name, each in self.artifacts.items() if name in artifacts},
                "recipes": {name: each for name, each in self.recipes.items() if name in recipes},
            }
        )


def lock_path(manifest: Path) -> Path:
    """Where the lock of a manifest stands."""
    return manifest.with_name(manifest.name.removesuffix(".yaml").removesuffix(".yml") + ".lock.yaml")


def load_lock(path: Path) -> Lock | None:
    """Read a lock; `None` where there is none.

    Raises `LockError` for one that is damaged, and `LockFormatError` for one of another format version.
    """
    if not path.exists():
        return None
    problems: list[Problem] = []
    tree = read_file(path, str(path), Position(str(path)), (), problems)
    if problems:
        raise LockError("\n".join(map(str, problems)), hint=_again(path))
    document = tree.plain() if tree is not None else None
    version = document.get("lock") if isinstance(document, dict) else None
    if version != FORMAT:
        newer = isinstance(version, int) and version > FORMAT
        kind = LockFormatError if isinstance(version, int) else LockError
        raise kind(
            f"{path}: format version {shorten(repr(version))}, expected {FORMAT}",
            hint="this lock was written by a newer meltrepro; update meltrepro" if newer else _again(path),
        )
    try:
        return as_model(Lock, document)
    except ValueError as error:
        raise LockError(f"{path}: {error}", hint=_again(path)) from error


def dump_lock(lock: Lock) -> str:
    """The text of a lock: stable order, one line an entry."""
    import yaml

    document = lock.model_dump(mode="json", exclude_none=True)
    lines = [
        "# Written by meltrepro lock; do not edit. What it means: docs/lock.md.",
        f"lock: {lock.lock}",
        f"manifest: {lock.manifest}",
    ]

    def flow(value: Any) -> str:
        text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
        return text.removesuffix("...\n").strip()

    def section(name: str, entries: dict[str, Any], indent: str = "") -> None:
        lines.append(f"{indent}{name}:" + ("" if entries else " {}"))
        lines.extend(f"{indent}  {flow(key)}: {flow(value)}" for key, value in sorted(entries.items()))

    if lock.names:
        section("names", document["names"])
    section("sources", document["sources"])
    section("prompts", document["prompts"])
    for name, inner in (
        ("base", "packages"),
        ("toolchain", "wheels"),
        ("interpreter", "packages"),
        ("torch", "packages"),
    ):
        if name in document:
            lines.append(f"{name}:")
            lines.extend(f"  {key}: {flow(value)}" for key, value in document[name].items() if key != inner)
            section(inner, document[name][inner], "  ")
    section("recipes", document["recipes"])
    section("artifacts", document["artifacts"])
    return "\n".join(lines) + "\n"


def differences(old: Lock, new: Lock) -> dict[str, tuple[str | None, str | None]]:
    """Entry -> its value in either lock, for every entry in which they differ; `None` where one lacks it."""
    before, after = (dict(_entries(lock.model_dump(mode="json", exclude_none=True))) for lock in (old, new))
    names = sorted(before.keys() | after.keys())
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def _entries(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield name, str(value)
        return
    for key, inner in value.items():
        yield from _entries(inner, f"{name}: {key}" if name else str(key))


def _again(path: Path) -> str:
    return f"remove {path.name} and write it anew with: meltrepro lock SPEC"
