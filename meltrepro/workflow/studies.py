"""Studies: several manifests one after the other, what was measured before, and what may go from the store meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from meltrepro import settings as settings_module
from meltrepro.atomic import write_bytes
from meltrepro.build.tools import EngineName
from meltrepro.campaign.campaign import finished_campaign
from meltrepro.errors import (
    DeviceBusy,
    ManifestError,
    ModelError,
    PlanError,
    SourceError,
    StoreError,
    TargetError,
    UsageError,
)
from meltrepro.frameworks.base import ModelStep, Skip
from meltrepro.manifest.accuracy import AccuracyWorkload, AnswerWorkload, QuestionWorkload, TextWorkload
from meltrepro.manifest.loader import LoadedManifest
from meltrepro.manifest.lock import load_lock, lock_path
from meltrepro.manifest.pins import prompt_digests
from meltrepro.manifest.prompts import load_conversations
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.sources import Source, SyntheticSource
from meltrepro.plan.names import references, resolve
from meltrepro.record.campaign import LOCK
from meltrepro.record.ids import RUN, ModelId, artifact_id
from meltrepro.record.study import STUDY, StudyDocument, StudyEntry, study_bytes
from meltrepro.settings import Settings
from meltrepro.steps import Sink, Step, silent
from meltrepro.store.cas import Store
from meltrepro.store.gc import Dropped, drop
from meltrepro.store.source import is_synthetic, key_of
from meltrepro.workflow.campaigns import Ran, run
from meltrepro.workflow.manifests import manifests_of, read_manifest

NOT_HERE = (PlanError, TargetError, SourceError, ModelError)
"""What says of a manifest that this machine cannot run it now; the rest of a study goes on, and the report says so."""
UNKNOWN_PARAMETERS = 1e9
"""For a model that does not say how many it has."""
PREFILL_SHARE = 0.2
"""Time of a prompt's token over that of a generated one, roughly, on CPUs."""
PROMPT_TOKENS, QUESTION_TOKENS = 40, 200
"""Of a prompt; of a question with all of its answers."""
QUESTIONS, CHUNKS = 1000, 8
"""Of a task that does not say how many."""


@dataclass(frozen=True)
class Studied:
    """A study after its last manifest."""

    path: Path
    """Its `study.json`, of which a report can be made."""
    entries: Sequence[StudyEntry]
    """By manifest: its campaign, or why there is none."""
    campaigns: Sequence[Path]
    """The folders of the campaigns that there are."""


def study(
    manifests: Sequence[Path | str],
    *,
    name: str | None = None,
    overrides: Sequence[str] = (),
    engine: EngineName = "docker",
    new: bool = False,
    drop_models: bool = False,
    track: bool = True,
    measure: Callable[[Path], Ran] | None = None,
    sink: Sink = silent,
    settings: Settings | None = None,
) -> Studied:
    """Run manifests, and those of folders, one after the other; the same call goes on where one stopped.

    A campaign that has ended is not measured again unless `new`, and a manifest that this machine cannot run is left out,
    with the reason. `drop_models` removes models from the store as soon as no manifest needs them any more. `measure` runs
    one manifest, in place of `run`. Steps named `manifest` and `drop` say what becomes of each.

    Raises `ManifestError` before anything is run, `UsageError`, `DeviceBusy`, `RecordError`, `LockError`, `Interrupted`, and the
    errors of building.
    """
    settings = settings or settings_module.load()
    paths = [Path(each) for each in manifests]
    loaded = [read_manifest(path, overrides) for path in manifests_of(paths)]
    name = name or (paths[0].resolve().name if paths[0].is_dir() else paths[0].stem)
    folder = settings.studies / _named(name).name

    def run_one(path: Path) -> Ran:
        return run(path, overrides=overrides, engine=engine, new=new, track=track, sink=sink, settings=settings)

    done = [None if new else _finished(each, settings) for each in loaded]
    clock = Clock([work_of(each) if before is None else 0.0 for each, before in zip(loaded, done, strict=True)])
    entries: list[StudyEntry] = []
    for number, (manifest, before) in enumerate(zip(loaded, done, strict=True)):
        detail = {"study": name, "left_s": clock.left_s()}
        sink(Step("manifest", "begin", manifest.path.name, done=number, total=len(loaded), detail=detail))
        entry, measured_s = _entry(manifest, before, measure or run_one, sink)
        clock.passed(number, measured_s)
        entries.append(entry)
        if drop_models and entry.campaign:
            _drop(loaded, number, settings.records / entry.campaign, settings, sink)
        write_bytes(folder / STUDY, study_bytes(StudyDocument(name=name, entries=entries)))
    return Studied(folder / STUDY, entries, [settings.records / each.campaign for each in entries if each.campaign])


