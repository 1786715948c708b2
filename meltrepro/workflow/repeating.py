"""How often to repeat, where the manifest leaves that to what is known of its devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from meltrepro.errors import PlanError
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.measure.spreads import SPEED, spread_of
from meltrepro.record import calibrations
from meltrepro.record.capabilities import system_of
from meltrepro.stats.sessions import MOST_REPETITIONS
from meltrepro.targets.base import DeviceFacts


def with_repetitions(loaded: LoadedManifest, devices: Mapping[str, DeviceFacts], home: Path) -> LoadedManifest:
    """The manifest with a number in place of `protocol.repetitions: auto`: what its least steady device needs.

    Raises `PlanError` for a device that was not calibrated, or on which the difference cannot be shown.
    """
    protocol = loaded.manifest.protocol
    most = max(_needed(loaded, name, facts, home) for name, facts in devices.items())
    changed = protocol.model_copy(update={"repetitions": most})
    return replace(loaded, manifest=loaded.manifest.model_copy(update={"protocol": changed}))


def _needed(loaded: LoadedManifest, target: str, facts: DeviceFacts, home: Path) -> int:
    difference = loaded.manifest.protocol.difference
    known = spread_of(calibrations.current(home, facts.id, system_of(facts.facts)), SPEED)
    if known is None:
        raise PlanError(
            f"protocol.repetitions: auto: how steady target {target} ({facts.id}) is, is not known",
            hint=f"find out with: meltrepro calibrate {target} --spec {loaded.path}, or write a number",
        )
    found = known.repetitions(difference)
    if found is None:
        least = known.smallest(MOST_REPETITIONS) or 0.0
        raise PlanError(
            f"protocol.repetitions: auto: on target {target} ({facts.id}) {MOST_REPETITIONS} repetitions show {least:.1%} at the "
            f"least, not {difference:.1%}",
            hint="set protocol.difference to more, or keep the device free of other work and calibrate it anew",
        )
    return found
