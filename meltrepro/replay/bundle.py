"""Bundles: everything that a replay needs in one verifiable file, for machines without a network and for archives.

    manifest.yaml  lock.yaml  prompts/...            what was asked for, and every pin
    objects/<sha256>                                 sources, packages, base layer, toolchain, artifacts
    attestations/<artifact>/{sbom,provenance}.json   how artifacts were made
    records/<campaign>/...                           what was measured
    report/...                                       a page and tables of it, which anybody can make again from the records
    ro-crate-metadata.json                           the same for archives that know RO-Crate 1.1

Weights whose licence forbids redistribution, and what frameworks may not pass on, are left out and named with their
digests under `withheld`; building anew then needs the same bytes from their own source. Synthetic weights as they are made are left out too: whoever
imports the bundle makes them again, and their digest says whether they are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO

import meltrepro
from meltrepro import untrusted
from meltrepro.atomic import make_folder, reason_of, remove, require_free, writing
from meltrepro.build import toolchain
from meltrepro.errors import BundleError, MeltreproError, RecordError, StoreError
from meltrepro.manifest.lock import Lock, LockedPackage
from meltrepro.manifest.schema import Manifest
from meltrepro.record.campaign import BUILDS, CAMPAIGN, CELLS, IMPORTED, LOCK, MANIFEST, PLAN
from meltrepro.record.reader import CampaignFolder, read_folder
from meltrepro.replay import archive
from meltrepro.replay.claims import ATTESTATIONS, OBJECTS, RECORDS, check_claims
from meltrepro.replay.gaps import Gap, gaps, peek, read, require_room, withheld
from meltrepro.steps import Sink, Step, step
from meltrepro.store.cas import Store
from meltrepro.store.fetch import learn
from meltrepro.store.source import Pin, is_synthetic, key_of
from meltrepro.track.ledger import LEDGER
from meltrepro.untrusted import load_json, read_regular

_REPORT = "report"
_CRATE = "ro-crate-metadata.json"
_MOST_OF_STATEMENT = 64 << 20
_UNTRUE = "meltrepro writes no such bundle: get it again from where it came from"


@dataclass(frozen=True)
class Imported:
    """What `import_bundle` brought in."""

    campaigns: tuple[Path, ...]
    objects: int
    """How many objects were new to the store."""
    gaps: tuple[Gap, ...]
    """What the bundle does not hold, and this machine neither."""


def export(
    campaign: Path,
    store: Store,
    out: Path,
    sink: Sink,
    report: Mapping[str, bytes] | None = None,
    begins: Callable[[int, Sequence[str]], None] = lambda _, __: None,
) -> archive.Index:
    """Pack one campaign with everything that its replay needs, and its report.

    `begins` is told how many bytes it will take, and what is left out and why, before anything is written. Raises
    `BundleError`, `RecordError`, `CorruptStore`, and `StoreError` where there is no room for it.
    """
    recorded = read_folder(campaign)
    recorded.verify()
    manifest, lock = read(campaign)
    store = store.scoped(campaign / LOCK)  # statements of one that was imported stand in its scope
    kept_back = set(withheld(manifest, lock))
    files: dict[str, Path | bytes] = {
        MANIFEST: untrusted.read(campaign / MANIFEST),
        LOCK: untrusted.read(campaign / LOCK),
    }
    needed = (_needed(lock) | _kept(lock, store)) - kept_back
    with step(sink, "bundle.collect", campaign.name):
        for digest in sorted(needed):
            if not store.has(digest):
                raise BundleError(
                    f"the store does not hold {digest}, {_name_of(lock, digest)} of this campaign's lock",
                    hint="bring it back with: meltrepro build SPEC",
                )
            files[f"{OBJECTS}/{digest}"] = store.verify(digest)
        for name, artifact in lock.artifacts.items():
            for kind in ("sbom", "provenance"):
                statement = store.get_ref(kind, artifact.digest)
                if statement is not None:
                    content = json.dumps(statement, indent=2, sort_keys=True).encode() + b"\n"
                    files[f"{ATTESTATIONS}/{name}/{kind}.json"] = content
        for name in untrusted.files(campaign):
            if PurePosixPath(name).name not in (LEDGER, IMPORTED):
                files[f"{RECORDS}/{campaign.name}/{name}"] = untrusted.require(campaign / name)
    files |= {f"{_REPORT}/{name}": content for name, content in (report or {}).items()}
    about = {
        "name": manifest.name,
        "description": manifest.description,
        "meltrepro": meltrepro.__version__,
        "campaigns": [campaign.name],
        "withheld": sorted(kept_back),
        "labels": {f"{OBJECTS}/{digest}": _name_of(lock, digest) for digest in sorted(needed)},
    }
    measured_at = datetime.fromtimestamp(recorded.document.started_wall_ns / 1e9, UTC)
    files[_CRATE] = _crate(manifest, measured_at.date().isoformat(), list(files))
    size = sum(content.stat().st_size if isinstance(content, Path) else len(content) for content in files.values())
    begins(size, [f"{_name_of(lock, digest)}: {why}" for digest, why in withheld(manifest, lock).items()])
    require_free(out.absolute().parent, size)
    with step(sink, "bundle.write", str(out)):
        return archive.write(out, about, files)


def verify_bundle(path: Path) -> tuple[archive.Index, Lock]:
    """Check every byte of a bundle, and that its parts do not contradict each other; its index and its lock.

    Raises `BundleError` and its kin, `LockError`, and `StoreError` where there is no room to look at its records.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def take(member: str, pieces: Iterator[bytes]) -> None:
            if not member.startswith(f"{OBJECTS}/"):
                _write(folder / member, pieces)

        index = archive.verify(path, take)
        with tarfile.open(path, "r:") as tar:  # each of its headers is as the index has it

            def opened(member: str) -> IO[bytes]:
                content = tar.extractfile(member)
                assert content is not None, "a plain file has content"
                return content

            lock, _ = _check_contents(folder, index, opened)
    return index, lock


