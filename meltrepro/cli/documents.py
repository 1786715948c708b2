"""What commands print with `--json`: one model a command, published as JSON Schema in `docs/schema/`.

A command makes its document of what `workflow` returned and hands it to `print_json` of `json_output`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from meltrepro.errors import Problem


class Document(BaseModel):
    """Plain data; a key whose value does not apply may be absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True)


class ErrorDocument(Document):
    """Why a command with `--json` failed: the last line of what it writes to stderr."""

    error: str
    """Name of the error, as the table of exit codes has it."""
    exit_code: int
    """The command's exit code."""
    message: str
    """What is wrong."""
    hint: str | None
    """What to do next."""
    problems: list[Problem]
    """Where in which files, if a file is what is wrong."""


class ManifestDocument(Document):
    """A manifest that is well."""

    path: Path
    """Where it is."""
    name: str
    """Its name."""
    models: list[str]
    """Names of its models."""
    frameworks: list[str]
    """Names of its frameworks."""
    targets: list[str]
    """Names of its targets."""
    workloads: list[str]
    """Names of its workloads."""


class ValidateDocument(Document):
    """What `meltrepro validate` found."""

    good: list[ManifestDocument]
    """The manifests that are well."""
    warnings: list[str]
    """What is allowed and odd."""
    problems: list[Problem]
    """What is wrong with the others."""


class PlanDocument(Document):
    """What would run, and what is to be fetched and built for it."""

    format: Literal[1]
    """Version of this document."""
    name: str
    """Name of the manifest."""
    cells: list[dict[str, JsonValue]]
    """The cells that run: names, variant, bytes of memory at the peak, options of the framework."""
    skipped: list[dict[str, JsonValue]]
    """The cells that do not, each with a kind and a reason."""
    bundles: list[dict[str, JsonValue]]
    """Bundles of programs, and whether the store has them."""
    models: list[dict[str, JsonValue]]
    """Models, and whether the store has them."""
    logits: list[dict[str, JsonValue]] = []
    """Logits that scores are compared with, and whether the store has them."""
    estimate: dict[str, int | None]
    """Bytes to download, bytes of disk, bytes free; `null` for what is not known yet."""
    data: list[dict[str, JsonValue]] = []
    """Data of workloads that are scored."""
    devices: list[dict[str, JsonValue]]
    """The targets, whether each is there, and what it was taken for."""
    warnings: list[str]
    """What is allowed and odd."""


class LockDocument(Document):
    """A lock after `meltrepro lock`."""

    path: Path
    """Where it is."""
    changed: bool
    """Whether it is, or with `--check` would be, another than before."""
    difference: list[str]
    """Lines that are new and gone, as `diff` shows them."""
    names: dict[str, dict[str, str | None]] = {}
    """Repositories of the hub of which the manifest names no commit: commit and licence of each."""


class ModelDocument(Document):
    """A model that was written into a manifest."""

    path: Path
    """The manifest."""
    name: str
    """What the manifest calls it."""
    model: dict[str, JsonValue]
    """Its keys, as they were written."""
    revision: str | None
    """The newest commit of one on the hub, which `lock` pins."""


class ArtifactDocument(Document):
    """An artifact that was built or reused."""

    id: str
    """Its name in locks."""
    kind: str
    """Bundle, model or logits."""
    digest: str
    """sha256 of its bytes."""
    size: int
    """In bytes."""
    reused: bool
    """Whether it was here before."""
    path: Path
    """Where it lies in the store."""


class LoggedDocument(Document):
    """What became of logging a campaign to MLflow."""

    uri: str | None
    """Where to, without any password."""
    problem: str | None
    """Why it is not there; `meltrepro sync` logs it later."""


class FailureDocument(Document):
    """A trial that failed."""

    trial: str
    """Cell and trial."""
    kind: str
    """What it failed of, in a word."""
    reason: str
    """What the record says of it, in one line."""


class RunDocument(Document):
    """A campaign after `meltrepro run`; its results are in `meltrepro show CAMPAIGN --json`."""

    campaign: str
    """Its id."""
    folder: Path
    """Where its records are."""
    ok: int
    """Trials that ended well."""
    failed: list[FailureDocument]
    """Those that did not."""
    earlier: int
    """How many of them were done before this run."""
    left: int
    """Trials that were not run, because the first failure was to end the campaign."""
    missing: dict[str, str]
    """Targets that could not be measured, and why."""
    logged: LoggedDocument | None
    """`null` where it was not to be logged."""


