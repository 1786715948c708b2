"""Calibration: how steady a device is, found by several sessions of one small piece of work, and one long trial of it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from meltrepro import settings as settings_module
from meltrepro.atomic import write_bytes
from meltrepro.build.tools import EngineName
from meltrepro.errors import TrialFailed, UsageError
from meltrepro.measure.metric import generation_ns
from meltrepro.measure.records import CampaignRecord, CellRecord, read_campaign
from meltrepro.plan.identity import digest_of
from meltrepro.plan.planner import selected
from meltrepro.record import calibrations, capabilities
from meltrepro.record.calibrations import MOST_SESSIONS, Calibration, CalibrationSession, Endurance
from meltrepro.record.ids import CellId
from meltrepro.replay.compare import JUDGED
from meltrepro.settings import Settings
from meltrepro.steps import Sink, Step, silent
from meltrepro.workflow.beginnings import begin
from meltrepro.workflow.campaigns import run
from meltrepro.workflow.manifests import read_manifest

BURST, ENDURANCE = "calibrate-burst", "calibrate-endurance"
_WORK = {"conversations": "pp128/tg64"}
_REPETITIONS, _WARMUPS = 4, 1
_FEWEST, _SESSIONS = 4, 6
_PIECE = 64
"""Tokens of each piece of the long trial; each begins with an empty context, so that all are equal work."""
_PROMPT = "Describe a harbour town in winter, its people and its ships."
_SLOWER = 0.95
"""Of the burst: pieces below that are slower."""
_METRICS = (*JUDGED, "generation_energy_j")


@dataclass(frozen=True)
class Calibrated:
    """What is known of a device's steadiness now."""

    calibration: Calibration
    path: Path
    """Where it is kept; every later campaign on the device holds a copy."""
    added: int
    """Sessions that were measured now."""
    campaigns: Sequence[Path]
    """Their records."""
    seconds: float


