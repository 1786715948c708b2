"""Opening targets, whatever their kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meltrepro.build.model import Engine, Maker, MakerName
from meltrepro.errors import DriverMissing
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.targets import TargetOptions
from meltrepro.registry import TARGETS
from meltrepro.settings import Settings
from meltrepro.targets.base import DeviceFacts, Target


def _mac() -> Maker:
    from meltrepro.targets.ios.mac_build import MacMaker

    return MacMaker()


MAKERS: Mapping[MakerName, Callable[[], Maker]] = {"mac-ssh": _mac}
"""What builds on a machine behind a link; loaded when something is built there."""


def open_targets(
    manifest: Manifest, settings: Settings, engine: Engine | None = None
) -> tuple[dict[str, Target], dict[str, str]]:
    """The targets of a manifest by name; those whose driver is not installed here are not among them, but the reasons are.

    Without an engine they can be identified and read, but not be trusted to run trials in a container.
    """
    targets, unusable = {}, {}
    for name, entry in manifest.targets.items():
        try:
            targets[name] = open_target(entry, settings, engine)
        except DriverMissing as error:
            unusable[name] = f"target {name}: {error.one_line}"
    return targets, unusable


def open_target(entry: TargetOptions, settings: Settings, engine: Engine | None = None) -> Target:
    """One target; raises `TargetError` where its kind of link is not there."""
    target: Target = TARGETS.get(entry.kind).open(entry, settings, engine)
    return target


def probe(targets: Mapping[str, Target]) -> dict[str, DeviceFacts]:
    """Identify every target; raises what the first unusable one raises."""
    return {name: target.identify() for name, target in targets.items()}
