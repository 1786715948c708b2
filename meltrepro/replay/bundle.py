"""Bundles: everything that a replay needs in one verifiable file, for machines without a network and for archives.

    manifest.yaml  lock.yaml  prompts/...            what was asked for, and every pin
    objects/<sha256>                                 sources, packages, base layer, toolchain, artifacts
    attestations/<artifact>/{sbom,provenance}.json   how artifacts were made
    records/<campaign>/...                           what was measured
    ro-crate-metadata.json                           the same for archives that know RO-Crate 1.1

Weights whose licence forbids redistribution are left out and named with their digests under `withheld`; importing
then needs the same bytes from their own source.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

import meltrepro
from meltrepro.build import toolchain
from meltrepro.errors import BundleError
from meltrepro.replay import archive
from meltrepro.spec.lock import Lock, load_lock
from meltrepro.spec.manifest import Manifest
from meltrepro.steps import Sink, Step, step
from meltrepro.store.atomic import make_folder
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.store.source import Pin, key_of

_OBJECTS, _RECORDS, _ATTESTATIONS, _CRATE = "objects", "records", "attestations", "ro-crate-metadata.json"
_MANIFEST, _LOCK = "manifest.yaml", "lock.yaml"


@dataclass(frozen=True)
class Imported:
    """What `import_bundle` brought in."""

    campaigns: tuple[Path, ...]
    objects: int
    """How many objects were new to the store."""
    withheld: tuple[str, ...]
    """Digests of weights that the bundle may not hold."""


def export(campaign: Path, store: Store, out: Path, sink: Sink) -> archive.Index:
    """Pack one campaign with everything that its replay needs; raises `BundleError` and `CorruptStore`."""
    manifest, lock = _read(campaign)
    withheld = _withheld(manifest, lock)
    files: dict[str, Path | bytes] = {
        _MANIFEST: (campaign / _MANIFEST).read_bytes(),
        _LOCK: (campaign / _LOCK).read_bytes(),
    }
    with step(sink, "bundle.collect", campaign.name):
        for digest in sorted(_needed(lock) - withheld):
            if not store.has(digest):
                raise BundleError(
                    f"the store does not hold {digest}, which {_name_of(lock, digest)} of this campaign's lock",
                    hint="bring it back with: meltrepro build SPEC",
                )
            files[f"{_OBJECTS}/{digest}"] = store.verify(digest)
        for name, artifact in lock.artifacts.items():
            for kind in ("sbom", "provenance"):
                statement = store.get_ref(kind, artifact.digest)
                if statement is not None:
                    content = json.dumps(statement, indent=2, sort_keys=True).encode() + b"\n"
                    files[f"{_ATTESTATIONS}/{name}/{kind}.json"] = content
        for path in sorted(campaign.rglob("*")):
            if path.is_file() and path.name != "tracking.json":
                files[f"{_RECORDS}/{campaign.name}/{path.relative_to(campaign).as_posix()}"] = path
    about = {
        "name": manifest.name,
        "description": manifest.description,
        "meltrepro": meltrepro.__version__,
        "campaigns": [campaign.name],
        "withheld": sorted(withheld),
    }
    files[_CRATE] = _crate(manifest, list(files))
    with step(sink, "bundle.write", str(out)):
        return archive.write(out, about, files)


def import_bundle(path: Path, store: Store, fetcher: Fetcher, records: Path, sink: Sink) -> Imported:
    """Check a bundle and take it over; nothing is kept of a bundle with a fault. Raises `BundleError`."""
    with store.scratch() as scratch, step(sink, "bundle.import", str(path)):

        def take(name: str, pieces: Iterator[bytes]) -> None:
            target = scratch / name
            make_folder(target.parent)
            with target.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
            sink(Step("bundle.import", "progress", name))

        index = archive.verify(path, take)
        lock = load_lock(scratch / _LOCK)
        if lock is None:
            raise BundleError(f"{path.name}: there is no {_LOCK} in it")
        manifest = Manifest.model_validate(yaml.safe_load((scratch / _MANIFEST).read_bytes()))
        new = _take_objects(scratch / _OBJECTS, store)
        _learn(manifest, lock, store, fetcher)
        _take_attestations(scratch / _ATTESTATIONS, lock, store)
        campaigns = tuple(_take_campaign(folder, records) for folder in sorted((scratch / _RECORDS).glob("*")))
    return Imported(campaigns, new, tuple(str(d) for d in _list(index.about.get("withheld"))))


# -- exporting ----------------------------------------------------------------------------------------------------


def _read(campaign: Path) -> tuple[Manifest, Lock]:
    lock = load_lock(campaign / _LOCK)
    if lock is None:
        raise BundleError(f"{campaign} holds no {_LOCK}: it is no campaign of meltrepro run")
    return Manifest.model_validate(yaml.safe_load((campaign / _MANIFEST).read_bytes())), lock


def _needed(lock: Lock) -> set[str]:
    """Every object that building and running from this lock takes."""
    needed = {source.digest for source in lock.sources.values()}
    needed |= {artifact.digest for artifact in lock.artifacts.values()}
    if lock.base is not None:
        needed |= {lock.base.layer, *(package.digest for package in lock.base.packages.values())}
    if lock.toolchain is not None:
        needed |= set(lock.toolchain.wheels.values())
    return needed


def _withheld(manifest: Manifest, lock: Lock) -> set[str]:
    """Digests of weights that may not be passed on: of the source, and of everything quantized from it."""
    withheld: set[str] = set()
    for name, model in manifest.models.items():
        if model.redistributable:
            continue
        withheld |= {
            a.digest for node, a in lock.artifacts.items() if node.split("/")[0] == name and "/run/" not in node
        }
        source = lock.sources.get(key_of(model.source))
        if source is not None:
            withheld.add(source.digest)
    return withheld


def _name_of(lock: Lock, digest: str) -> str:
    for kind, entries in (("source", lock.sources), ("artifact", lock.artifacts)):
        for name, entry in entries.items():
            if entry.digest == digest:
                return f"is the {kind} {name}"
    return "is part of the base or the toolchain"


def _crate(manifest: Manifest, names: list[str]) -> bytes:
    """RO-Crate 1.1 metadata: what this archive is, and its files."""
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
            "hasPart": [{"@id": name} for name in sorted(names)],
        },
        *({"@id": name, "@type": "File", "name": name} for name in sorted(names)),
    ]
    return json.dumps({"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}, indent=1).encode() + b"\n"


# -- importing ----------------------------------------------------------------------------------------------------


def _take_objects(folder: Path, store: Store) -> int:
    new = 0
    for file in sorted(folder.glob("*")):
        if store.has(file.name):
            continue
        store.put_file(file, move=True, expected=file.name)
        new += 1
    return new


def _learn(manifest: Manifest, lock: Lock, store: Store, fetcher: Fetcher) -> None:
    """Tell the store what the lock knows, so that everything is found by name and nothing is asked of a server."""
    for key, source in lock.sources.items():
        if source.size is not None:
            fetcher.learn(
                Pin(
                    source=key,
                    digest=source.digest,
                    size=source.size,
                    filename=source.filename,
                    archive_digest=source.archive,
                )
            )
    for name, artifact in lock.artifacts.items():
        if store.has(artifact.digest):
            store.put_ref("artifacts", artifact.key, {"name": name, "digest": artifact.digest})
    for wheel in toolchain.SOURCES.values():
        if wheel.digest is not None and store.has(wheel.digest):
            size = store.path(wheel.digest).stat().st_size
            fetcher.learn(Pin(source=key_of(wheel), digest=wheel.digest, size=size))


def _take_attestations(folder: Path, lock: Lock, store: Store) -> None:
    for name, artifact in lock.artifacts.items():
        for kind in ("sbom", "provenance"):
            path = folder / name / f"{kind}.json"
            if path.is_file():
                store.put_ref(kind, artifact.digest, json.loads(path.read_bytes()))


def _take_campaign(folder: Path, records: Path) -> Path:
    """Move a campaign among the others; one that is there already stays as it is."""
    target = records / folder.name
    if not target.exists():
        make_folder(records)
        shutil.copytree(folder, records / f".part-import-{folder.name}", dirs_exist_ok=True)
        (records / f".part-import-{folder.name}").rename(target)
    return target


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