def _entry(
    manifest: LoadedManifest, before: Path | None, measure: Callable[[Path], Ran], sink: Sink
) -> tuple[StudyEntry, float]:
    """Run a manifest, unless that was done or cannot be done here; and how long its trials took."""
    name = manifest.path.name
    if before is not None:
        sink(Step("manifest", "note", name, detail={"campaign": before.name}))
        return StudyEntry(manifest=name, campaign=before.name), 0.0
    try:
        ran = measure(manifest.path)
    except DeviceBusy:
        raise  # that passes; the same call goes on when it has
    except NOT_HERE as error:
        sink(Step("manifest", "fail", name, detail={"error": error.one_line}))
        return StudyEntry(manifest=name, campaign=None, reason=error.message), 0.0
    sink(Step("manifest", "end", name, detail={"failed": len(ran.tally.failed)}))
    return StudyEntry(manifest=name, campaign=ran.folder.name), ran.measured_s


def _finished(manifest: LoadedManifest, settings: Settings) -> Path | None:
    """The campaign that has measured this manifest, if one has."""
    return finished_campaign(settings.records, manifest.manifest, prompt_digests(manifest))


def _named(name: str) -> StudyDocument:
    """A study of this name; raises `UsageError` for a name that cannot be a folder's."""
    try:
        return StudyDocument(name=name, entries=[])
    except ValueError as error:
        raise UsageError(
            f"--name: {name!r} is no name", hint="letters, digits, dot, dash and underscore, up to 64"
        ) from error


# -- how long the rest takes --------------------------------------------------------------------------------------


@dataclass
class Clock:
    """How long the rest will take to measure, by how long trials took; builds are not foreseen."""

    work: Sequence[float]
    """By manifest; 0 for those that were measured before."""
    measured: float = 0.0
    spent_s: float = 0.0
    passed_by: set[int] = field(default_factory=set)

    def passed(self, number: int, measured_s: float) -> None:
        """A manifest has been dealt with; its trials took so long, 0 where none ran."""
        if measured_s:
            self.measured += self.work[number]
            self.spent_s += measured_s
        self.passed_by.add(number)

    def left_s(self) -> float | None:
        """Seconds, roughly; `None` before anything was measured."""
        if not self.measured:
            return None
        rest = sum(each for number, each in enumerate(self.work) if number not in self.passed_by)
        return self.spent_s * rest / self.measured


def work_of(loaded: LoadedManifest) -> float:
    """The work of a manifest whose prompts can be read; see `work_in`."""
    turns = {
        name: sum(map(len, load_conversations(workload, loaded.path.parent)))
        for name, workload in loaded.manifest.conversations.items()
    }
    return work_in(loaded.manifest, turns)


def work_in(manifest: Manifest, turns: Mapping[str, int]) -> float:
    """Work of all trials in tokens x parameters; `turns` is the number of prompts of each workload of conversations.

    One token of a decoder costs about two operations per parameter, so that this is proportional to the time on one
    device.
    """
    trials = manifest.protocol.count + manifest.protocol.warmups
    tokens = sum(
        trials * turns[name] * (workload.max_tokens + PREFILL_SHARE * PROMPT_TOKENS)
        for name, workload in manifest.conversations.items()
    )
    tokens += sum(workload.repetitions * PREFILL_SHARE * _scored(workload) for workload in manifest.accuracy.values())
    weights = sum(
        len(model.quantizations) * (model.parameter_count or UNKNOWN_PARAMETERS) for model in manifest.models.values()
    )
    return len(manifest.points) * len(manifest.targets) * tokens * weights


