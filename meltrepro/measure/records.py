"""What campaigns measured: metrics, scores and verdicts of the trials, cells and campaigns that `record.reader` reads.

Nothing is read or computed before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from meltrepro.accuracy.answers import AnswerMark, Asking, Checks, marks, scores_of
from meltrepro.accuracy.scores import Score, scores_in
from meltrepro.errors import RecordError
from meltrepro.frameworks.base import scorer_of
from meltrepro.manifest.axes import base
from meltrepro.manifest.base import changed
from meltrepro.manifest.protocol import LIMITS, Limits
from meltrepro.measure import surroundings
from meltrepro.measure.metering import Metered, jump_s, on_device_clock
from meltrepro.measure.metric import token_gaps_ns
from meltrepro.measure.metrics import METRICS, QUOTIENTS, Metrics, compute
from meltrepro.measure.operators import Breakdown, breakdown
from meltrepro.measure.validity import (
    SPEED,
    WATCHED,
    Exclusion,
    Steadiness,
    Validity,
    crowded,
    excluded,
    judge_cell,
    judge_failure,
    judge_scores,
    judge_trial,
    steadiness,
)
from meltrepro.record import trial as record
from meltrepro.record.layout import TrialKind, cell_folder
from meltrepro.record.reader import CampaignFolder, CellFolder, TrialFolder, read_folder, read_trials
from meltrepro.record.samples import Recording, read_samples
from meltrepro.record.trace import OperatorPhase, Said, text_of
from meltrepro.stats.stability import Components, components, copies
from meltrepro.stats.summary import TO_JUDGE, Summary, summarize
from meltrepro.untrusted import parse


class TrialRecord(TrialFolder):
    """One trial that ended, and what it measured."""

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """What its scorer came to, taken from its logs, or what its answers are worth; else none. Raises `RecordError`."""
        if self.checks is not None:
            return scores_of(self.checks.task, self.marks)
        if self.scoring is None:
            return ()
        for name in (record.STDOUT, record.STDERR):
            self.file(name)
        return scores_in(self.folder, self.scoring, scorer_of(self.entry.framework_kind).read)

    @cached_property
    def checks(self) -> Checks | None:
        """What its answers are held against; `None` where they are not checked. Raises `RecordError`."""
        if record.CHECKS not in self.outcome.files:
            return None
        return self._parsed(record.CHECKS, lambda content: parse(Checks, content))

    @cached_property
    def marks(self) -> tuple[AnswerMark, ...]:
        """Whether each of its answers is right; none where they are not checked. Raises `RecordError`."""
        return () if self.checks is None else marks(self.checks, self.trace().turns)

    @property
    def right(self) -> Mapping[str, bool]:
        """Whether each of its answers is right, by a name that is the same wherever the same question is asked alike.

        Empty where its task counts none. Raises `RecordError`.
        """
        if not self.scores or not self.scores[0].right:
            return {}
        if self.checks is not None:
            names = [f"{self.checks.data}/{mark.number}" for mark in self.marks]
        else:
            assert self.scoring is not None
            sheet = ",".join(sorted(self.scoring.inputs.values()))
            names = [f"{sheet}/{place}" for place in range(len(self.scores[0].right))]
        return dict(zip(names, self.scores[0].right, strict=True))

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

    @property
    def metrics(self) -> Metrics:
        """What it measured; raises `RecordError`. A scorer's trial has scores instead."""
        return self._computed[0]

    @property
    def ran_as(self) -> Said:
        """What became of its request: `process.NAME` as the kernel treated the runner, `effective.NAME` as the engine says.

        Empty of a scorer and of runners that did not say so yet. Raises `RecordError`.
        """
        return self._computed[1]

    @property
    def threads(self) -> int:
        """How many threads its runner had, 0 of a scorer; raises `RecordError`."""
        return self._computed[2]

    @cached_property
    def _computed(self) -> tuple[Metrics, Said, int]:
        """All at once, for events are many."""
        if self.scoring is not None:
            return Metrics({}, {}), {}, 0
        trace = self.trace()
        process = {f"process.{name}": value for name, value in trace.process.items()}
        effective = {f"effective.{name}": value for name, value in trace.effective.items()}
        if trace.placement is not None:
            effective["effective.placement"] = str(trace.placement)
        right = None if self.checks is None else sum(mark.right for mark in self.marks)
        metrics = compute(trace, self.recording(), self.metered(), self.entry.most_w, right)
        return metrics, process | effective, trace.context.threads

    def validity(self, limits: Limits, backend: str | None = None) -> Validity:
        """Whether its figures may be believed; a trial that failed has none. Raises `RecordError`.

        `backend` is what had to compute.
        """
        if self.outcome.failure is not None:
            return judge_failure(self.outcome.failure)
        if self.scoring is not None:
            _ = self.scores  # a record whose scores cannot be read has no verdict
            return Validity()
        readings = self.readings()
        jumped_s = jump_s(readings) if readings else 0.0
        trace, recording, metered = self.trace(), self.recording(), self.metered()
        return judge_trial(trace, self.metrics, recording, limits, metered, jumped_s, self.cpus, backend)

    @property
    def cpus(self) -> int | None:
        """How many CPUs its runner could use; `None` for unknown. Raises `RecordError`."""
        facts = self.device.get("facts")
        return surroundings.cpus_of(self.ran_as, facts.get("cores") if isinstance(facts, dict) else None)


