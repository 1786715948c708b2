"""The manifests that are meant by paths: one by one, or those of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from meltrepro.errors import ManifestError, UsageError
from meltrepro.manifest.loader import LoadedManifest, load_manifest


def read_manifest(spec: Path, overrides: Sequence[str]) -> LoadedManifest:
    """Load a manifest with its overrides; raises `ManifestError`, and `UsageError` for a folder."""
    if spec.is_dir():
        inside = manifests_of([spec])
        raise UsageError(
            f"{spec} is a folder, and this command takes one manifest",
            hint=f"name one, such as {inside[0]}; validate and study take folders",
        )
    try:
        return load_manifest(spec, overrides)
    except ManifestError as error:
        meant = Path("specs") / f"{spec.stem}.yaml"
        if spec.exists() or not meant.is_file():
            raise
        raise ManifestError(error.problems, hint=f"is {meant} meant?") from error


def manifests_of(specs: Sequence[Path]) -> list[Path]:
    """The manifests that are meant, those of a folder by name; raises `UsageError` where there are none.

    `*.yaml` in a shell names locks too: one beside its manifest is passed over.
    """
    found: list[Path] = []
    for path in specs:
        inside = sorted(each for each in path.glob("*.yaml") if not each.name.endswith(".lock.yaml"))
        if path.is_dir() and not inside:
            raise UsageError(
                f"{path} holds no manifest (*.yaml)", hint="name a folder of manifests, such as specs/paper/smoke"
            )
        found += inside if path.is_dir() else [path]
    return [path for path in found if path.with_name(path.name.replace(".lock.yaml", ".yaml")) not in {*found} - {path}]
