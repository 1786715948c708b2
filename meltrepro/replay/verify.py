"""Verify: do the bytes that the lock names still exist, and do they come out again of a build from scratch?"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from meltrepro.build.pipeline import Built
from meltrepro.errors import CorruptStore, LockMismatch, MeltreproError, VerifyError
from meltrepro.manifest.lock import Lock, LockedArtifact
from meltrepro.store.cas import Store

_SHOWN_LINES = 40


class ArtifactStatus(StrEnum):
    same = "same"
    differs = "differs"
    missing = "missing"
    """The store does not hold it; a build or a bundle brings it back."""
    corrupt = "corrupt"
    """The store's object is not what its name says."""
    signed = "signed"
    """Built anew of the same inputs; a signature holds its time, so that the bytes cannot be the same."""
    unlocked = "unlocked"
    """The lock has no digest to compare with."""


@dataclass(frozen=True)
class Verified:
    """What verifying one artifact gave."""

    artifact: str
    status: ArtifactStatus
    locked: str | None
    found: str | None
    explanation: str = ""

    def __str__(self) -> str:
        found = self.found or ("nothing" if self.status is ArtifactStatus.missing else "other bytes")
        return f"{self.artifact}: {self.status}: the lock has {self.locked or 'no digest'}, found {found}"


def check_recipes(lock: Lock, rendered: Mapping[str, str]) -> None:
    """Compare the digests of recipes, by name, with the lock; raises `LockMismatch` for the first that differs."""
    for name, digest in sorted(rendered.items()):
        locked = lock.recipes.get(name)
        if locked not in (None, digest):
            raise LockMismatch(
                f"recipe {name}: the lock has {locked}, this version of meltrepro renders {digest}",
                hint="restore the lock, or use the version that wrote it; or move on with: meltrepro lock SPEC",
            )


def check_digests(lock: Lock, store: Store, wanted: Collection[str]) -> list[Verified]:
    """Compare locked artifacts with what the store holds, without building anything.

    Those that are not `wanted` here, such as bundles for CPUs of other machines, are looked at where the store has them.
    """
    found = [_check(name, locked, store) for name, locked in sorted(lock.artifacts.items())]
    return [finding for finding in found if finding.status != ArtifactStatus.missing or finding.artifact in wanted]


def _check(name: str, locked: LockedArtifact, store: Store) -> Verified:
    known = store.get_ref("artifacts", locked.key)
    if known is None or not store.has(known["digest"]):
        return Verified(name, ArtifactStatus.missing, locked.digest, None)
    try:
        store.verify(known["digest"])
    except CorruptStore as error:
        return Verified(name, ArtifactStatus.corrupt, locked.digest, None, error.message)
    status = ArtifactStatus.same if known["digest"] == locked.digest else ArtifactStatus.differs
    return Verified(name, status, locked.digest, known["digest"])


def compare_rebuild(lock: Lock, rebuilt: Built, store: Store) -> list[Verified]:
    """Compare artifacts that were just rebuilt from scratch with the lock; a difference is explained."""
    findings = []
    for name, artifact in sorted(rebuilt.artifacts.items()):
        locked = lock.artifacts.get(name)
        if locked is None:
            findings.append(Verified(name, ArtifactStatus.unlocked, None, artifact.digest))
        elif locked.digest == artifact.digest:
            findings.append(Verified(name, ArtifactStatus.same, locked.digest, artifact.digest))
        elif locked.key == artifact.key and name in rebuilt.recipes and rebuilt.recipes[name].signed:
            reason = "the same inputs and Xcode, signed at another time: nobody can tell more by its bytes"
            findings.append(Verified(name, ArtifactStatus.signed, locked.digest, artifact.digest, reason))
        else:
            reason = _changed_inputs(locked, artifact.key) or explain(store, locked.digest, artifact.digest)
            findings.append(Verified(name, ArtifactStatus.differs, locked.digest, artifact.digest, reason))
    return findings


def _changed_inputs(locked: LockedArtifact, key: str) -> str:
    if locked.key == key:
        return ""
    return f"the inputs changed: the lock has key {locked.key[:16]}, now {key[:16]} (recipe, source or toolchain)"


def explain(store: Store, expected: str, found: str) -> str:
    """Where two artifacts differ: by diffoscope where it is installed, else by the first differing file and offset."""
    if not store.has(expected):
        return "the locked artifact is not in the store, so there is nothing to compare with; import its bundle"
    first, second = store.path(expected), store.path(found)
    program = shutil.which("diffoscope")
    if program is None:
        return f"{first_difference(store, expected, found)} (install diffoscope for the section and the likely cause)"
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "difference.txt"
        subprocess.run(
            [program, "--text", str(text), "--max-text-report-size", "65536", str(first), str(second)],
            check=False,
            capture_output=True,
        )
        lines = text.read_text(errors="replace").splitlines() if text.exists() else []
    return "\n".join(lines[:_SHOWN_LINES])


def first_difference(store: Store, expected: str, found: str) -> str:
    """The first file and byte offset at which two artifacts differ, in words."""
    files = dict(_files(store, expected))
    others = dict(_files(store, found))
    for name in sorted(files.keys() | others.keys()):
        if name not in files or name not in others:
            side = "the rebuild lacks it" if name in files else "only the rebuild has it"
            return f"first differing file: {name or 'the artifact itself'} ({side})"
        offset = _first_offset(files[name], others[name])
        if offset is not None:
            return f"first differing file: {name or 'the artifact itself'}, at byte {offset}"
    return "the files are the same; only the archive around them differs"


def _files(store: Store, digest: str) -> Iterator[tuple[str, Path]]:
    """The files of an artifact by name; one without a name where it is no archive."""
    path = store.path(digest)
    with path.open("rb") as file:
        file.seek(257)
        archive = file.read(5) == b"ustar"
    if not archive:
        yield "", path
        return
    root = store.unpack(digest)
    for member in sorted(root.rglob("*")):
        if member.is_file():
            yield member.relative_to(root).as_posix(), member


def _first_offset(first: Path, second: Path) -> int | None:
    offset = 0
    with first.open("rb") as a, second.open("rb") as b:
        while True:
            x, y = a.read(1 << 20), b.read(1 << 20)
            if x != y:
                shared = next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))
                return offset + shared
            if not x:
                return None
            offset += len(x)


def error_of(findings: list[Verified]) -> MeltreproError | None:
    """The error that findings end in: `CorruptStore` where stored objects alone are at fault, else `VerifyError`."""
    findings = [finding for finding in findings if finding.status is not ArtifactStatus.signed]
    bad = {str(finding): finding for finding in findings if finding.status is not ArtifactStatus.same}
    if not bad:
        return None
    found = {finding.status for finding in bad.values()}
    if ArtifactStatus.corrupt in found and not found & {ArtifactStatus.differs, ArtifactStatus.missing}:
        return CorruptStore(
            "\n".join(f"{finding.artifact}: {finding.explanation}" for finding in bad.values()),
            hint="bring it back with: meltrepro build SPEC",
        )
    count = len({finding.artifact for finding in bad.values()})
    return VerifyError(
        f"{count} of {len({f.artifact for f in findings})} artifacts are not what the lock names:\n"
        + "\n".join(f"  {line}" for line in bad),
        hint="meltrepro build SPEC brings back what is missing; a difference means that the lock was changed, or another "
        "recipe, source or toolchain",
    )
