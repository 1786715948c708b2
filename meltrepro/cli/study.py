"""`meltrepro study`: several manifests, one after the other, and one report of all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.cli.common import EngineOption, SetOption
from meltrepro.errors import (
    DeviceBusy,
    ModelError,
    PlanError,
    SourceError,
    StoreError,
    TargetError,
    UsageError,
)
from meltrepro.record.study import STUDY, StudyDocument, StudyEntry, study_bytes
from meltrepro.words import counted, plural
from meltrepro.workflow.manifests import manifests_of, read_manifest

if TYPE_CHECKING:
    from meltrepro.cli.run import Options
    from meltrepro.manifest.loader import LoadedManifest
    from meltrepro.settings import Settings

NOT_HERE = (PlanError, TargetError, SourceError, ModelError)
"""What says of a manifest that this machine cannot run it now; the rest of a study goes on, and the report says so."""


def command(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="Manifests, and folders of manifests.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the study; that of the first folder or manifest if absent.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the report; beside the study if absent.")
    ] = None,
    set_: SetOption = [],
    engine: EngineOption = "docker",
    drop_models: Annotated[
        bool,
        typer.Option(
            "--drop-models",
            help="Remove models from the store as soon as no manifest of the study needs them any more.",
        ),
    ] = False,
    new: Annotated[bool, typer.Option("--new", help="Measure again what has been measured.")] = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log the results to MLflow.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show results alone, no progress.")] = False,
) -> None:
    """Run manifests one after the other, and make one report of all of them.

    Interrupt it whenever you like; the same command goes on. A campaign that has ended is not measured again, and a
    manifest that this machine cannot run is left out, with the reason in the report.

    Models that do not fit the store's disk together can be measured one after the other, where each has a manifest of
    its own: --drop-models. What was fetched stays, and so does what locks of other manifests name.
    """
    from meltrepro.atomic import write_bytes
    from meltrepro.cli.findings import conclude
    from meltrepro.cli.report import make_report
    from meltrepro.cli.run import Options

    settings = settings_module.load()
    loaded = [read_manifest(path, set_) for path in manifests_of(specs)]
    study = name or (specs[0].resolve().name if specs[0].is_dir() else specs[0].stem)
    folder = settings.studies / _named(study).name
    entries: list[StudyEntry] = []
    clock = Clock([0.0 if not new and _finished(manifest, settings) else _effort(manifest) for manifest in loaded])
    for number, manifest in enumerate(loaded):
        _say(f"study {study}: {number + 1} of {len(loaded)}, {manifest.path.name}{clock.left()}", quiet)
        entry = _run(manifest, set_, Options(engine, new, track=track, quiet=quiet), settings)
        clock.passed(number, ran=entry.ran)
        entries.append(entry.entry)
        if drop_models and entry.entry.campaign:
            _drop(loaded, number, settings.records / entry.entry.campaign, settings, quiet)
        write_bytes(folder / STUDY, study_bytes(StudyDocument(name=study, entries=entries)))
    make_report([str(folder / STUDY)], output or folder / "report", track=track)
    for text, _ in conclude([settings.records / entry.campaign for entry in entries if entry.campaign], study):
        typer.echo(text)


@dataclass(frozen=True)
class Ran:
    """What became of a manifest."""

    entry: StudyEntry
    ran: bool
    """Whether anything was measured now."""


@dataclass
class Clock:
    """How long the rest will take, by what has been measured."""

    efforts: Sequence[float]
    """By manifest; 0 for those that were measured before."""
    measured: float = 0.0
    spent_s: float = 0.0
    left_out: set[int] = field(default_factory=set)
    since_s: float = field(default_factory=time.monotonic)

    def passed(self, number: int, *, ran: bool) -> None:
        """A manifest has been dealt with."""
        now = time.monotonic()
        if ran:
            self.measured += self.efforts[number]
            self.spent_s += now - self.since_s
        self.left_out.add(number)
        self.since_s = now

    def left(self) -> str:
        """`, about 3:07 min left`; nothing before anything was measured."""
        from meltrepro.cli.console import duration

        if not self.measured:
            return ""
        rest = sum(effort for number, effort in enumerate(self.efforts) if number not in self.left_out)
        return f", about {duration(self.spent_s * rest / self.measured)} left"


def _run(manifest: LoadedManifest, set_: Sequence[str], options: Options, settings: Settings) -> Ran:
    """Run a manifest, unless that was done or cannot be done here."""
    from meltrepro.cli.run import run_manifest

    name = manifest.path.name
    done = None if options.new else _finished(manifest, settings)
    if done is not None:
        _say(f"measured already: {done.name}", options.quiet)
        return Ran(StudyEntry(manifest=name, campaign=done.name), ran=False)
    try:
        result = run_manifest(manifest.path, set_, (), options)
    except DeviceBusy:
        raise  # that passes; the same command goes on when it has
    except NOT_HERE as error:
        _say(f"left out: {error.one_line}", quiet=False)
        return Ran(StudyEntry(manifest=name, campaign=None, reason=error.message), ran=False)
    if result.tally.failed:
        _say(f"{counted(len(result.tally.failed), 'trial')} failed; the report says which", quiet=False)
    return Ran(StudyEntry(manifest=name, campaign=result.folder.name), ran=True)


def _finished(manifest: LoadedManifest, settings: Settings) -> Path | None:
    """The campaign that has measured this manifest, if one has."""
    from meltrepro.campaign.finished import finished_campaign
    from meltrepro.manifest.pins import prompt_digests

    return finished_campaign(settings.records, manifest.manifest, prompt_digests(manifest))


def _drop(loaded: Sequence[LoadedManifest], number: int, campaign: Path, settings: Settings, quiet: bool) -> None:
    """Make room for the next manifests; where another process uses the store, nothing goes."""
    from meltrepro.record.campaign import LOCK
    from meltrepro.store.cas import Store
    from meltrepro.words import readable
    from meltrepro.workflow.drop_models import drop_models

    try:
        dropped = drop_models(
            loaded[number], campaign / LOCK, loaded[number + 1 :], loaded, Store(settings.cache / "store")
        )
    except StoreError as error:
        _say(f"no models are dropped: {error.one_line}", quiet=False)
        return
    if dropped.freed_bytes:
        _say(f"dropped models that are measured: {readable(dropped.freed_bytes)}", quiet)
    if dropped.kept:
        kept = len(dropped.kept)
        _say(f"{counted(kept, 'model')} {plural(kept, 'stays', 'stay')}: named by locks of other manifests", quiet)


def _effort(loaded: LoadedManifest) -> float:
    from meltrepro.manifest.prompts import load_conversations
    from meltrepro.workflow.effort import effort

    turns = {
        name: sum(map(len, load_conversations(workload, loaded.path.parent)))
        for name, workload in loaded.manifest.conversations.items()
    }
    return effort(loaded.manifest, turns)


def _named(name: str) -> StudyDocument:
    """A study of this name; raises `UsageError` for a name that cannot be a folder's."""
    try:
        return StudyDocument(name=name, entries=[])
    except ValueError as error:
        raise UsageError(
            f"--name: {name!r} is no name", hint="letters, digits, dot, dash and underscore, up to 64"
        ) from error


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        typer.echo(text, err=True)