def import_bundle(path: Path, store: Store, records: Path, sink: Sink) -> Imported:
    """Check a bundle and take it over; nothing is kept of a bundle with a fault.

    It is a stranger's: its objects and records are taken, what else it says is believed in the scope of its campaign
    alone. Raises `BundleError` and its kin, `LockError`, `StoreError`, and `RecordError` where a campaign of the bundle
    is here already and is not the same.
    """
    index, manifest, lock = peek(path)
    require_room(index, store)
    with store.scratch() as scratch, step(sink, "bundle.import", str(path)):

        def take(name: str, pieces: Iterator[bytes]) -> None:
            _write(scratch / name, pieces)
            sink(Step("bundle.import", "progress", name))

        index = archive.verify(path, take)
        lock, folders = _check_contents(scratch, index, lambda name: (scratch / name).open("rb"))
        for folder in folders:
            _check_same(folder, records / folder.name)
        new = _take_objects(scratch / OBJECTS, store)
        scope = store.scoped(scratch / LOCK)
        for folder in folders:
            scope.add_root(records / folder.name / LOCK)
        _learn(lock, scope)
        _take_attestations(scratch, index, lock, scope)
        campaigns = tuple(_take_campaign(folder, records) for folder in folders)
    return Imported(campaigns, new, tuple(gaps(manifest, lock, store)))


# -- exporting ----------------------------------------------------------------------------------------------------


def _needed(lock: Lock) -> set[str]:
    """Every object that building and running from this lock takes and that cannot simply be made again."""
    needed = {source.digest for source in lock.sources.values()}
    needed |= {artifact.digest for artifact in lock.artifacts.values()}
    if lock.base is not None:
        needed |= {lock.base.layer, *(package.digest for package in lock.base.packages.values())}
    if lock.toolchain is not None:
        needed |= set(lock.toolchain.wheels.values())
    return needed - {source.digest for key, source in lock.sources.items() if is_synthetic(key)}


def _kept(lock: Lock, store: Store) -> set[str]:
    """Packages of the converter that are still here; they are inside the converter too, which is an artifact."""
    return {package.digest for _, package in _interpreters(lock) if store.has(package.digest)}


def _interpreters(lock: Lock) -> Iterator[tuple[str, LockedPackage]]:
    for locked in (lock.interpreter, lock.torch):
        yield from locked.packages.items() if locked is not None else ()


def _name_of(lock: Lock, digest: str) -> str:
    for kind, entries in (("source", lock.sources), ("artifact", lock.artifacts)):
        for name, entry in entries.items():
            if entry.digest == digest:
                return f"the {kind} {name}"
    for name, package in _interpreters(lock):
        if package.digest == digest:
            return f"the converter's package {name}"
    if lock.base is not None:
        if lock.base.layer == digest:
            return "the base's layer"
        for name, package in lock.base.packages.items():
            if package.digest == digest:
                return f"the base's package {name}"
    return "a part of the toolchain"