class ReportDocument(Document):
    """A report on disk."""

    page: Path
    """The page."""
    files: list[str]
    """Its files, by path below the page's folder."""
    campaigns: list[str]
    """Ids of the campaigns that it is of."""
    compared: bool
    """Whether it was there before, and holds the same bytes as one that is made today."""
    runs: int | None
    """How many MLflow runs took it; `null` where it was not to be logged."""
    problem: str | None
    """Why it could not be logged."""


class StudyEntryDocument(Document):
    """A manifest of a study."""

    manifest: str
    """Name of its file."""
    campaign: str | None
    """Id of its campaign; `null` where there is none."""
    reason: str | None
    """Why there is none."""


class StudyResultDocument(Document):
    """A study after its last manifest."""

    path: Path
    """Its `study.json`."""
    entries: list[StudyEntryDocument]
    """Manifest by manifest."""
    report: ReportDocument
    """The report of all of them."""


class FigureDocument(Document):
    """A metric or score of a cell."""

    metric: str
    """Name as in docs/metrics.md, or that of a score."""
    unit: str | None
    """Unit; a score has none."""
    median: float | None
    """Median over the repetitions that are believed; `null` where it does not exist."""
    low: float | None
    """Lower end of its interval."""
    high: float | None
    """Upper end of its interval."""
    n: int
    """How many repetitions that is of."""
    reason: str | None
    """Why there is none."""


class AnswerDocument(Document):
    """An answer in a model's own words."""

    question: int
    """Number of the question in the data set, from 1."""
    right: bool
    """Whether it is right."""
    strict: bool | None
    """Whether it is by the strict rule too; `null` of tasks that have none."""
    expected: str
    """The right number, or the rules that are to be kept."""
    found: str | None
    """The number in it, or why rules are broken; `null` where there is no number, or no such rule."""
    answer: str
    """The whole answer, without its thinking."""


class CellDocument(Document):
    """What became of a cell."""

    cell: str
    """Its id."""
    validity: Literal["VALID", "INVALID", "FAILED", "SKIPPED"]
    """Whether its figures may be believed, and what became of it where there are none."""
    reason: str | None
    """Why it is not VALID."""
    asked: int | None
    """How many repetitions there should be."""
    exclusions: list[str]
    """Repetitions that are left out, and why."""
    remarks: list[str]
    """What a reader of its figures must know."""
    virtual: bool
    """Whether the device is made up."""
    synthetic: bool
    """Whether the weights are made up."""
    metrics: list[FigureDocument]
    """Metrics and scores."""
    answers: list[AnswerDocument] = []
    """With `--answers`: what the model answered in its own words, where that is checked."""


class ShowDocument(Document):
    """The results of a campaign."""

    campaign: str
    """Its id."""
    name: str
    """Name of its manifest."""
    folder: Path
    """Where its records are."""
    finished: bool
    """Whether every trial has ended."""
    cells: list[CellDocument]
    """Its cells, those that were skipped too."""


class RecordedDocument(Document):
    """A campaign on this machine; of a damaged one only what is wrong with it."""

    id: str
    """Its id."""
    folder: Path
    """Where its records are."""
    damaged: str | None = None
    """What is wrong with it."""
    finished: bool | None = None
    """Whether every trial has ended."""
    cells: int | None = None
    """How many it has."""
    trials: int | None = None
    """How many have ended."""
    virtual: bool | None = None
    """Whether a device of it is made up."""
    synthetic: bool | None = None
    """Whether weights of it are made up."""


class TrackedDocument(Document):
    """A campaign that was logged."""

    campaign: str
    """Its id."""
    uri: str
    """Where to, without any password."""
    experiment_id: str
    """MLflow's id of the experiment."""
    run_id: str
    """MLflow's id of the campaign's run."""
    cells: dict[str, str]
    """MLflow's ids of the cells' runs."""
    complete: bool
    """Whether nothing is left to log."""


class SyncDocument(Document):
    """What `meltrepro sync` came to."""

    campaigns: int
    """How many were looked at."""
    logged: list[TrackedDocument]
    """Those that were logged now."""
    owed: list[str]
    """What is not logged because only the record names the place."""
    unwanted: list[str]
    """Ids of those whose user did not want it."""


