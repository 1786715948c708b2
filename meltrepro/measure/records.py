"""Campaign folders as values: what was run, how each trial ended, what it measured.

Nothing is read before it is asked for, and nothing here writes. A trial folder without an outcome never happened; a
failed attempt that was tried again is kept on disk and is not among the trials.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from meltrepro import untrusted
from meltrepro.accuracy.scores import Score, scores_in
from meltrepro.errors import ManifestError, RecordError, UsageError
from meltrepro.frameworks.registry import scorer_of
from meltrepro.manifest.loader import parse_manifest
from meltrepro.manifest.protocol import Limits
from meltrepro.manifest.schema import Manifest
from meltrepro.measure.metering import Metered, jump_s, on_device_clock
from meltrepro.measure.metric import token_gaps_ns
from meltrepro.measure.metrics import METRICS, Metrics, compute
from meltrepro.measure.operators import Breakdown, breakdown
from meltrepro.measure.validity import (
    SPEED,
    WATCHED,
    Steadiness,
    Validity,
    excluded,
    judge_cell,
    judge_failure,
    judge_scores,
    judge_trial,
    steadiness,
)
from meltrepro.record import campaign as files
from meltrepro.record import trial as record
from meltrepro.record.campaign import CampaignDocument, CellEntry
from meltrepro.record.events import read_trace
from meltrepro.record.ids import CellId
from meltrepro.record.layout import TrialKind, cell_folder
from meltrepro.record.samples import Recording, read_samples
from meltrepro.record.trace import OperatorPhase, Trace
from meltrepro.record.trial import ClockReadings, Outcome, ScoringRequest, TrialState
from meltrepro.stats.stability import Components, components, copies
from meltrepro.stats.summary import Summary, summarize
from meltrepro.untrusted import parse

_TRIAL = re.compile(r"([wrp])(\d{3,})")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""What ids may consist of: a cell's id is a path below the campaign's folder."""
_MOST_BITS = 64
_MOVE = "restore the file, or move the folder away"
_RESTORE = "restore the record, from its bundle or from MLflow, or measure again with: meltrepro run --new SPEC"


_KINDS = {kind[0]: kind for kind in TrialKind}


