"""Bills of materials and provenance statements of artifacts, kept beside them in the store.

They are looked up by the artifact's digest and are no part of it: the bytes are the same whoever builds them, the
statement tells of one build. Provenance is in the shape of in-toto Statement v1 with SLSA Provenance v1 as predicate; it
names everything that went in by digest, so that anybody who has those inputs can repeat the build.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import meltrepro
from meltrepro.build import toolchain
from meltrepro.build.keys import recipe_digest
from meltrepro.build.model import Artifact, Package, Recipe
from meltrepro.manifest.lock import Lock, LockedSource
from meltrepro.manifest.sources import Source
from meltrepro.store.cas import Store

_BUILD_TYPE = "urn:meltrepro:build:v1"


@dataclass(frozen=True)
class Making:
    """How an artifact was made."""

    inputs: Mapping[str, tuple[Source, LockedSource]]
    """By name: what it is and what its bytes are."""
    recipe: Recipe | None = None
    """Of a bundle."""
    tools: tuple[Artifact, ...] = ()
    """Bundles that made a model."""
    commands: tuple[tuple[str, ...], ...] = ()
    """How they were called, in this order."""

    @property
    def packages(self) -> tuple[Package, ...]:
        """Of Debian, that are inside a bundle."""
        return self.recipe.packages if self.recipe is not None else ()

    @property
    def triple(self) -> str:
        """What a bundle is compiled for."""
        return self.recipe.triple if self.recipe is not None else ""

    @property
    def by_engine(self) -> bool:
        """Whether our own compilers made it; an app has others, and the maker says which."""
        return self.recipe is None or self.recipe.by_engine


def attest(
    artifact: Artifact, making: Making, lock: Lock, store: Store, engine: str, times_ns: tuple[int, int]
) -> None:
    """Write both statements of an artifact that was just built; `times_ns` are begin and end, Unix time."""
    from meltrepro.build.sbom import sbom

    labels = dict(making.recipe.labels) if making.recipe else {}
    base = lock if making.by_engine else None
    bill = json.loads(sbom(artifact, making.inputs, making.tools, labels, base, making.packages, making.triple))
    store.put_ref("sbom", artifact.digest, bill)
    store.put_ref("provenance", artifact.digest, provenance(artifact, making, lock, engine, times_ns))


def statements(artifact: Artifact, store: Store) -> dict[str, bytes]:
    """The statements of an artifact by file name, as far as this store knows them."""
    found = {f"{kind}.json": store.get_ref(kind, artifact.digest) for kind in ("sbom", "provenance")}
    return {
        name: json.dumps(value, indent=2, sort_keys=True).encode() + b"\n" for name, value in found.items() if value
    }


def provenance(
    artifact: Artifact, making: Making, lock: Lock, engine: str, times_ns: tuple[int, int]
) -> dict[str, object]:
    """The provenance statement of an artifact."""
    commands = [list(command) for command in making.commands]
    dependencies = [_dependency(name, locked.digest) for name, (_, locked) in sorted(making.inputs.items())]
    dependencies += [_dependency(tool.id, tool.digest) for tool in making.tools]
    dependencies += [_dependency(f"{package.name}.deb", package.digest) for package in making.packages]
    if artifact.kind == "bundle" and making.by_engine:
        dependencies += [_dependency(n, s.digest or "") for n, s in sorted(toolchain.makers(making.triple).items())]
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
                    "command": commands[-1] if commands else [],
                    **({"before": commands[:-1]} if len(commands) > 1 else {}),
                },
                "internalParameters": {
                    "key": artifact.key,
                    "recipe": recipe_digest(making.recipe) if making.recipe else None,
                    "toolchain": toolchain.identity() if making.by_engine else engine,
                },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {
                    "id": f"{_BUILD_TYPE}:{engine.split()[0]}",
                    "version": {"meltrepro": meltrepro.__version__, "engine": engine},
                },
                "metadata": {
                    "invocationId": f"{artifact.key}:{times_ns[0]}",
                    "startedOn": _time(times_ns[0]),
                    "finishedOn": _time(times_ns[1]),
                },
            },
        },
    }


def _dependency(name: str, digest: str) -> dict[str, object]:
    return {"name": name, "digest": {"sha256": digest}}


def _time(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
