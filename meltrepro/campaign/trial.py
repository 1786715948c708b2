"""One attempt at one trial: from an empty folder to a record that ends with `outcome.json`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from meltrepro import untrusted
from meltrepro.accuracy.answers import Checks, marks
from meltrepro.accuracy.scores import score_metrics, scores_in
from meltrepro.atomic import require_free, write_bytes
from meltrepro.build.model import Argument, Artifact, Input
from meltrepro.campaign import failure, gates
from meltrepro.campaign.meter import FileMeter, MeterError
from meltrepro.campaign.request import request_digest
from meltrepro.errors import MeltreproError, RecordError, StoreError
from meltrepro.frameworks.base import Scorer
from meltrepro.manifest.protocol import Gates, Measure, Want
from meltrepro.measure.metrics import Metrics, compute
from meltrepro.plan.identity import canonical
from meltrepro.record import trial as record
from meltrepro.record.capabilities import Capabilities
from meltrepro.record.events import read_trace
from meltrepro.record.layout import Trial, TrialKind
from meltrepro.record.outcomes import FailureKind, TrialFailure
from meltrepro.record.samples import read_samples
from meltrepro.record.trial import (
    AnyRequest,
    ClockReadings,
    Identities,
    Outcome,
    Readings,
    Request,
    ScoringRequest,
    TrialState,
)
from meltrepro.record.writer import clear_strangers, seal_files, trial_folder
from meltrepro.targets.base import (
    RUNNER,
    RUNNER_ARGUMENTS,
    Adjustable,
    DeviceFacts,
    DeviceState,
    Progress,
    Target,
    TrialJob,
    silent,
)
from meltrepro.targets.presence import driving

_PROBES = 8
"""Questions about the time; the one with the shortest round trip counts, the others show that it is not by chance."""
_ROOM_BYTES = 64 << 10
"""With less room than this on its disk, a failed trial is the disk's fault."""


@dataclass(frozen=True)
class CellRun:
    """What all trials of a cell have in common."""

    bundle: Artifact
    model: Artifact
    runner_digest: str
    request: AnyRequest
    target: Target
    facts: DeviceFacts
    timeout_s: float
    measure: Measure
    engine_facts: DeviceFacts | None = None
    """The device whose engine answers, where that is another one."""
    gates: Gates = field(default_factory=Gates)
    abort_above_c: float | None = None
    idle_s: float = 0.0
    """Time at rest before the runner starts, with its sensors logged."""
    sensor_plan: bytes | None = None
    """What the device logs of its sensors meanwhile; `None` for nothing."""
    meter: FileMeter | None = None
    """What measures the device's power from outside."""
    most_w: float | None = None
    """The most that the device can draw."""
    capabilities: Capabilities | None = None
    """What the device lets be read and set, where it was probed."""
    synthetic: bool = False
    """Whether the model's weights are made up."""
    scorer: Scorer | None = None
    """What an accuracy task is put to; `None` where the runner runs."""
    program: str = RUNNER
    arguments: Sequence[Argument] = RUNNER_ARGUMENTS
    inputs: Mapping[str, Input] = field(default_factory=dict)
    """Files that it reads besides the model, by name."""
    checks: Checks | None = None
    """What the answers are held against, where they are."""
    about: Callable[[], str | None] = lambda: None
    """What the model is, and what the release knows of it, for whoever asks why it cannot be loaded."""

    @property
    def devices(self) -> tuple[DeviceFacts, ...]:
        """Those that its trials occupy."""
        return (self.facts,) if self.engine_facts is None else (self.facts, self.engine_facts)

    @property
    def parts(self) -> int | None:
        """How many trials ask all of its questions, each a part; `None` where each trial asks all."""
        if self.checks is None or self.checks.stop is None or not isinstance(self.request, Request):
            return None
        return math.ceil(len(self.request.conversations) / self.checks.stop.every)

    def asked(self, trial: Trial) -> tuple[AnyRequest, Checks | None]:
        """What one trial asks, and what its answers are held against."""
        request, checks = self.request, self.checks
        if trial.kind is TrialKind.profile:
            request = request.model_copy(update={"profile": "operators"})
        if self.parts is not None and checks is not None and isinstance(request, Request):
            part = checks.part(trial.index)
            request = request.model_copy(update={"conversations": request.conversations[part]})
            checks = checks.model_copy(update={"questions": checks.questions[part][: len(request.conversations)]})
        return request, checks

    def deploy(self, progress: Progress) -> None:
        """Bring everything to the device; raises as `Target.deploy` does."""
        inputs = tuple(self.inputs.values())
        with self.driving():
            self.target.deploy(self.bundle, self.model, progress, program=self.program, inputs=inputs)

    def driving(self) -> AbstractContextManager[None]:
        """Have whatever the device's driver raises be a `TargetError`."""
        return driving(self.facts.id)

    def job(self, request: AnyRequest, folder: Path) -> TrialJob:
        """One trial of this cell."""
        what = (self.bundle, self.model, request, folder, self.timeout_s, self.program, self.arguments, self.inputs)
        return TrialJob(*what)