@dataclass(frozen=True)
class CellRecord(CellFolder):
    """One cell with the trials that it has so far, and what they measured."""

    limits: Limits = field(default_factory=Limits)
    """What the manifest declared to be invalid."""
    with_invalid: bool = False
    """Whether summaries are to include repetitions that are INVALID."""
    backend: str | None = None
    """What the manifest requires to compute."""

    @property
    def limits_changed(self) -> Mapping[str, str | int | float]:
        """What was declared to be invalid otherwise than by default, by the path of its key in the manifest."""
        return changed(self.limits, LIMITS)

    @cached_property
    def trials(self) -> tuple[TrialRecord, ...]:
        return read_trials(self.entry, self.folder, TrialRecord)

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """The scores of its first repetition that is believed; they do not vary. Raises `RecordError`.

        Answers count where its speed is not believed, too.
        """
        if self.asking is not None:
            return scores_of(str(self.entry.params["task"]), self.marks)
        return next((trial.scores for trial in self._scored), ())

    @property
    def right(self) -> Mapping[str, bool]:
        """Whether each of its answers is right, by question as of a trial; raises `RecordError`."""
        return {name: right for trial in self._asked_once for name, right in trial.right.items()}

    @property
    def marks(self) -> tuple[AnswerMark, ...]:
        """Whether each of the answers that its scores are made of is right; none where they are not checked. Raises `RecordError`."""
        return tuple(mark for trial in self._asked_once for mark in trial.marks)

    @cached_property
    def asking(self) -> Asking | None:
        """How far its questions were asked, where that ends early; `None` where each trial asks all. Raises `RecordError`."""
        parts = [trial for trial in self._scored if trial.checks is not None and trial.checks.stop is not None]
        if not parts or parts[0].checks is None or parts[0].checks.stop is None:
            return None
        found = [mark.right for trial in parts for mark in trial.marks]
        return Asking(parts[0].checks.stop, len(found), sum(found))

    @property
    def _scored(self) -> tuple[TrialRecord, ...]:
        """The repetitions whose scores count."""
        return tuple(trial for trial in self.repetitions if trial.checks is not None) or self.believed

    @property
    def _asked_once(self) -> tuple[TrialRecord, ...]:
        """Those of them in which every question was asked once."""
        return self._scored if self.asking is not None else self._scored[:1]

    @property
    def repetitions(self) -> tuple[TrialRecord, ...]:
        """The repetitions that ended well, INVALID ones too."""
        return tuple(trial for trial in self.trials if trial.kind is TrialKind.repetition and trial.ok)

    @property
    def failures(self) -> tuple[TrialRecord, ...]:
        """The repetitions that failed."""
        return tuple(trial for trial in self.trials if trial.kind is TrialKind.repetition and not trial.ok)

    @cached_property
    def invalid(self) -> Mapping[str, Validity]:
        """Name of each repetition that is INVALID -> why; raises `RecordError`."""
        judged = {trial.name: trial.validity(self.limits, self.backend) for trial in self.repetitions}
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
        if self.asking is not None:
            return Validity()  # each asks other questions
        own = judge_cell(self.summaries.get(SPEED), self.limits)
        return Validity((*own.findings, *judge_scores([trial.scores for trial in self.believed]).findings))

    @property
    def whole(self) -> Validity:
        """The verdict on it as a whole: INVALID where its repetitions disagree or none is VALID; raises `RecordError`."""
        none_valid = bool(self.repetitions) and len(self.invalid) == len(self.repetitions)
        return self.validity if none_valid else self.agreement

    @property
    def asked(self) -> int:
        """How many repetitions there should be: as the protocol says, else as many as were tried, or were enough."""
        tried = len(self.repetitions) + len(self.failures)
        enough = self.asking is not None and self.asking.known
        return tried if enough else self.expected or tried

    @property
    def failed(self) -> Mapping[str, Validity]:
        """Name of each repetition that failed -> why."""
        return {trial.name: trial.validity(self.limits) for trial in self.failures}

    @property
    def exclusions(self) -> tuple[Exclusion, ...]:
        """What a reader must know of its repetitions: how many are INVALID, how many failed. Raises `RecordError`."""
        invalid = "INVALID, counted all the same" if self.with_invalid else "INVALID"
        groups = ((self.invalid, invalid), (self.failed, "failed"))
        return tuple(excluded(self.asked, group, what) for group, what in groups if group)

    @cached_property
    def summaries(self) -> Mapping[str, Summary]:
        """Metric name -> summary over the repetitions that have a value; raises `RecordError`."""
        measured = [trial.metrics.values for trial in self.believed]
        values = {name: [each[name] for each in measured if name in each] for name in METRICS}
        summaries = {name: summarize(found) for name, found in values.items() if found}
        for name, (above, below) in QUOTIENTS.items():
            if name in summaries and len(values[above]) == len(values[below]):
                quotient = summarize([sum(values[above]) / sum(values[below])])
                summaries[name] = replace(quotient, n=len(values[below]))
        return summaries

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
    def ran_as(self) -> Said:
        """What became of its request, of the first repetition; raises `RecordError`."""
        return next((trial.ran_as for trial in self.repetitions), {})

    @cached_property
    def ran_unlike(self) -> Mapping[str, str]:
        """What of that was not alike in all repetitions -> all that it was; raises `RecordError`."""
        found: dict[str, dict[str, None]] = {}
        for name, value in (item for trial in self.repetitions for item in trial.ran_as.items()):
            found.setdefault(name, {})[text_of(value)] = None
        return {name: " and ".join(values) for name, values in found.items() if len(values) > 1}

    @property
    def too_few(self) -> bool:
        """Whether its repetitions are too few to judge; scores do not vary, so that one will do. Raises `RecordError`."""
        return 0 < len(self.believed) < TO_JUDGE and not self.scores

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of its figures must know, though nothing is left out for it; raises `RecordError`."""
        measured = [trial for trial in self.believed if trial.scoring is None]
        crowds = {trial.cpus for trial in measured if crowded(trial.threads, trial.cpus)}
        return (
            *(surroundings.too_few(len(self.believed), self.summaries) if measured else ()),
            *surroundings.remarks(self.ran_as, self.ran_unlike, [trial.metrics for trial in measured]),
            *(surroundings.crowd(cpus) for cpus in crowds if cpus is not None),
            *([surroundings.uncalibrated(self.entry.target)] if measured and self._uncalibrated else ()),
            *(remark for found in self.steadiness for remark in found.remarks() if self.asking is None),
            *([str(self.asking)] if self.asking is not None and self.asking.known else ()),
        )

    @property
    def _uncalibrated(self) -> bool:
        """Whether its device could have a calibration and has none; records of before calibrations do not say."""
        none = self.entry.params.get("device.calibration") == surroundings.NO_CALIBRATION
        return none and not self.virtual

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


@dataclass(frozen=True)
class CampaignRecord(CampaignFolder):
    """A campaign with all its cells, and what they measured."""

    with_invalid: bool = False
    """Whether summaries are to include repetitions that are INVALID."""

    @cached_property
    def cells(self) -> tuple[CellRecord, ...]:
        """Its cells, in the order of the manifest."""
        return tuple(
            CellRecord(
                entry,
                cell_folder(self.folder, entry.id),
                self._limits,
                self.with_invalid,
                self._required.get(base(entry.framework)),
            )
            for entry in self.document.cells
        )

    @cached_property
    def _required(self) -> Mapping[str, str]:
        """The backend that each framework requires, by its name."""
        try:
            frameworks = self.manifest.frameworks
        except RecordError:
            return {}
        return {name: entry.require.backend for name, entry in frameworks.items() if entry.require is not None}

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


def read_campaign(folder: Path, *, with_invalid: bool = False) -> CampaignRecord:
    """The campaign in a folder, summed up without its INVALID repetitions unless they are asked for; raises as `read_folder`."""
    found = read_folder(folder)
    return CampaignRecord(found.folder, found.document, with_invalid)
