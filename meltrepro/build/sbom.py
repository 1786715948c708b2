"""A CycloneDX bill of materials for an artifact: what is inside it, and what made it.

Deterministic: the serial number follows from the artifact's digest and there is no time of writing in it, so that the
same artifact always has the same bill. It stands beside the artifact and is no part of its digest.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from meltrepro.build import toolchain
from meltrepro.build.base import SUITE, of_lock
from meltrepro.build.model import Artifact, Package
from meltrepro.manifest.lock import Lock, LockedSource
from meltrepro.manifest.sources import PypiSource, Source

_NAMESPACE = uuid.UUID("6c3a4a0e-4f5e-5a53-9d0c-0d6f1d4b7a11")


def sbom(
    artifact: Artifact,
    inputs: Mapping[str, tuple[Source, LockedSource]],
    tools: Sequence[Artifact],
    labels: Mapping[str, str],
    lock: Lock | None,
    packages: Sequence[Package] = (),
    triple: str = "",
) -> str:
    """The bill of one artifact as CycloneDX 1.6 JSON: `inputs` by name, what made a model, packages inside a bundle.

    Without a `lock` none of our compilers and no base made it, as it is with apps.
    """
    kind = ComponentType.APPLICATION if artifact.kind == "bundle" else ComponentType.MACHINE_LEARNING_MODEL
    subject = Component(
        name=artifact.id,
        version=labels.get("org.opencontainers.image.version", artifact.digest[:16]),
        type=kind,
        bom_ref=artifact.digest,
        hashes=_sha256(artifact.digest),
        properties=[Property(name=f"meltrepro:{name}", value=value) for name, value in sorted(labels.items())],
    )
    bom = Bom(
        serial_number=uuid.uuid5(_NAMESPACE, artifact.digest),
        metadata=BomMetaData(component=subject),
        components=[
            *_inputs(inputs),
            *(_debian("package", package, None) for package in packages),
            *(() if lock is None else (*_makers(tools, triple), *_base(lock))),
        ],
    )
    bom.register_dependency(subject, [component for component in bom.components if component.scope is None])
    with warnings.catch_warnings():
        # A recipe without inputs depends on nothing, which the library takes for an oversight.
        warnings.filterwarnings("ignore", "The Component this BOM is describing")
        document = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _inputs(inputs: Mapping[str, tuple[Source, LockedSource]]) -> Iterable[Component]:
    for name, (source, locked) in sorted(inputs.items()):
        package = (
            PackageURL("pypi", name=source.pypi, version=source.version) if isinstance(source, PypiSource) else None
        )
        yield Component(
            name=source.pypi if isinstance(source, PypiSource) else name,
            version=source.version if isinstance(source, PypiSource) else locked.digest[:16],
            type=ComponentType.LIBRARY if package else ComponentType.DATA,
            bom_ref=f"input:{name}",
            purl=package,
            hashes=_sha256(locked.digest),
        )


def _makers(tools: Sequence[Artifact], triple: str) -> Iterable[Component]:
    """Tools: they shaped the bytes (zig's C libraries are even inside them), but are not shipped as such."""
    for tool in tools:
        yield Component(
            name=tool.id,
            version=tool.digest[:16],
            type=ComponentType.APPLICATION,
            bom_ref=tool.digest,
            hashes=_sha256(tool.digest),
            scope=ComponentScope.EXCLUDED,
        )
    if tools:
        return
    for name, source in sorted(toolchain.makers(triple).items()):
        yield Component(
            name=name,
            version=source.version,
            type=ComponentType.APPLICATION,
            bom_ref=f"toolchain:{name}",
            purl=PackageURL("pypi", name=name, version=source.version),
            hashes=_sha256(source.digest or ""),
            scope=ComponentScope.EXCLUDED,
        )


def _base(lock: Lock) -> Iterable[Component]:
    if lock.base is None:
        return
    for package in of_lock(lock.base.packages):
        yield _debian("base", package, ComponentScope.EXCLUDED, lock.base.suite)


def _debian(role: str, package: Package, scope: ComponentScope | None, suite: str = SUITE) -> Component:
    qualifiers = {"arch": package.architecture, "distro": suite}
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=f"{role}:{package.name}",
        purl=PackageURL("deb", "debian", package.name, package.version, qualifiers),
        hashes=_sha256(package.digest),
        scope=scope,
    )


def _sha256(digest: str) -> list[HashType]:
    return [HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else []