@dataclass(frozen=True)
class Watcher:
    """Hears how far a trial is."""

    deploying: Progress = silent
    waiting: gates.Waiting = lambda reasons, first: None
    """Hears which gates are closed, while any is."""
    rest: Callable[[float], None] = time.sleep
    """Lets time pass in which nothing happens."""
    running: Callable[[CellRun, Path], AbstractContextManager[object]] = lambda run, folder: nullcontext()
    """Holds while a trial runs whose record is in this folder."""
    ending: Callable[[], object] = lambda: None
    """Called when a trial has ended, before it has an outcome."""


@dataclass(frozen=True)
class Attempt:
    """An attempt at a trial that came to its end, good or bad."""

    outcome: Outcome
    metrics: Mapping[str, float]
    """For those who watch; records hold none (docs/metrics.md)."""


def run_trial(run: CellRun, trial: Trial, attempt: int, folder: Path, watcher: Watcher = Watcher()) -> Attempt:
    """Run a trial into `folder`; a failed one is an outcome too.

    Where it is interrupted or the disk is full the folder is removed, as if the trial had never begun. Raises
    `StoreError`, `KeyboardInterrupt`.
    """
    with trial_folder(folder) as (there, end):
        ended = _attempt(run, trial, attempt, there, watcher)
        watcher.ending()
        end(ended.outcome)
        return ended


def _attempt(run: CellRun, trial: Trial, attempt: int, folder: Path, watcher: Watcher) -> Attempt:
    request, checks = run.asked(trial)
    job = run.job(request, folder)
    started_wall_ns, started = time.time_ns(), time.monotonic()
    exit_code: int | None = None
    states: list[DeviceState] = []
    settings: Mapping[str, str] = {}
    metrics = Metrics({}, {})
    tampered: str | None = None
    try:
        run.deploy(watcher.deploying)
        with run.driving():
            settings = run.target.adjust() if isinstance(run.target, Adjustable) else {}
            gates.wait(run.gates, run.target, run.facts.cores, watcher.waiting, sleep=watcher.rest)
            started_wall_ns, started = time.time_ns(), time.monotonic()
            before = compare_clocks(run.target)
        metering = run.meter.begin() if run.meter and isinstance(request, Request) else None
        try:
            with run.driving(), _logged_sensors(run, folder), gates.watchdog(run.target, run.abort_above_c) as watch:
                watcher.rest(run.idle_s)
                states.append(run.target.state())
                with watcher.running(run, folder):
                    result = run.target.run_trial(job)
                exit_code = result.exit_code
                states.append(run.target.state())
        finally:
            tampered = clear_strangers(folder)
        with run.driving():
            readings = clock_readings(before, compare_clocks(run.target))
        write_bytes(folder / record.CLOCKS, canonical(readings) + b"\n")
        if checks is not None:
            write_bytes(folder / record.CHECKS, canonical(checks) + b"\n")
        who = "scorer" if run.scorer else "runner"
        failed = _stopped(watch) or failure.of_result(result, folder, run.timeout_s, who, run.about)
        if failed is None and run.scorer and isinstance(request, ScoringRequest):
            failed = failure.of_missing(_missing(run.measure, None, states))
            metrics = Metrics(score_metrics(scores_in(folder, request, run.scorer.read)), {})
        elif failed is None:
            samples = folder / record.SAMPLES
            trace = read_trace(folder / record.EVENTS)
            metered = metering.end(folder / record.METER, trace, readings) if metering else None
            metrics = compute(trace, read_samples(samples) if samples.exists() else None, metered, run.most_w)
            failed = failure.of_missing(_missing(run.measure, metrics, states))
            if checks is not None:
                marks(checks, trace.turns)  # of every question, or it has no score
    except StoreError as error:
        if tampered is None:
            raise
        failed = _given_up(error)
    except gates.GateClosed as error:
        failed = TrialFailure(FailureKind.gate, error.message)
    except MeterError as error:
        failed = TrialFailure(FailureKind.meter, error.one_line)
    except untrusted.Tampered as error:
        tampered = error.message
    except RecordError as error:
        scoring = isinstance(request, ScoringRequest)
        failed = TrialFailure(
            FailureKind.unscored if scoring else FailureKind.incomplete, error.one_line if scoring else error.message
        )
    except MeltreproError as error:
        failed = _given_up(error)
    if tampered is not None:
        failed = TrialFailure(FailureKind.tampered, f"a record holds plain files of its own alone, but {tampered}")
    duration_s = time.monotonic() - started
    if failed:
        require_free(folder, _ROOM_BYTES)
    device = {
        "facts": run.facts,
        "capabilities": run.capabilities.model_dump(mode="json") if run.capabilities else None,
        "settings": settings,
        **dict(zip(("before", "after"), states, strict=False)),
    }
    write_bytes(folder / record.DEVICE, canonical(device) + b"\n")
    outcome = Outcome(
        cell=trial.cell_id,
        repetition=trial.index,
        warmup=trial.kind is not TrialKind.repetition,
        attempt=attempt,
        state=TrialState.failed if failed else TrialState.ok,
        kind=failed.kind if failed else None,
        reason=failed.detail.replace(f"{folder}/", "") if failed else None,
        transient=bool(failed and failed.transient),
        exit_code=exit_code,
        started_wall_ns=started_wall_ns,
        duration_s=duration_s,
        identities=Identities(
            model=run.model.digest,
            bundle=run.bundle.digest,
            runner=run.runner_digest,
            request=request_digest(request),
        ),
        virtual=run.facts.virtual,
        synthetic=run.synthetic,
        files=seal_files(folder),
    )
    return Attempt(outcome, metrics.values)