@dataclass(frozen=True)
class TrialRecord:
    """One trial that ended."""

    folder: Path
    kind: TrialKind
    index: int
    outcome: Outcome
    framework: str
    """Kind of its cell's."""

    @property
    def name(self) -> str:
        """Name of its folder: `r000`."""
        return self.folder.name

    @property
    def ok(self) -> bool:
        return self.outcome.state is TrialState.ok

    @cached_property
    def scoring(self) -> ScoringRequest | None:
        """What its scorer was asked; `None` of a trial with a runner. Raises `RecordError`."""
        if record.EVENTS in self.outcome.files or not (self.folder / record.REQUEST).exists():
            return None
        path = self.file(record.REQUEST)
        try:
            request = record.parse_request(untrusted.read(path))
        except (OSError, ValueError) as error:
            raise RecordError(f"{path} is damaged: {error}", hint=_RESTORE) from error
        return request if isinstance(request, ScoringRequest) else None

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """What its scorer came to, taken from its logs; none of a trial with a runner. Raises `RecordError`."""
        if self.scoring is None:
            return ()
        for name in (record.STDOUT, record.STDERR):
            self.file(name)
        return scores_in(self.folder, self.scoring, scorer_of(self.framework).read)

    def trace(self) -> Trace:
        """Its events; raises `RecordError`, as the events of a failed trial often do."""
        return read_trace(self.file(record.EVENTS))

    def recording(self) -> Recording | None:
        """What was sampled meanwhile; `None` where nothing was. Raises `RecordError`."""
        sampled = record.SAMPLES in self.outcome.files or (self.folder / record.SAMPLES).exists()
        return read_samples(self.file(record.SAMPLES)) if sampled else None

    def readings(self) -> ClockReadings | None:
        """How the clocks compared before and after; `None` where nobody looked. Raises `RecordError`."""
        if record.CLOCKS not in self.outcome.files:
            return None
        path = self.file(record.CLOCKS)
        try:
            return parse(ClockReadings, untrusted.read(path))
        except (OSError, ValueError) as error:
            raise RecordError(f"{path} is damaged: {error}", hint=_RESTORE) from error

    def metered(self) -> Metered | None:
        """What a meter showed meanwhile, on the device's clock; `None` without a meter. Raises `RecordError`."""
        if record.METER not in self.outcome.files:
            return None
        return on_device_clock(read_samples(self.file(record.METER)), self.trace(), self.readings())

    def recordings(self) -> tuple[Recording, ...]:
        """All that was sampled meanwhile, on the device's clock; raises `RecordError`."""
        metered = self.metered()
        found = (self.recording(), metered.recording if metered else None)
        return tuple(recording for recording in found if recording is not None)

    def file(self, name: str) -> Path:
        """The path of one of its files, unchanged since the trial ended; raises `RecordError`."""
        return _unchanged(self.folder / name, self.outcome.files.get(name))

    def verify(self) -> None:
        """Compare every file with its digest; raises `RecordError` for the first that differs."""
        for name in self.outcome.files:
            self.file(name)

    @cached_property
    def metrics(self) -> Metrics:
        """What it measured; raises `RecordError`. A scorer's trial has scores instead."""
        if self.scoring is not None:
            return Metrics({}, {})
        return compute(self.trace(), self.recording(), self.metered())

    def validity(self, limits: Limits) -> Validity:
        """Whether its figures may be believed; a trial that failed has none. Raises `RecordError`."""
        if not self.ok:
            return judge_failure(self.outcome.reason or "")
        if self.scoring is not None:
            _ = self.scores  # a record whose scores cannot be read has no verdict
            return Validity()
        readings = self.readings()
        jumped_s = jump_s(readings) if readings else 0.0
        return judge_trial(self.trace(), self.metrics, self.recording(), limits, self.metered(), jumped_s)


