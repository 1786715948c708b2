"""Bills of materials and provenance statements of artifacts, kept beside them in the store.

They are looked up by the artifact's digest and are no part of it: the bytes are the same whoever builds them, the
statement tells of one build.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from meltrepro.build.keys import recipe_digest
from meltrepro.build.model import Artifact, Package, Recipe
from meltrepro.build.provenance import provenance
from meltrepro.manifest.lock import Lock, LockedSource
from meltrepro.manifest.sources import Source
from meltrepro.store.cas import Store


@dataclass(frozen=True)
class Making:
    """How an artifact was made."""

    inputs: Mapping[str, tuple[Source, LockedSource]]
    """By name: what it is and what its bytes are."""
    recipe: Recipe | None = None
    """Of a bundle."""
    tools: tuple[Artifact, ...] = ()
    """Bundles that made a model: converter, quantizer."""
    commands: tuple[tuple[str, ...], ...] = ()
    """How they were called."""
    packages: tuple[Package, ...] = ()
    """Of Debian, that are inside a bundle."""


def attest(
    artifact: Artifact, making: Making, lock: Lock, store: Store, engine: str, times_ns: tuple[int, int]
) -> None:
    """Write both statements of an artifact that was just built; `times_ns` are begin and end, Unix time."""
    from meltrepro.build.sbom import sbom

    app = making.recipe is not None and making.recipe.maker != "engine"
    labels = dict(making.recipe.labels) if making.recipe else {}
    bill = json.loads(sbom(artifact, making.inputs, making.tools, labels, None if app else lock, making.packages))
    store.put_ref("sbom", artifact.digest, bill)
    statement = provenance(
        artifact,
        recipe=recipe_digest(making.recipe) if making.recipe else None,
        commands=making.commands,
        inputs={name: locked for name, (_, locked) in making.inputs.items()},
        tools=making.tools,
        packages=making.packages,
        lock=lock,
        engine=engine,
        app=app,
        started_ns=times_ns[0],
        finished_ns=times_ns[1],
    )
    store.put_ref("provenance", artifact.digest, statement)


def statements(artifact: Artifact, store: Store) -> dict[str, bytes]:
    """The statements of an artifact by file name, as far as this store knows them."""
    found = {f"{kind}.json": store.get_ref(kind, artifact.digest) for kind in ("sbom", "provenance")}
    return {
        name: json.dumps(value, indent=2, sort_keys=True).encode() + b"\n" for name, value in found.items() if value
    }