def _stopped(watch: gates.Watch) -> TrialFailure | None:
    """Why the watchdog stopped a trial; `None` where it did not."""
    return TrialFailure(FailureKind.too_hot, watch.reason) if watch.reason else None


def _given_up(error: MeltreproError) -> TrialFailure:
    return TrialFailure(FailureKind.target, f"{type(error).__name__}: {error.message}", error.transient)


def _logged_sensors(run: CellRun, folder: Path) -> AbstractContextManager[None]:
    return run.target.sampling(run.bundle, run.sensor_plan, folder) if run.sensor_plan is not None else nullcontext()


def _missing(measure: Measure, metrics: Metrics | None, states: Sequence[DeviceState]) -> dict[str, str]:
    """What is required and cannot be had, with the reasons; a scorer has no metrics of its own, and is asked for none."""
    reasons: dict[str, str] = {}
    if metrics is not None and measure.memory is Want.required and "peak_memory_bytes" in metrics.unavailable:
        reasons["memory"] = metrics.unavailable["peak_memory_bytes"]
    if measure.temperature is Want.required:
        blind = [state for state in states if not state.temperatures_c]
        if blind:
            reasons["temperature"] = blind[0].unavailable.get("temperatures_c", "no sensor was read")
    if metrics is not None and measure.energy is Want.required and "generation_energy_j" in metrics.unavailable:
        reasons["energy"] = metrics.unavailable["generation_energy_j"]
    return reasons


def compare_clocks(target: Target) -> tuple[Readings, Readings]:
    """How the device's clock and Unix time stand to this machine's monotonic clock; raises `TargetLost`."""
    return _ask(target.clock_ns), _ask(time.time_ns)


def clock_readings(before: tuple[Readings, Readings], after: tuple[Readings, Readings]) -> ClockReadings:
    (device_before, wall_before), (device_after, wall_after) = before, after
    return ClockReadings(
        device_before=device_before, device_after=device_after, wall_before=wall_before, wall_after=wall_after
    )


def _ask(there: Callable[[], int]) -> Readings:
    found = []
    for _ in range(_PROBES):
        sent_ns = time.monotonic_ns()
        answer_ns = there()
        found.append((sent_ns, answer_ns, time.monotonic_ns()))
    return found