@dataclass(frozen=True)
class CellRecord:
    """One cell with the trials that it has so far."""

    entry: CellEntry
    folder: Path
    limits: Limits = field(default_factory=Limits)
    """What the manifest declared to be invalid."""
    with_invalid: bool = False
    """Whether summaries are to include repetitions that are INVALID."""

    @property
    def id(self) -> str:
        return self.entry.id

    @cached_property
    def trials(self) -> tuple[TrialRecord, ...]:
        """Every trial that ended, warm-ups first; raises `RecordError` for a damaged outcome."""
        framework = str(self.entry.params.get("kind", self.entry.framework))
        found = [_read_trial(path, match, framework) for path, match in self._folders()]
        order = list(TrialKind)
        return tuple(sorted((t for t in found if t), key=lambda trial: (order.index(trial.kind), trial.index)))

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """The scores of its first repetition that is believed; they do not vary. Raises `RecordError`."""
        return self.believed[0].scores if self.believed else ()

    @property
    def bits_per_weight(self) -> float | None:
        """What the model's file spends on a weight, in bits; `None` where nobody counted the weights."""
        value = self.entry.params.get("bits_per_weight")
        return float(value) if isinstance(value, int | float) and 1 / _MOST_BITS <= value <= _MOST_BITS else None

    @property
    def virtual(self) -> bool:
        """Whether it ran on a virtual device, whose numbers say nothing of real ones."""
        return any(trial.outcome.virtual for trial in self.trials)

    @property
    def synthetic(self) -> bool:
        """Whether its weights are made up: fit for speed, memory and size, never for accuracy."""
        return self.entry.synthetic

    @property
    def repetitions(self) -> tuple[TrialRecord, ...]:
        """The repetitions that ended well, INVALID ones too."""
        return tuple(trial for trial in self.trials if trial.kind is TrialKind.repetition and trial.ok)

    @property
    def failures(self) -> tuple[TrialRecord, ...]:
        """The repetitions that failed."""
        return tuple(trial for trial in self.trials if trial.kind is TrialKind.repetition and not trial.ok)

    @property
    def expected(self) -> int | None:
        """How many repetitions the protocol asks for; `None` where the campaign does not say."""
        value = self.entry.params.get("protocol.repetitions")
        return value if isinstance(value, int) else None

    @cached_property
    def invalid(self) -> Mapping[str, Validity]:
        """Name of each repetition that is INVALID -> why; raises `RecordError`."""
        judged = {trial.name: trial.validity(self.limits) for trial in self.repetitions}
        return {name: validity for name, validity in judged.items() if not validity.valid}

    @property
    def believed(self) -> tuple[TrialRecord, ...]:
        """The repetitions that summaries are made of; raises `RecordError`."""
        return tuple(trial for trial in self.repetitions if self.with_invalid or trial.name not in self.invalid)

    @property
    def validity(self) -> Validity:
        """The verdict on the cell: all its findings, those of its repetitions too; raises `RecordError`."""
        theirs = [
            replace(finding, detail=f"{name} {finding.detail}")
            for name, validity in sorted({**self.invalid, **self.failed}.items())
            for finding in validity.findings
        ]
        return Validity((*self.agreement.findings, *theirs))

    @property
    def agreement(self) -> Validity:
        """The verdict on its repetitions together: whether those that are believed agree; raises `RecordError`."""
        speeds = [t.metrics.values[SPEED] for t in self.believed if SPEED in t.metrics.values]
        own = judge_cell(self.summaries.get(SPEED), speeds, self.limits)
        return Validity((*own.findings, *judge_scores([trial.scores for trial in self.believed]).findings))

    @property
    def asked(self) -> int:
        """How many repetitions there should be: as the protocol says, else as many as were tried."""
        return self.expected or len(self.repetitions) + len(self.failures)

    @property
    def failed(self) -> Mapping[str, Validity]:
        """Name of each repetition that failed -> why."""
        return {trial.name: trial.validity(self.limits) for trial in self.failures}

    @property
    def exclusions(self) -> tuple[str, ...]:
        """What a reader must know of its repetitions: how many are INVALID, how many failed. Raises `RecordError`."""
        invalid = "INVALID, counted all the same" if self.with_invalid else "INVALID"
        groups = ((self.invalid, invalid), (self.failed, "failed"))
        return tuple(excluded(self.asked, group, what) for group, what in groups if group)

    @cached_property
    def summaries(self) -> Mapping[str, Summary]:
        """Metric name -> summary over the repetitions that have a value; raises `RecordError`."""
        measured = [trial.metrics.values for trial in self.believed]
        values = {name: [each[name] for each in measured if name in each] for name in METRICS}
        return {name: summarize(found) for name, found in values.items() if found}

    @cached_property
    def unavailable(self) -> Mapping[str, str]:
        """Metric name -> why no repetition has a value; raises `RecordError`."""
        reasons = dict(self._profiles[1])
        for trial in self.repetitions:
            for name, reason in trial.metrics.unavailable.items():
                if name not in self.summaries:
                    reasons.setdefault(name, reason)
        return reasons

    @cached_property
    def steadiness(self) -> tuple[Steadiness, ...]:
        """Of the metrics that are watched: outliers, drift over the campaign, dependence; raises `RecordError`."""
        found = []
        for name in WATCHED:
            values = [
                (trial.name, trial.outcome.started_wall_ns / 1e9, trial.metrics.values[name])
                for trial in self.believed
                if name in trial.metrics.values
            ]
            if values:
                found.append(steadiness(name, values))
        return tuple(found)

    @cached_property
    def token_spread(self) -> Components | None:
        """Spread of the time between tokens (ms) within trials and between them; raises `RecordError`."""
        talks = [trial.trace() for trial in self.believed if trial.scoring is None]
        gaps = [[gap / 1e6 for turn in trace.turns for gap in token_gaps_ns(turn)] for trace in talks]
        return components(gaps)

    @property
    def profiles(self) -> Mapping[OperatorPhase, Breakdown]:
        """Where decoding time goes, by phase, from the profiled trial; empty without one. Raises `RecordError`."""
        return self._profiles[0]

    @cached_property
    def _profiles(self) -> tuple[dict[OperatorPhase, Breakdown], dict[str, str]]:
        """What could be said of each phase, and why of others nothing can."""
        found: dict[OperatorPhase, Breakdown] = {}
        reasons: dict[str, str] = {}
        for trial in self.trials:
            if trial.kind is TrialKind.profile and trial.ok:
                trace = trial.trace()
                for decoding in trace.decoding:
                    try:
                        found[decoding.phase] = breakdown(trace, decoding.phase)
                    except RecordError as error:
                        reasons[f"operators.{decoding.phase}"] = error.message
        return found, reasons

    @property
    def profile_slowdown(self) -> float | None:
        """How many times slower the profiled trial generated than the median repetition; raises `RecordError`."""
        found = [trial.metrics.values for trial in self.trials if trial.kind is TrialKind.profile and trial.ok]
        slow = found[0].get("generation_tps") if found else None
        usual = self.summaries.get("generation_tps")
        return usual.median / slow if usual is not None and slow else None

    def _folders(self) -> list[tuple[Path, re.Match[str]]]:
        paths = self.folder.iterdir() if self.folder.is_dir() else ()
        matches = [(path, _TRIAL.fullmatch(path.name)) for path in paths]
        return [(path, match) for path, match in matches if match]