def _crate(manifest: Manifest, published: str, names: list[str]) -> bytes:
    """RO-Crate 1.1 metadata: what this archive is, and its files; `published` is an ISO date, which it must have.

    It is the day of the measurement: the same campaign is the same bundle whenever it is packed.
    """
    graph: list[Mapping[str, object]] = [
        {
            "@id": _CRATE,
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": manifest.name,
            "description": manifest.description or f"meltrepro campaign {manifest.name}",
            "datePublished": published,
            "hasPart": [{"@id": name} for name in sorted(names)],
        },
        *({"@id": name, "@type": "File", "name": name} for name in sorted(names)),
    ]
    return json.dumps({"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}, indent=1).encode() + b"\n"


# -- importing ----------------------------------------------------------------------------------------------------


def _write(target: Path, pieces: Iterator[bytes]) -> None:
    make_folder(target.parent)
    with writing(target), target.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def _check_contents(
    scratch: Path, index: archive.Index, opened: Callable[[str], IO[bytes]]
) -> tuple[Lock, tuple[Path, ...]]:
    """Lock and campaigns of an unpacked bundle, once everything in it is found to be what its name promises."""
    _, lock = read(scratch)
    for name, member in index.members.items():
        place, _, rest = name.partition("/")
        if place == OBJECTS and rest != member.sha256:
            raise BundleError(f"{name} is not what its name says: it has sha256 {member.sha256}", hint=_UNTRUE)
        if place == ATTESTATIONS and _statement(scratch / name) is None:
            raise BundleError(f"{name} is no statement: expected a JSON object", hint=_UNTRUE)
    folders = sorted((scratch / RECORDS).glob("*"))
    if not folders:
        raise BundleError(f"there is no campaign under {RECORDS}/ of the bundle", hint=_UNTRUE)
    campaigns: list[CampaignFolder] = []
    for folder in folders:
        try:
            campaign = read_folder(folder)
            campaign.verify()
        except MeltreproError as error:
            message = error.message.replace(f"{scratch}/", "")
            raise BundleError(f"{folder.name} is no sound campaign: {message}", hint=_UNTRUE) from error
        if campaign.id != folder.name:
            raise BundleError(f"{RECORDS}/{folder.name} calls itself {campaign.id!r}", hint=_UNTRUE)
        for name in (MANIFEST, LOCK):
            first, second = (_digest(place / name) for place in (scratch, folder))
            if first != second:
                raise BundleError(
                    f"{name} is not that of {RECORDS}/{folder.name}: it has sha256 {first}, the record's has {second}",
                    hint=_UNTRUE,
                )
        campaigns.append(campaign)
    check_claims(scratch, index, lock, campaigns, opened)
    return lock, tuple(folders)


def _check_same(folder: Path, there: Path) -> None:
    """Raise `RecordError` where a campaign of this id is here already and is not the same, file by file.

    What is not sealed may differ: journal, ledger, and pages that were made of the records.
    """
    if not there.exists():
        return
    for name in sorted(_sealed(there) | _sealed(folder)):
        mine, theirs = _digest(there / name), _digest(folder / name)
        if mine != theirs:
            raise RecordError(
                f"{there / name} has sha256 {mine}, but the bundle's record of the same name has {theirs}",
                hint="one of them was changed; to take the bundle's, move the campaign's folder away",
            )


def _sealed(campaign: Path) -> set[str]:
    """The relative paths of what is never rewritten in a finished campaign."""
    sealed = (CAMPAIGN, MANIFEST, LOCK, PLAN)
    return {name for name in untrusted.files(campaign) if name in sealed or name.split("/")[0] in (BUILDS, CELLS)}


def _digest(path: Path) -> str:
    try:
        with untrusted.opened(path, None) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "none, for it does not exist"
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {reason_of(error)}") from error


def _statement(path: Path) -> dict[str, object] | None:
    """The JSON object in a file; `None` where it holds anything else."""
    try:
        found = load_json(read_regular(path, _MOST_OF_STATEMENT))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _take_objects(folder: Path, store: Store) -> int:
    new = 0
    for file in sorted(folder.glob("*")):
        if store.has(file.name):
            continue
        store.put_file(file, move=True, expected=file.name)
        new += 1
    return new


def _learn(lock: Lock, scope: Store) -> None:
    """Tell the scope what the lock knows of sources, so that nothing is asked of a server.

    Artifacts are taken by their digests from the lock. That a key leads to one is for this machine to find out: else a
    rebuild would be verified by the word of whoever made the bundle.
    """
    for key, source in lock.sources.items():
        if source.size is not None and not key.startswith(("file:", "folder:")):  # files are read anew each time
            pin = Pin(
                source=key,
                digest=source.digest,
                size=source.size,
                filename=source.filename,
                archive_digest=source.archive,
            )
            learn(pin, scope)
    for wheel in toolchain.SOURCES.values():
        if wheel.digest is not None and scope.has(wheel.digest):
            size = scope.size(wheel.digest)
            learn(Pin(source=key_of(wheel), digest=wheel.digest, size=size), scope)


def _take_attestations(folder: Path, index: archive.Index, lock: Lock, scope: Store) -> None:
    """Keep the statements of artifacts of which there are none yet; those of one's own builds stay."""
    for name, artifact in lock.artifacts.items():
        for kind in ("sbom", "provenance"):
            member = f"{ATTESTATIONS}/{name}/{kind}.json"
            if member not in index.members or scope.get_ref(kind, artifact.digest) is not None:
                continue
            statement = _statement(folder / member)
            if statement is not None:
                scope.put_ref(kind, artifact.digest, statement)


def _take_campaign(folder: Path, records: Path) -> Path:
    """Move a campaign among the others; one that is there already stays as it is."""
    target = records / folder.name
    if target.exists():
        return target
    part = records / f".part-{os.getpid()}-import-{folder.name}"
    make_folder(records)
    try:
        with writing(target):
            shutil.copytree(folder, part, ignore=shutil.ignore_patterns(LEDGER))  # where it was logged is our own note
            (part / IMPORTED).touch()
            part.rename(target)
    finally:
        remove(part)
    return target
