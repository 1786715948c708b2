"""The device of a cell as its records describe it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meltrepro import untrusted
from meltrepro.errors import RecordError
from meltrepro.measure.records import CampaignRecord, CellRecord, TrialRecord
from meltrepro.record import trial as record
from meltrepro.record.samples import Recording
from meltrepro.report.results import Device
from meltrepro.untrusted import load_json

_MAH_PER_C = 1 / 3.6
_LEAST_LEVEL = 10.0
"""Percent of charge from which on a level, which is a whole number, tells a capacity to within 5 %."""

_LEAST_MAH, _MOST_MAH = 500.0, 50_000.0
"""Capacities of batteries that there are; some drivers count charge in another unit than they say."""


def device_of(campaign: CampaignRecord, cell: CellRecord) -> Device:
    """The device that a cell ran on; raises `RecordError` where a record of it is damaged."""
    params = cell.entry.params
    first = next(iter(cell.trials), None)
    said = described(first) if first is not None else {}
    facts = _mapping(said, "facts")
    conditions = _mapping(_mapping(said, "before"), "conditions")
    memory = params.get("device.memory_bytes", facts.get("memory_bytes"))
    mode = conditions.get("power_mode", params.get("device.power_mode"))
    return Device(
        name=cell.entry.target,
        kind=str(facts.get("kind") or _kind(campaign, cell.entry.target)),
        model=str(params.get("device.model") or facts.get("model") or "unknown"),
        memory_bytes=int(memory) if isinstance(memory, int | float) else None,
        virtual=cell.virtual or facts.get("virtual") is True,
        power_mode=str(mode) if mode else None,
        battery_mah=_battery_mah(cell),
        id=str(params.get("device.id") or facts.get("id") or ""),
    )


def device_unseen(campaign: CampaignRecord, target: str) -> Device:
    """What a manifest alone says of a device that nothing ran on; raises `RecordError` for a damaged manifest."""
    known = campaign.manifest.targets.get(target)
    virtual = getattr(known, "lab", None) is not None
    return Device(target, _kind(campaign, target), "unknown", memory_bytes=None, virtual=virtual)


def described(trial: TrialRecord) -> Mapping[str, Any]:
    """The content of `device.json`; empty where there is none. Raises `RecordError`."""
    if record.DEVICE not in trial.outcome.files and not (trial.folder / record.DEVICE).exists():
        return {}
    path = trial.file(record.DEVICE)
    try:
        found = load_json(untrusted.read(path))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise RecordError(f"{path} is damaged: expected an object")
    return found


def _kind(campaign: CampaignRecord, target: str) -> str:
    known = campaign.manifest.targets.get(target)
    return str(known.kind) if known is not None else "unknown"


def _battery_mah(cell: CellRecord) -> float | None:
    """What the device says of its capacity, else its charge over its level, where both were sampled."""
    said = cell.entry.params.get("device.battery_mah")
    if isinstance(said, int | float) and said > 0:
        return float(said)
    for trial in cell.believed:
        recording = trial.recording()
        if recording is not None and (found := _capacity(recording)) is not None:
            return found
    return None


def _capacity(recording: Recording) -> float | None:
    charge, level = recording.named("battery.charge"), recording.named("battery.level")
    if charge is None or level is None or not charge.values or not level.values:
        return None
    if charge.channel.unit != "C" or not _LEAST_LEVEL <= level.values[0] <= 100 or charge.values[0] <= 0:
        return None
    found = charge.values[0] * _MAH_PER_C / (level.values[0] / 100)
    return found if _LEAST_MAH <= found <= _MOST_MAH else None


def _mapping(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