@dataclass(frozen=True)
class CampaignRecord:
    """A campaign with all its cells."""

    folder: Path
    document: CampaignDocument
    with_invalid: bool = False
    """Whether summaries are to include repetitions that are INVALID."""

    @property
    def id(self) -> str:
        return self.document.id

    @property
    def finished(self) -> bool:
        """Whether every trial has ended."""
        return self.document.finished_wall_ns is not None

    @cached_property
    def cells(self) -> tuple[CellRecord, ...]:
        """Its cells, in the order of the manifest."""
        return tuple(
            CellRecord(entry, cell_folder(self.folder, entry.id), self._limits, self.with_invalid)
            for entry in self.document.cells
        )

    @property
    def _limits(self) -> Limits:
        """Those of the manifest; a manifest that is damaged is complained of where it is read for itself."""
        try:
            return self.manifest.measure.limits
        except RecordError:
            return Limits()

    @property
    def copied(self) -> tuple[tuple[str, str], ...]:
        """Pairs of cells whose repetitions were equally fast to the last bit: one was copied. Raises `RecordError`."""
        return copies(
            {
                cell.id: [t.metrics.values[SPEED] for t in cell.believed if SPEED in t.metrics.values]
                for cell in self.cells
            }
        )

    def verify(self) -> None:
        """Check its own files and the records of all trials; raises `RecordError` for the first that was changed."""
        for name in self.document.files:
            self.file(name)
        for cell in self.cells:
            for trial in cell.trials:
                trial.verify()

    def file(self, name: str) -> Path:
        """The path of one of its own files, unchanged since the campaign began; raises `RecordError`."""
        return _unchanged(self.folder / name, self.document.files.get(name))

    def restricted(self, wanted: Callable[[str], bool]) -> CampaignRecord:
        """The same campaign with those cells alone whose id is wanted."""
        cells = [entry for entry in self.document.cells if wanted(entry.id)]
        return replace(self, document=self.document.model_copy(update={"cells": cells}))

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest as it was run, includes and overrides applied; raises `RecordError`."""
        path = self.file(files.MANIFEST)
        try:
            return parse_manifest(untrusted.read(path))
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error
        except ManifestError as error:
            raise RecordError(f"{path} is damaged: {error}") from error


def read_campaign(folder: Path, *, with_invalid: bool = False) -> CampaignRecord:
    """The campaign in a folder, summed up without its INVALID repetitions unless they are asked for; raises `RecordError` where there is none, its description is damaged, or anything in it is neither a plain file nor a folder."""
    path = folder / files.CAMPAIGN
    try:
        document = files.parse_campaign(untrusted.read(path))
    except FileNotFoundError as error:
        raise RecordError(f"{folder} holds no campaign: {files.CAMPAIGN} is missing") from error
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}", hint=_MOVE) from error
    except ValueError as error:
        raise RecordError(f"{path} is damaged: {error}", hint=_MOVE) from error
    if any(_leads_out(Path(name)) for name in document.files):
        raise RecordError(f"{path} is damaged: it names a file outside its folder", hint=_MOVE)
    if not _PART.fullmatch(document.id):
        raise RecordError(f"{path} is damaged: {document.id!r} is no id of a campaign")
    for cell in document.cells:
        try:
            same = CellId.parse(cell.id) == cell.key
        except ValueError:
            same = False
        if not same:
            raise RecordError(f"{path} is damaged: {cell.id!r} is no id of the cell {' '.join(astuple(cell.key))!r}")
    if len({cell.id for cell in document.cells}) < len(document.cells):
        raise RecordError(f"{path} is damaged: it names a cell twice", hint=_MOVE)
    untrusted.files(folder)  # before a name in it is taken for a file of it
    return CampaignRecord(folder, document, with_invalid)


def _leads_out(name: Path) -> bool:
    """Whether a name is of something outside of the files that were looked at."""
    return name.is_absolute() or ".." in name.parts or any(map(untrusted.unfinished, name.parts))


def campaign_folders(records: Path) -> list[Path]:
    """The campaign folders that there are, oldest first."""
    return sorted(path.parent for path in records.glob(f"[!.]*/{files.CAMPAIGN}")) if records.is_dir() else []


def own_folders(records: Path) -> list[Path]:
    """The same without those that came from elsewhere: neither this machine's measurements nor to be gone on with."""
    return [folder for folder in campaign_folders(records) if not (folder / files.IMPORTED).exists()]


