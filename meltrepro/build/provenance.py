"""A provenance statement for an artifact, in the shape of in-toto Statement v1 with SLSA Provenance v1 as predicate.

It names everything that went in by digest, so that anybody who has those inputs can repeat the build. It stands beside
the artifact and is no part of its digest, for it tells of one build (when, by which engine), not of the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import meltrepro
from meltrepro.build import toolchain
from meltrepro.build.model import Artifact, Package
from meltrepro.manifest.lock import Lock, LockedSource

_BUILD_TYPE = "urn:meltrepro:build:v1"


def provenance(
    artifact: Artifact,
    *,
    recipe: str | None,
    commands: tuple[tuple[str, ...], ...],
    inputs: Mapping[str, LockedSource],
    tools: Sequence[Artifact],
    packages: Sequence[Package],
    lock: Lock,
    engine: str,
    app: bool = False,
    started_ns: int,
    finished_ns: int,
) -> dict[str, object]:
    """The statement; `recipe` is the recipe's digest for a bundle, `commands` those of the `tools` that made a model.

    An `app` is made by none of our compilers: `engine` says by which.
    """
    dependencies = [_dependency(name, source.digest) for name, source in sorted(inputs.items())]
    dependencies += [_dependency(tool.id, tool.digest) for tool in tools]
    dependencies += [_dependency(f"{package.name}.deb", package.digest) for package in packages]
    if artifact.kind == "bundle" and not app:
        dependencies += [_dependency(n, s.digest or "") for n, s in sorted(toolchain.makers(inputs).items())]
        if lock.base is not None:
            dependencies.append(_dependency(f"base:{lock.base.suite}", lock.base.layer))
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": artifact.id, "digest": {"sha256": artifact.digest}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {
                    "node": artifact.id,
                    "command": list(commands[-1]) if commands else [],
                    **({"converter": list(commands[0])} if len(commands) > 1 else {}),
                },
                "internalParameters": {
                    "key": artifact.key,
                    "recipe": recipe,
                    "toolchain": engine if app else toolchain.identity(),
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {
                    "id": f"{_BUILD_TYPE}:{engine.split()[0]}",
                    "version": {"meltrepro": meltrepro.__version__, "engine": engine},
                },
                "metadata": {
                    "invocationId": f"{artifact.key}:{started_ns}",
                    "startedOn": _time(started_ns),
                    "finishedOn": _time(finished_ns),
                },
            },
        },
    }


def _dependency(name: str, digest: str) -> dict[str, object]:
    return {"name": name, "digest": {"sha256": digest}}


def _time(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
