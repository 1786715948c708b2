"""The kinds of targets there are: a lazy table, so that nobody loads a driver that no manifest asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from meltrepro.build.model import Engine, Maker, MakerName
from meltrepro.errors import DriverMissing
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.targets import Target as TargetEntry
from meltrepro.settings import Settings
from meltrepro.targets.base import DeviceFacts, Target

Factory = Callable[[Any, Settings, Engine | None], Target]
"""Takes the manifest's entry for a target of its kind."""

_FACTORIES: Mapping[str, str] = {
    "host": "meltrepro.targets.host.target:open_target",
    "android": "meltrepro.targets.android.target:open_target",
    "jetson": "meltrepro.targets.jetson.target:open_target",
    "linux": "meltrepro.targets.ssh.board:open_target",
    "ios": "meltrepro.targets.ios.target:open_target",
}


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


def open_target(entry: TargetEntry, settings: Settings, engine: Engine | None = None) -> Target:
    """One target; raises `TargetError` where its kind of link is not there."""
    return _factory(entry.kind)(entry, settings, engine)


def probe(targets: Mapping[str, Target]) -> dict[str, DeviceFacts]:
    """Identify every target; raises what the first unusable one raises."""
    return {name: target.identify() for name, target in targets.items()}


def _factory(kind: str) -> Factory:
    module, _, name = _FACTORIES[kind].partition(":")
    factory: Factory = getattr(import_module(module), name)
    return factory
