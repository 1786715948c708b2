"""What a lock follows from: the parts of a manifest that decide which bytes are used, and the prompt files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from meltrepro.manifest.accuracy import with_digest
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.manifest.prompts import MELT
from meltrepro.manifest.schema import FrameworkEntry, Manifest
from meltrepro.registry import FRAMEWORKS


def manifest_digest(manifest: Manifest) -> str:
    """Digest of models, framework versions, toolchains and data of accuracy workloads; what else workloads say,
    repetitions, limits and CPU levels do not count."""
    document = manifest.model_dump(mode="json")
    data = {
        name: workload["data"] if "data" in workload else workload["text"]
        for name, workload in document["workloads"].items()
        if "task" in workload
    }
    pinned = {
        **({"data": data} if data else {}),
        "models": {
            name: {
                **{key: model[key] for key in ("source", "quantizations")},
                **({"lora": model["lora"]["source"]} if "lora" in model else {}),
            }
            for name, model in document["models"].items()
        },
        "frameworks": {
            name: {
                **{key: document["frameworks"][name][key] for key in ("release", "source")},
                "kind": None if entry.kind == name else entry.kind,
                **_pinned(entry),
            }
            for name, entry in manifest.frameworks.items()
        },
    }
    return hashlib.sha256(json.dumps(pinned, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _pinned(entry: FrameworkEntry) -> Mapping[str, object]:
    """What a framework's options decide of which bytes are used; all of them where it is not installed here."""
    kind, options = entry.kind, entry.options
    if not FRAMEWORKS.has(kind):
        return options.model_dump(mode="json")
    pinned: Mapping[str, object] = FRAMEWORKS.get(kind).pinned(options)
    return pinned


def with_data(manifest: Manifest, digests: Mapping[str, str]) -> Manifest:
    """The same manifest with the data of accuracy workloads pinned, `digests` being sha256 by workload."""
    pinned = {name: with_digest(manifest.accuracy[name], digest) for name, digest in digests.items()}
    return manifest.model_copy(update={"workloads": {**manifest.workloads, **pinned}})


def prompt_digests(loaded: LoadedManifest) -> dict[str, str]:
    """sha256 of every prompt file, by its path as the manifest writes it; MELT's prompts are a source like any other."""
    workloads = loaded.manifest.conversations.values()
    files = {w.conversations for w in workloads if isinstance(w.conversations, str)}
    return {
        name: hashlib.sha256((loaded.path.parent / name).read_bytes()).hexdigest() for name in sorted(files - {MELT})
    }