def calibrate(
    target: str,
    *,
    spec: Path | str | None = None,
    only: Sequence[str] = (),
    sessions: int = _SESSIONS,
    endurance_s: float = 60.0,
    minutes: float = 10.0,
    engine: EngineName = "docker",
    wait_s: float = 0.0,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Calibrated:
    """Measure a small piece of work in several sessions, and once for long; keep what that says with the device.

    `target` is a device as `meltrepro devices` names it, whose work is then the quickstart's model, or with `spec` a target of
    that manifest, whose first cell there (of `only`) is the work. Sessions of before stay as long as work and system are the
    same. `minutes` ends it early, after four sessions at the least; what is built before does not count. Raises what `run`
    raises, `UsageError`, and `TrialFailed` where a trial did.
    """
    settings = settings or settings_module.load()
    manifest = Path(spec) if spec is not None else _manifest(target, settings, sink)
    cell = _cell(manifest, target if spec is not None else None, only)
    began: float | None = None
    measured: list[tuple[CalibrationSession, Path]] = []
    burst: CellRecord | None = None
    while len(measured) < sessions:
        sampled = len(measured) % 2 == 0
        sink(Step("calibrating", "note", str(len(measured) + 1), done=len(measured), total=sessions))
        since = time.monotonic()
        folder = _session(manifest, cell, BURST, _burst(sampled=sampled), engine, wait_s, sink, settings)
        campaign = read_campaign(folder)
        burst = _only(campaign)
        measured.append((_told(campaign, burst, sampled, time.monotonic() - since), folder))
        began = began if began is not None else time.monotonic()  # the first may have built everything
        usual_s = median(session.seconds for session, _ in measured[1:] or measured)
        if len(measured) >= _FEWEST and time.monotonic() - began + usual_s + endurance_s > 60 * minutes:
            break
    assert burst is not None and began is not None
    long: Endurance | None = None
    if endurance_s > 0:
        pieces = _pieces(burst, endurance_s)
        sink(Step("calibrating", "note", ENDURANCE, total=endurance_s, unit="s"))
        folder = _session(manifest, cell, ENDURANCE, _long(pieces), engine, wait_s, sink, settings)
        long = _endurance(read_campaign(folder))
    device = str(burst.entry.params["device.id"])
    known = calibrations.load(settings.home, device)
    work, system = _work(burst), _system(burst)
    earlier = known.sessions if known is not None and (known.work, known.system) == (work, system) else []
    now = [session for session, _ in measured]
    found = Calibration(
        device=device,
        system=system,
        work=work,
        cell=str(replace(cell, workload=BURST)),
        sessions=[*earlier, *now][-MOST_SESSIONS:],
        endurance=long or (known.endurance if known is not None and earlier else None),
        pressure=_pressure(burst),
    )
    path = calibrations.path_of(settings.home, device)
    write_bytes(path, (found.model_dump_json(indent=1) + "\n").encode())
    return Calibrated(found, path, len(now), [folder for _, folder in measured], time.monotonic() - began)


def _manifest(target: str, settings: Settings, sink: Sink) -> Path:
    """The quickstart's model on a device, in a folder of its own, so that its lock stays."""
    folder = (
        settings.home / "calibrations" / "manifests" / "".join(c if c.isalnum() or c in "-_." else "-" for c in target)
    )
    for old in folder.glob("*.yaml"):
        if not old.name.endswith(".lock.yaml"):
            old.unlink()  # of another version of this program, or of other targets
    return begin(folder, device=target, compare=None, sink=sink, settings=settings)[0]


def _cell(manifest: Path, target: str | None, only: Sequence[str]) -> CellId:
    """The cell whose work is measured; raises `UsageError` where there is none on the target."""
    loaded = read_manifest(manifest, ())
    found = [cell for cell in selected(loaded.manifest, only) if target is None or cell.target == target]
    if not found:
        raise UsageError(
            f"{manifest} has no cell on a target {target!r}", hint=f"its targets: {', '.join(loaded.manifest.targets)}"
        )
    return found[-1] if target is None else found[0]  # the quickstart's last quantization is the smallest


def _burst(*, sampled: bool) -> dict[str, Any]:
    return {
        "workload": _WORK,
        "repetitions": _REPETITIONS,
        "warmups": _WARMUPS,
        **({} if sampled else {"sampling_hz": 0}),
    }


def _long(pieces: int) -> dict[str, Any]:
    workload = {
        "conversations": [[_PROMPT]] * pieces,
        "context": 4 * _PIECE,
        "max_tokens": _PIECE,
        "ignore_eos": True,
        "sampling": {"greedy": True},
    }
    return {"workload": workload, "repetitions": 1, "warmups": 0}


def _session(
    manifest: Path,
    cell: CellId,
    name: str,
    what: dict[str, Any],
    engine: EngineName,
    wait_s: float,
    sink: Sink,
    settings: Settings,
) -> Path:
    """One campaign of its own; raises `TrialFailed` where any of its trials did."""
    overrides = [
        "name=calibration",
        f"workloads.{name}={json.dumps(what['workload'])}",
        *(f"protocol.{key}={what[key]}" for key in ("repetitions", "warmups")),
        *("protocol.order=as-written", "measure.operators=false", "measure.limits.noise=0.99"),
        *([f"measure.sampling_hz={what['sampling_hz']}"] if "sampling_hz" in what else []),
        *(["measure.energy=off"] if "sampling_hz" in what else []),
    ]
    only = str(CellId(cell.model, cell.quantization, cell.framework, cell.target, name))
    ran = run(
        manifest,
        overrides=overrides,
        only=[only],
        engine=engine,
        new=True,
        track=False,
        wait_s=wait_s,
        sink=sink,
        settings=settings,
    )
    if ran.tally.failed or ran.tally.left:
        why = ran.tally.failed[0][1] if ran.tally.failed else "a trial was left"
        raise TrialFailed(f"a session of calibration failed: {why}", hint=f"meltrepro show {ran.folder.name}")
    return ran.folder


def _only(campaign: CampaignRecord) -> CellRecord:
    (cell,) = campaign.cells
    if cell.invalid:
        raise TrialFailed(
            f"{campaign.id}: {cell.validity}", hint="mend what is said of the device, then calibrate it again"
        )
    return cell


def _told(campaign: CampaignRecord, cell: CellRecord, sampled: bool, seconds: float) -> CalibrationSession:
    trials = cell.believed
    values = {
        name: found
        for name in _METRICS
        if len(found := [trial.metrics.values[name] for trial in trials if name in trial.metrics.values]) == len(trials)
    }
    first = trials[0].outcome.started_wall_ns
    return CalibrationSession(
        campaign=campaign.id,
        started_wall_ns=first,
        sampled=sampled,
        seconds=seconds,
        values=values,
        times_s=[(trial.outcome.started_wall_ns - first) / 1e9 for trial in trials],
    )


def _pieces(burst: CellRecord, endurance_s: float) -> int:
    tps = burst.summaries["generation_tps"].median
    return max(10, min(2000, ceil(endurance_s / (_PIECE / tps))))


def _endurance(campaign: CampaignRecord) -> Endurance:
    (trial,) = _only(campaign).believed
    turns = [turn for turn in trial.trace().turns if len(turn.token_ns) > 1]
    speeds = [(len(turn.token_ns) - 1) / (generation_ns(turn) / 1e9) for turn in turns]
    begin_ns, end_ns = turns[0].token_ns[0], turns[-1].token_ns[-1]
    ends_s = [(turn.token_ns[-1] - begin_ns) / 1e9 for turn in turns]
    whole_s = (end_ns - begin_ns) / 1e9
    burst = median([v for v, t in zip(speeds, ends_s, strict=True) if t <= whole_s / 10] or speeds[:1])
    steady = median([v for v, t in zip(speeds, ends_s, strict=True) if t >= whole_s * 2 / 3] or speeds[-1:])
    return Endurance(
        campaign=campaign.id,
        started_wall_ns=trial.outcome.started_wall_ns,
        duration_s=whole_s,
        burst_tps=burst,
        steady_tps=steady,
        slower_after_s=_slower_after(speeds, ends_s, burst),
        speeds_tps=speeds,
    )


def _slower_after(speeds: Sequence[float], ends_s: Sequence[float], burst: float) -> float | None:
    """From when on the median of what follows, and of the next few, is slow: one slow piece is not the end of a burst."""
    slow = [
        i
        for i in range(len(speeds))
        if median(speeds[i:]) < _SLOWER * burst and median(speeds[i : i + 5]) < _SLOWER * burst
    ]
    return ends_s[slow[0]] if slow else None


def _pressure(cell: CellRecord) -> float | None:
    found = cell.summaries.get("cpu_pressure_share")
    return found.median if found is not None else None


def _work(cell: CellRecord) -> str:
    entry = cell.entry
    names = ("request_digest", "threads", "settings.governor")
    return digest_of(
        {
            "model": entry.model_digest,
            "bundle": entry.bundle_digest,
            **{name: entry.params.get(name) for name in sorted(names)},
        }
    )


def _system(cell: CellRecord) -> str:
    """The build of the device's system, as a report on it has that."""
    facts = {name.removeprefix("device."): str(value) for name, value in cell.entry.params.items()}
    return capabilities.system_of(facts)
