"""Campaign folders read back: what was run, how each trial ended, which files belong to it.

Nothing is read before it is asked for, and nothing here writes or computes. A trial folder without an outcome never
happened; a failed attempt that was run again is kept on disk and is not among the trials.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar

from meltrepro import untrusted
from meltrepro.errors import ManifestError, RecordError, UsageError
from meltrepro.manifest.loader import parse_manifest
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.yaml.suggest import near_miss
from meltrepro.record import calibrations
from meltrepro.record import campaign as files
from meltrepro.record import trial as record
from meltrepro.record.calibrations import Calibration
from meltrepro.record.campaign import CampaignDocument, CellEntry
from meltrepro.record.events import read_trace
from meltrepro.record.ids import PART, CellId
from meltrepro.record.layout import TrialKind, cell_folder
from meltrepro.record.samples import Recording, read_samples
from meltrepro.record.trace import Trace
from meltrepro.record.trial import AnyRequest, ClockReadings, Outcome, ScoringRequest, StateSeen, TrialState
from meltrepro.untrusted import parse

_TRIAL = re.compile(r"([wrp])(\d{3,})")
_MOST_BITS = 64
_MOVE = "restore the file, or move the folder away"
_RESTORE = "restore the record, from its bundle or from MLflow, or measure again with: meltrepro run --new SPEC"
T = TypeVar("T")
_KINDS = {kind[0]: kind for kind in TrialKind}


@dataclass(frozen=True)
class TrialFolder:
    """One trial that ended."""

    folder: Path
    kind: TrialKind
    index: int
    outcome: Outcome
    entry: CellEntry
    """Its cell."""

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
        return self.request if isinstance(self.request, ScoringRequest) else None

    @cached_property
    def request(self) -> AnyRequest:
        """What was asked; raises `RecordError`."""
        return self._parsed(record.REQUEST, record.parse_request)

    @cached_property
    def device(self) -> Mapping[str, Any]:
        """What is known of its device; empty where nothing was recorded. Raises `RecordError`."""
        recorded = record.DEVICE in self.outcome.files or (self.folder / record.DEVICE).exists()
        return self._parsed(record.DEVICE, record.parse_device) if recorded else {}

    def before(self) -> StateSeen:
        """The device's state before it; empty where none was recorded. Raises `RecordError`."""
        return self._parsed(record.DEVICE, record.parse_state) if self.device else StateSeen()

    def trace(self) -> Trace:
        """Its events; raises `RecordError`, as the events of a failed trial often do."""
        path, digest = self.file(record.EVENTS), self.outcome.files.get(record.EVENTS)
        return _read_once(path, digest) if digest else read_trace(path)

    def recording(self) -> Recording | None:
        """What was sampled meanwhile; `None` where nothing was. Raises `RecordError`."""
        sampled = record.SAMPLES in self.outcome.files or (self.folder / record.SAMPLES).exists()
        return read_samples(self.file(record.SAMPLES)) if sampled else None

    def readings(self) -> ClockReadings | None:
        """How the clocks compared before and after; `None` where nobody looked. Raises `RecordError`."""
        if record.CLOCKS not in self.outcome.files:
            return None
        return self._parsed(record.CLOCKS, lambda content: parse(ClockReadings, content))

    def file(self, name: str) -> Path:
        """The path of one of its files, unchanged since the trial ended; raises `RecordError`."""
        return _unchanged(self.folder / name, self.outcome.files.get(name))

    def _parsed(self, name: str, parser: Callable[[bytes], T]) -> T:
        path = self.file(name)
        try:
            return parser(untrusted.read(path))
        except (OSError, ValueError) as error:
            raise RecordError(f"{path} is damaged: {error}", hint=_RESTORE) from error

    def verify(self) -> None:
        """Compare every file with its digest; raises `RecordError` for the first that differs."""
        for name in self.outcome.files:
            self.file(name)


TrialT = TypeVar("TrialT", bound=TrialFolder)


