"""A campaign that goes on with devices which were not there when it began: what is new joins what is there.

The folder's own files grow by what the new cells rest on; nothing of an earlier trial changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml

from meltrepro.errors import RecordError
from meltrepro.manifest.loader import parse_manifest
from meltrepro.manifest.lock import Lock, dump_lock, load_lock
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.schema import Manifest
from meltrepro.plan.identity import digest_of
from meltrepro.record.campaign import LOCK, MANIFEST, PLAN, CampaignDocument
from meltrepro.record.ids import CellId
from meltrepro.record.reader import CampaignFolder

_NODES = ("cells", "bundles", "models", "logits")


def joined(
    there: CampaignFolder, document: CampaignDocument, files: Mapping[str, bytes]
) -> tuple[CampaignDocument, dict[str, bytes]]:
    """The document of a campaign with the cells of another that does the same work, and the files that change with it.

    `files` are those of the other. Raises `RecordError` where one of the folder's own was changed.
    """
    found = there.document
    manifest = _text(there, MANIFEST, lambda old: _manifest(old, files[MANIFEST]))
    described = parse_manifest(manifest)
    changed = {
        MANIFEST: manifest,
        LOCK: _text(there, LOCK, lambda _: _lock(there, files[LOCK], manifest_digest(described))),
        PLAN: _text(there, PLAN, lambda old: _plan(old, files[PLAN])),
    }
    changed |= {name: content for name, content in files.items() if name not in found.files}
    known = {cell.id: cell for cell in (*document.cells, *found.cells)}
    skipped = {skip.id: skip for skip in (*found.skipped, *document.skipped) if skip.id not in known}
    update = {
        "cells": [known[name] for name in _in_order(known, described)],
        "skipped": [skipped[name] for name in _in_order(skipped, described)],
        "virtual": found.virtual or document.virtual,
        "synthetic": found.synthetic or document.synthetic,
        "plan_digest": digest_of([found.plan_digest, document.plan_digest]),
        "finished_wall_ns": None,
    }
    return found.model_copy(update=update), changed


def _text(there: CampaignFolder, name: str, join: Callable[[bytes], bytes]) -> bytes:
    """A file of the folder joined with the other's; one that a kill left joined already is as good as the old one."""
    content = (there.folder / name).read_bytes()
    new = join(content)
    if new != content:
        there.file(name)
    return new


def _manifest(old: bytes, new: bytes) -> bytes:
    """The manifest with the data of all workloads pinned that either has pinned."""
    before, after = (yaml.safe_load(text) for text in (old, new))
    for name, workload in after["workloads"].items():
        for key in {"data", "text"} & workload.keys():
            if "digest" not in workload[key]:
                workload[key] = before["workloads"][name][key]
    return yaml.safe_dump(after, sort_keys=False, allow_unicode=True, width=120).encode()


def _lock(there: CampaignFolder, text: bytes, manifest: str) -> bytes:
    before = load_lock(there.folder / LOCK)
    if before is None:
        raise RecordError(f"{there.folder / LOCK} is missing", hint="begin another campaign with: meltrepro run --new")
    after = Lock.model_validate(yaml.safe_load(text))
    parts = {name: {**getattr(before, name), **getattr(after, name)} for name in ("sources", "recipes", "artifacts")}
    return dump_lock(after.model_copy(update={**parts, "manifest": manifest})).encode()


def _plan(old: bytes, new: bytes) -> bytes:
    before, after = json.loads(old), json.loads(new)
    for kind in _NODES:
        if kind in before or kind in after:
            after[kind] = list({each["id"]: each for each in (*before.get(kind, ()), *after.get(kind, ()))}.values())
    cells = {cell["id"] for cell in after["cells"]}
    skipped = {skip["id"]: skip for skip in (*before["skipped"], *after["skipped"])}
    after["skipped"] = [skip for name, skip in skipped.items() if name not in cells]
    return json.dumps(after, indent=2, ensure_ascii=False).encode() + b"\n"


def _in_order(names: Iterable[str], manifest: Manifest) -> list[str]:
    """Ids of cells as the manifest has them."""
    points = manifest.points

    def place(name: str) -> tuple[int, ...]:
        key = CellId.parse(name)
        model = manifest.models.get(key.model)
        known: tuple[tuple[Any, str], ...] = (
            (manifest.models, key.model),
            (model.quantizations if model is not None else (), key.quantization),
            (points, key.framework),
            (manifest.targets, key.target),
            (manifest.workloads, key.workload),
        )
        return tuple([*where].index(part) if part in where else len(where) for where, part in known)

    return sorted(names, key=place)
