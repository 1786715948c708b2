"""Content identities: one canonical form of values, and its sha256.

Two values that compare equal in the manifest's sense have the same bytes here, on every machine and Python version:
keys are sorted, sets become sorted lists, models and dataclasses become plain mappings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel

from meltrepro.plan.model import Plan


def canonical(value: Any) -> bytes:
    """Canonical JSON of a value in UTF-8; raises `ValueError` for NaN and infinity, `TypeError` for other types."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "surrogatepass"
    )


def digest_of(value: Any) -> str:
    """sha256 of the canonical JSON of a value, in hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()


def plain(value: Any) -> Any:
    """The value made of dicts, lists, strings, numbers, booleans and None; raises `TypeError` for anything else."""
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | int() | float() | str():
            return value
        case BaseModel():
            return value.model_dump(mode="json")
        case PurePath():
            return value.as_posix()
        case Mapping():
            return {_key(key): plain(item) for key, item in value.items()}
        case AbstractSet():
            return sorted((plain(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
        case list() | tuple():
            return [plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no canonical form")


def plan_document(plan: Plan) -> dict[str, Any]:
    """What a plan decided, as plain data: `plan.json` of a campaign and `meltrepro plan --json`."""
    memory = plan.estimate.peak_memory_bytes
    logits = [{"id": node.id, "model": node.model.id, "bundle": node.bundle.id} for node in plan.logits]
    return {
        "format": 1,
        "name": plan.manifest.name,
        "cells": [
            {
                "id": cell.id,
                "model": cell.model_name,
                "quantization": cell.quantization,
                "framework": cell.framework_name,
                "target": cell.target_name,
                "workload": cell.workload_name,
                "isa": cell.variant.name,
                **({"engine": cell.away.name, "asker": cell.away.asker.name} if cell.away is not None else {}),
                "peak_memory_bytes": memory.get(cell.id),
                "options": plain(cell.options),
            }
            for cell in plan.cells
        ],
        "skipped": [{"id": skip.cell_id, "kind": skip.kind.value, "reason": skip.reason} for skip in plan.skipped],
        "bundles": [
            {
                "id": node.id,
                "framework": node.framework_name,
                "kind": node.kind,
                "release": node.release.name,
                "commit": node.release.commit,
                "isa": node.variant.name,
                "triple": node.variant.triple,
                "purpose": node.purpose,
                **({"accelerator": node.variant.accelerator} if node.variant.accelerator else {}),
                "sources": plain(node.sources),
            }
            for node in plan.bundles
        ],
        "models": [
            {
                "id": node.id,
                "model": node.model_name,
                "quantization": node.quantization,
                "framework": node.framework_name,
                "source": plain(node.source),
            }
            for node in plan.models
        ],
        **({"logits": logits} if logits else {}),
        "estimate": {
            "download_bytes": plan.estimate.download_bytes,
            "disk_bytes": plan.estimate.disk_bytes,
        },
    }


def plan_digest(plan: Plan) -> str:
    """Identity of what a plan runs: its manifest, cells and nodes, without estimates and the wording of skips."""
    document = plan_document(plan)
    return digest_of(
        {
            "manifest": plan.manifest,
            "cells": [[cell["id"], cell["isa"]] for cell in document["cells"]],
            "bundles": document["bundles"],
            "models": document["models"],
        }
    )


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise TypeError(f"a mapping with a key of type {type(key).__name__} has no canonical form")
    return key