def find_campaign(records: Path, wanted: str) -> Path:
    """The folder that a user means: a path, an id, a part of one id, or `last` for the newest of this machine; raises `UsageError`."""
    if os.path.lexists(Path(wanted) / files.CAMPAIGN):
        return Path(wanted).absolute()
    folders = campaign_folders(records)
    if not folders:
        raise UsageError(f"there is no campaign in {records}", hint="run one first: meltrepro run SPEC")
    if wanted == "last":
        return (own_folders(records) or folders)[-1]
    exact = [folder for folder in folders if folder.name == wanted]
    matching = exact or [folder for folder in folders if wanted in folder.name]
    if len(matching) == 1:
        return matching[0]
    shown = ", ".join(folder.name for folder in (matching or folders)[-5:])
    problem = f"{len(matching)} campaigns match" if matching else "no campaign matches"
    raise UsageError(f"{problem} {wanted!r} in {records}", hint=f"name one of them, or `last`: {shown}")


def _read_trial(folder: Path, match: re.Match[str], framework: str) -> TrialRecord | None:
    path = folder / record.OUTCOME
    try:
        outcome = record.parse_outcome(untrusted.read(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(f"{path} is damaged: {error}", hint=_RESTORE) from error
    return TrialRecord(folder, _KINDS[match[1]], int(match[2]), outcome, framework)


def _unchanged(path: Path, expected: str | None) -> Path:
    """The path of a file with this sha256, or of any where none was written down; raises `RecordError`."""
    if expected is None:  # of a campaign that did not seal its records yet
        return path
    try:
        with untrusted.opened(path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RecordError(
            f"{path} cannot be read: {error.strerror or error}; its record was sealed with sha256 {expected}",
            hint=_RESTORE,
        ) from error
    if found != expected:
        raise RecordError(
            f"{path} was changed after it was recorded: expected sha256 {expected}, found {found}", hint=_RESTORE
        )
    return path
