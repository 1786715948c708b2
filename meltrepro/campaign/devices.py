"""The devices of a campaign made ready: locked, cleared of what a killed campaign left, their sensors found.

What cannot be made ready is left out with its reason, and nobody else waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

from meltrepro.campaign.setup import Setup, sensor_plan_of
from meltrepro.errors import EngineError, TargetError
from meltrepro.plan.model import SkippedCell
from meltrepro.plan.planner import require_cells
from meltrepro.steps import Sink, Step
from meltrepro.targets import device_lock
from meltrepro.targets.base import Adjustable, Target
from meltrepro.targets.presence import Absence, driving


@dataclass(frozen=True)
class Ready:
    """A setup of which every device is locked and can be measured."""

    setup: Setup
    """Without the cells of devices that cannot."""
    targets: Mapping[str, Target]
    """Those of its cells, by name."""
    sensors: Mapping[str, bytes]
    """What each is to log, by target name."""
    strays: int
    """Programs of a killed campaign that were stopped."""
    restored: int
    """Settings that were put back."""


Hold = Callable[..., AbstractContextManager[object]]
"""Keeps others from a device; called as `device_lock.hold`."""


def make_ready(setup: Setup, held: ExitStack, sink: Sink, wait_s: float = 0.0, hold: Hold = device_lock.hold) -> Ready:
    """Lock the devices of a setup for as long as `held` lasts, and put them in order.

    Those that others measure on are waited for, all together at most `wait_s`, one after the other by their ids, so that
    no two campaigns wait for each other.

    Where none is left, raises what `require_cells` raises, or the `EngineError` that is in the way.
    """
    names: dict[str, list[str]] = {}
    for name in sorted({name for cell in setup.plan.cells for name in cell.target_names}):
        names.setdefault(setup.devices[name].id, []).append(name)
    sensors: dict[str, bytes] = {}
    lost: dict[str, Absence] = {}
    strays = restored = 0
    until = time.monotonic() + wait_s
    for device, targets in sorted(names.items()):
        with ExitStack() as own:
            for name in targets:
                target = setup.targets[name]
                try:
                    if name == targets[0]:
                        _lock(
                            device, name, setup.plan.manifest.name, own, sink, max(0.0, until - time.monotonic()), hold
                        )
                    with driving(f"target {name}"):
                        strays += target.stop_strays()
                        restored += len(target.restore()) if isinstance(target, Adjustable) else 0
                        if (plan := sensor_plan_of(setup, name)) is not None:
                            sensors[name] = plan
                except (TargetError, EngineError) as error:
                    lost[name] = Absence.of(name, error)
                    if name == targets[0]:  # the others are the same device
                        lost |= {other: Absence.of(other, error) for other in targets[1:]}
                        break
            if not lost.keys() >= set(targets):
                held.enter_context(own.pop_all())
    setup = _without(setup, lost)
    if not setup.plan.cells:
        for absence in lost.values():
            if isinstance(absence.error, EngineError):
                raise absence.error
    require_cells(setup.plan)
    left = {name: setup.targets[name] for cell in setup.plan.cells for name in cell.target_names}
    return Ready(setup, left, sensors, strays, restored)


def _lock(device: str, name: str, campaign: str, own: ExitStack, sink: Sink, wait_s: float, hold: Hold) -> None:
    """Lock a device; that it is waited for is a step."""
    told = []

    def waits(who: str) -> None:
        told.append(who)
        sink(Step("wait", "begin", name, detail={"for": who}))

    own.enter_context(hold(device, campaign, wait_s=wait_s, waits=waits))
    if told:
        sink(Step("wait", "end", name))


def _without(setup: Setup, lost: Mapping[str, Absence]) -> Setup:
    """The same setup without the cells of some targets."""
    if not lost:
        return setup
    cells, skipped = [], []
    for cell in setup.plan.cells:
        gone = [lost[name] for name in cell.target_names if name in lost]
        if gone:
            skipped.append(SkippedCell(cell.id, gone[0].kind, gone[0].reason))
        else:
            cells.append(cell)
    plan = replace(setup.plan, cells=tuple(cells), skipped=(*setup.plan.skipped, *skipped))
    return replace(setup, plan=plan, missing={**setup.missing, **lost})