def _scored(workload: AccuracyWorkload) -> int:
    """Tokens that are read."""
    if isinstance(workload, QuestionWorkload):
        return QUESTION_TOKENS * (workload.questions or QUESTIONS)
    if isinstance(workload, AnswerWorkload):  # a token that is written takes as long as several that are read
        return round((workload.max_tokens / PREFILL_SHARE + PROMPT_TOKENS) * (workload.questions or QUESTIONS))
    return workload.context * (workload.chunks or CHUNKS)


# -- models that are not needed any more --------------------------------------------------------------------------


def _drop(loaded: Sequence[LoadedManifest], number: int, campaign: Path, settings: Settings, sink: Sink) -> None:
    """Make room for the next manifests; where another process uses the store, nothing goes."""
    store, name = Store(settings.store), loaded[number].path.name
    try:
        dropped = drop_models(loaded[number], campaign / LOCK, loaded[number + 1 :], loaded, store)
    except StoreError as error:
        sink(Step("drop", "fail", name, detail={"error": error.one_line}))
        return
    if dropped.freed_bytes:
        sink(Step("drop", "end", name, done=dropped.freed_bytes, unit="bytes"))
    if dropped.kept:
        sink(Step("drop", "note", name, detail={"kept": len(dropped.kept)}))


@dataclass(frozen=True)
class _Use:
    """What a model's bytes follow from, as far as a manifest says it."""

    source: Source
    steps: tuple[ModelStep, ...]
    framework: tuple[str, Mapping[str, Source]]
    """Kind and sources of the release; how else its programs are built changes no model."""

    def begins(self, other: _Use) -> bool:
        """Whether the other model is made of this one, or is the same."""
        if other.source != self.source or other.steps[: len(self.steps)] != self.steps:
            return False
        return not self.steps or other.framework == self.framework


def drop_models(
    done: LoadedManifest,
    record_lock: Path,
    later: Sequence[LoadedManifest],
    study: Sequence[LoadedManifest],
    store: Store,
) -> Dropped:
    """Remove the models of a manifest that was measured, but for those that `later` ones need.

    `record_lock` is the lock in its campaign's record. What locks of manifests outside the `study` name stays too, and so
    does whatever was fetched. Raises `StoreError` where another process uses the store.
    """
    lock = load_lock(record_lock)
    if lock is None:
        return drop(store, ())
    needed = [use for each in later for use in _needed(each)]
    fetched = {source.digest for key, source in lock.sources.items() if not is_synthetic(key)}
    models = {
        key: each.digest for name, each in lock.artifacts.items() if isinstance(key := artifact_id(name), ModelId)
    }
    digests = set()
    for model, use in _uses(done).items():
        made = {digest for key, digest in models.items() if replace(key, variant="") == model}
        weights = lock.sources.get(key_of(use.source))
        written = isinstance(use.source, SyntheticSource)
        if not any(use.begins(other) for other in needed) and (use.steps or written):
            digests |= made - fetched
        if weights is not None and written and use.source not in {other.source for other in needed}:
            digests.add(weights.digest)
    return drop(store, digests, apart_from=[lock_path(each.path) for each in study])


def _needed(loaded: LoadedManifest) -> Collection[_Use]:
    try:
        return _uses(loaded).values()
    except ManifestError:  # which will be said when it is its turn, and needs no model
        return ()


def _uses(loaded: LoadedManifest) -> dict[ModelId, _Use]:
    """The models of a manifest; of one that is made for each variant, what they have in common."""
    texts = [each for each in loaded.manifest.accuracy.values() if isinstance(each, TextWorkload)]
    compared = {each.against for each in texts if each.task == "kl-divergence"}
    found = {}
    named = resolve(loaded)
    for known in {each.name: each for each in (*named.values(), *references(named).values())}.values():
        variant = known.framework.tool_variant(RUN)
        for name, model in loaded.manifest.models.items():
            for quantization in {*model.quantizations, *compared}:
                source = known.source(model)
                steps = known.steps(name, source, quantization, variant)
                if not isinstance(steps, Skip):
                    framework = (known.framework.kind, known.release.sources)
                    found[ModelId(name, quantization, known.name)] = _Use(source, tuple(steps), framework)
    return found
