"""What a lock follows from: the parts of a manifest that decide which bytes are used, and the prompt files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from meltrepro.spec.loader import LoadedManifest
from meltrepro.spec.manifest import Manifest


def manifest_digest(manifest: Manifest) -> str:
    """Digest of models, framework versions and toolchains; workloads, repetitions, limits and CPU levels do not count."""
    document = manifest.model_dump(mode="json")
    pinned = {
        "models": {
            name: {"source": model["source"], "quantizations": model["quantizations"]}
            for name, model in document["models"].items()
        },
        "frameworks": {
            name: {
                **{key: framework[key] for key in ("kind", "release", "source")},
                **({"toolchain": toolchain} if (toolchain := framework["build"]["toolchain"]) else {}),
                **({"cuda": cuda} if (cuda := framework["build"]["cuda"]) else {}),
            }
            for name, framework in document["frameworks"].items()
        },
    }
    return hashlib.sha256(json.dumps(pinned, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def prompt_digests(loaded: LoadedManifest) -> dict[str, str]:
    """sha256 of every prompt file, by its path as the manifest writes it."""
    files = {w.conversations for w in loaded.manifest.workloads.values() if isinstance(w.conversations, str)}
    return {name: hashlib.sha256((loaded.path.parent / Path(name)).read_bytes()).hexdigest() for name in sorted(files)}