@dataclass(frozen=True)
class CellFolder:
    """One cell with the trials that it has so far."""

    entry: CellEntry
    folder: Path

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def trials(self) -> tuple[TrialFolder, ...]:
        """Every trial that ended, warm-ups first; raises `RecordError` for a damaged outcome."""
        return read_trials(self.entry, self.folder, TrialFolder)

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
    def expected(self) -> int | None:
        """How many repetitions the protocol asks for; `None` where the campaign does not say."""
        return self.entry.expected


@dataclass(frozen=True)
class CampaignFolder:
    """A campaign with all its cells."""

    folder: Path
    document: CampaignDocument

    @property
    def id(self) -> str:
        return self.document.id

    @property
    def finished(self) -> bool:
        """Whether every trial has ended."""
        return self.document.finished_wall_ns is not None

    @property
    def cells(self) -> Sequence[CellFolder]:
        """Its cells, in the order of the manifest."""
        return tuple(CellFolder(entry, cell_folder(self.folder, entry.id)) for entry in self.document.cells)

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

    def restricted(self, wanted: Callable[[str], bool]) -> Self:
        """The same campaign with those cells alone whose id is wanted."""
        cells = [entry for entry in self.document.cells if wanted(entry.id)]
        return replace(self, document=self.document.model_copy(update={"cells": cells}))

    def calibration(self, target: str) -> Calibration | None:
        """What was known of a target's steadiness when the campaign began; `None` for nothing. Raises `RecordError`."""
        name = f"{files.CALIBRATIONS}/{target}.json"
        if name not in self.document.files:
            return None
        path = self.file(name)
        try:
            return calibrations.read(path)
        except (OSError, ValueError) as error:
            raise RecordError(f"{path} is damaged: {str(error).splitlines()[0]}", hint=_RESTORE) from error

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


def read_folder(folder: Path) -> CampaignFolder:
    """The campaign in a folder; raises `RecordError` where there is none, its description is damaged, or anything in it is neither a plain file nor a folder."""
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
    if not PART.fullmatch(document.id):
        raise RecordError(f"{path} is damaged: {document.id!r} is no id of a campaign")
    for cell in document.cells:
        try:
            same = CellId.parse(cell.id) == cell.key
        except ValueError:
            same = False
        if not same:
            raise RecordError(f"{path} is damaged: {cell.id!r} is no id of its cell")
    if len({cell.id for cell in document.cells}) < len(document.cells):
        raise RecordError(f"{path} is damaged: it names a cell twice", hint=_MOVE)
    untrusted.files(folder)  # before a name in it is taken for a file of it
    return CampaignFolder(folder, document)


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
    near = None if matching else near_miss(wanted, [folder.name for folder in folders])
    meant = f"{near} " if near else ""
    raise UsageError(f"{problem} {wanted!r} in {records}", hint=f"{meant}name one of them, or `last`: {shown}")


def read_trials(entry: CellEntry, folder: Path, kind: type[TrialT]) -> tuple[TrialT, ...]:
    """The trials of a cell's folder, warm-ups first; raises `RecordError` for a damaged outcome."""
    paths = folder.iterdir() if folder.is_dir() else ()
    matches = [(path, match) for path in paths if (match := _TRIAL.fullmatch(path.name))]
    outcomes = [(path, match, read_outcome(path)) for path, match in matches]
    found = [
        kind(path, _KINDS[match[1]], int(match[2]), outcome, entry) for path, match, outcome in outcomes if outcome
    ]
    order = list(TrialKind)
    return tuple(sorted(found, key=lambda trial: (order.index(trial.kind), trial.index)))


def read_outcome(folder: Path) -> Outcome | None:
    """How a trial ended; `None` where it never did. Raises `RecordError` for an outcome that is damaged."""
    path = folder / record.OUTCOME
    try:
        return record.parse_outcome(untrusted.read(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise RecordError(f"{path} is damaged: {error}", hint=_RESTORE) from error


@lru_cache(maxsize=1)
def _read_once(path: Path, digest: str) -> Trace:
    """The events of this digest: what is computed of a trial asks for them many times in a row, and a long one has a million."""
    return read_trace(path)


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