class UiDocument(Document):
    """Where MLflow is; printed when it answers, and the command goes on until it is stopped."""

    url: str
    """MLflow's address."""
    campaign: str | None
    """Id of the campaign; `null` where there is none."""
    experiment_id: str | None
    """MLflow's id of its experiment; `null` where it is not logged."""
    link: str | None
    """The page that puts its cells side by side."""


class FindingsDocument(Document):
    """What campaigns say of a study's claims; what stands in a finding is the study's."""

    format: Literal[1]
    """Version of this document."""
    campaigns: dict[str, str]
    """Names of the campaigns by their ids."""
    tally: str
    """How many claims hold, in a line."""
    invalid_cells: int
    """Cells that are left out."""
    findings: list[dict[str, JsonValue]]
    """Claim by claim: verdict, reason, numbers."""
    scores: list[dict[str, str]]
    """Scores that cannot be right."""


class ProgramDocument(Document):
    """A program that a replay ran."""

    name: str
    """Its name in locks."""
    sha256: str
    """Of its bytes."""
    built_here: bool
    """Whether this machine has built the same bytes."""


class GapDocument(Document):
    """Bytes that a bundle names, that it does not hold, and that are not here either."""

    name: str
    """As locks call them."""
    digest: str
    """Their sha256."""
    size: int | None
    """In bytes."""
    why: str
    """Why they are not in it."""
    remedy: str
    """How to get them."""
    fetched: bool
    """Whether a replay can get them by itself."""


class DeviceRow(Document):
    """A device that can be seen from here."""

    kind: str
    """Kind of target."""
    serial: str
    """What commands call it."""
    state: str
    """Whether it can be used."""
    device: str
    """What it is."""
    todo: str | None
    """What somebody has to do first."""


class RestoreDocument(Document):
    """What was put in order on a device."""

    strays: int
    """Programs that were still running."""
    values: dict[str, str]
    """Settings that were put back, with their values."""


class CleanDocument(Document):
    """What was removed from a device."""

    freed_bytes: int
    """In bytes."""


class LabDocument(Document):
    """The virtual lab."""

    up: bool
    """Whether it runs."""
    pid: int | None
    """Its supervisor."""
    devices: dict[str, dict[str, JsonValue]]
    """How each device is reached."""
    missing: dict[str, str]
    """What could not be had, and why."""
    remarks: dict[str, str]
    """What is not quite as it should be, by device."""
    dead: list[str]
    """Devices of which a process has ended; `lab up` starts them anew."""


class LabDeviceDocument(BaseModel):
    """A device of a lab of many hosts."""

    id: str
    node: str
    """The host that it is plugged into."""
    kind: str
    model: str
    there: bool
    """Whether its node is there."""
    running: str | None
    """Campaign and trial that it is at."""
    queue: int
    """Campaigns that wait for it."""
    quarantined: str | None
    """Why it is left alone."""
    reserved_for: str | None
    reserved_until_wall_s: float | None


class LabCampaignDocument(BaseModel):
    """A campaign on a lab of many hosts."""

    id: str
    who: str
    priority: int
    done: int
    total: int
    """Trials."""
    eta_s: float | None
    """How long it will still take; null where nobody can tell yet."""


class LabHostsDocument(Document):
    """A lab of many hosts."""

    devices: list[LabDeviceDocument]
    campaigns: list[LabCampaignDocument]


class LabDownDocument(Document):
    """What `meltrepro lab down` did."""

    was_up: bool
    """Whether there was a lab to end."""


class RemovedDocument(Document):
    """What goes of one kind."""

    kind: str
    """Kind of thing."""
    count: int
    """How many."""
    bytes: int
    """Their size on the disk."""


class GcDocument(Document):
    """What `meltrepro gc` removed, or would."""

    store: Path
    """The store."""
    dry_run: bool
    """Whether nothing was removed."""
    removed: list[RemovedDocument]
    """Kind by kind."""
    kept_bytes: int
    """What stays."""
    locked_bytes: int
    """Of that, what lock files name."""


class CheckDocument(Document):
    """Something that this machine has or lacks."""

    name: str
    """What it is."""
    state: str
    """`ok`, `missing` or `optional`."""
    found: str
    """What is there."""
    purpose: str
    """What it is for."""
    remedy: str
    """How to get it."""
