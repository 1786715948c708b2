"""What a bundle or a record says of itself, held together, and against what this machine has made by itself.

Nothing in a bundle is signed. Whoever makes one can replace a program and put every digest right; what can be found out
is whether its parts contradict each other, and whether this machine has built the same bytes from the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from meltrepro.errors import BundleError, SourceError
from meltrepro.manifest.lock import Lock, load_lock
from meltrepro.record.ids import BundleId, artifact_id
from meltrepro.record.reader import CampaignFolder
from meltrepro.replay.archive import Index
from meltrepro.store.archive import member_digests
from meltrepro.store.cas import Store
from meltrepro.store.names import text_digest
from meltrepro.store.source import is_synthetic
from meltrepro.targets.base import RUNNERS
from meltrepro.untrusted import load_json

OBJECTS, ATTESTATIONS, RECORDS = "objects", "attestations", "records"
_HINT = "do not trust this bundle: meltrepro writes none such"
_SUBJECT = {
    "provenance": ("subject", 0, "digest", "sha256"),
    "sbom": ("metadata", "component", "hashes", 0, "content"),
}
"""Where a statement has the digest of what it is about."""


_Claim = tuple[str, str, str]
"""What one part of a bundle says of an artifact's bytes: its name, which part, and the digest."""


def check_claims(
    folder: Path, index: Index, lock: Lock, campaigns: Sequence[CampaignFolder], opened: Callable[[str], IO[bytes]]
) -> None:
    """Raise `BundleError` where the parts of an unpacked bundle contradict each other; `opened` opens its objects by name.

    A statement's key is not compared: one of the same bytes may be of another build that other inputs led to.
    """
    for name, where, digest in (*_in_objects(index, lock), *_in_statements(folder, index, lock), *_in_cells(campaigns)):
        locked = lock.artifacts.get(name)
        if locked is not None and locked.digest != digest:
            raise BundleError(
                f"{name}: other bytes than its lock says: the lock has sha256 {locked.digest}, {where} {digest}",
                hint=_HINT,
            )
    _check_runners(index, campaigns, opened)


def _in_objects(index: Index, lock: Lock) -> Iterator[_Claim]:
    """Artifacts that should be inside and are not, with what is there under their names."""
    absent = {*index.withheld, *(source.digest for key, source in lock.sources.items() if is_synthetic(key))}
    called = {label: name for name, label in index.labels.items()}
    for name, artifact in lock.artifacts.items():
        if artifact.digest not in absent and f"{OBJECTS}/{artifact.digest}" not in index.members:
            there = called.get(f"the artifact {name}", "").removeprefix(f"{OBJECTS}/")
            yield name, "the bundle holds", there or "no such object"


def _in_statements(folder: Path, index: Index, lock: Lock) -> Iterator[_Claim]:
    for name in lock.artifacts:
        for kind, place in _SUBJECT.items():
            member = f"{ATTESTATIONS}/{name}/{kind}.json"
            if member in index.members and isinstance(
                digest := _at(load_json((folder / member).read_bytes()), place), str
            ):
                yield name, f"its {kind} statement", digest


def _in_cells(campaigns: Sequence[CampaignFolder]) -> Iterator[_Claim]:
    for campaign in campaigns:
        for cell in campaign.document.cells:
            yield cell.bundle_id, f"the record of {cell.id}", cell.bundle_digest
            model = cell.key.model_id
            for name in (model, replace(model, variant=cell.isa)):  # the lock has one of them
                yield str(name), f"the record of {cell.id}", cell.model_digest


def _check_runners(index: Index, campaigns: Sequence[CampaignFolder], opened: Callable[[str], IO[bytes]]) -> None:
    """Raise `BundleError` where the runner in a bundle of programs is not the one that the records were made with."""
    held: dict[str, str] = {}
    for cell in (cell for campaign in campaigns for cell in campaign.document.cells):
        name, member = cell.bundle_id, f"{OBJECTS}/{cell.bundle_digest}"
        if member not in index.members:
            continue
        if member not in held:
            with opened(member) as file:
                held[member] = _runner(file, name)
        if held[member] != cell.runner_digest:
            raise BundleError(
                f"{name}: other bytes than its record says: the record of {cell.id} has a runner with sha256 "
                f"{cell.runner_digest}, the bundle holds {held[member]}",
                hint=_HINT,
            )


def _runner(file: IO[bytes], name: str) -> str:
    members = [f"bundle/{member}" for member in RUNNERS]
    try:
        found = member_digests(file, members, name)
    except SourceError as error:
        raise BundleError(f"{name} cannot be unpacked: {error.message}", hint=_HINT) from error
    return next((found[member] for member in members if member in found), "none")


def _at(document: object, place: Sequence[str | int]) -> object:
    """What stands in JSON at a path; `None` where it has another shape."""
    for key in place:
        if isinstance(key, int):
            document = document[key] if isinstance(document, list) and len(document) > key else None
        else:
            document = document.get(key) if isinstance(document, dict) else None
    return document


# -- what this machine knows by itself ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """Something that a lock names by digest."""

    name: str
    digest: str
    here: str | None
    """The digest that this machine found out by itself, from the same inputs; `None` where it never did."""

    @property
    def own(self) -> bool:
        """Whether this machine has come to the same bytes."""
        return self.here == self.digest

    def __str__(self) -> str:
        return f"{self.name} (sha256 {self.digest[:12]}...)"


def artifacts_of(lock: Lock, store: Store) -> tuple[Known, ...]:
    """Every artifact of a lock, and what this machine has built of the same inputs."""
    refs = {name: store.own.get_ref("artifacts", each.key) or {} for name, each in sorted(lock.artifacts.items())}
    return tuple(Known(name, lock.artifacts[name].digest, ref.get("digest")) for name, ref in refs.items())


def sources_of(lock: Lock, store: Store) -> tuple[Known, ...]:
    """Every source of a lock, and what this machine knows it to be."""
    refs = {key: store.own.get_ref("pins", text_digest(key)) or {} for key in sorted(lock.sources)}
    return tuple(Known(key, lock.sources[key].digest, ref.get("digest")) for key, ref in refs.items())


def programs_of(recorded: CampaignFolder, lock: Path, store: Store) -> tuple[Known, ...]:
    """The programs that a replay of these cells may run, as they are named before it has built any.

    Quantizers and converters are among them where something is left to be made. A control is what a cell names, which
    need not be what the `lock` says. Raises `LockError`.
    """
    locked = load_lock(lock)
    artifacts = artifacts_of(locked, store) if locked is not None else ()
    here = {each.name: each.here for each in artifacts}
    making = any(not (_is_program(each.name) or store.has(each.digest)) for each in artifacts)
    named = [Known(cell.bundle_id, cell.bundle_digest, here.get(cell.bundle_id)) for cell in recorded.document.cells]
    run = {each.name for each in named}
    found = [each for each in artifacts if each.name in run or (making and _is_program(each.name))]
    return tuple(dict.fromkeys((*found, *named)))


def _is_program(name: str) -> bool:
    return isinstance(artifact_id(name), BundleId)
