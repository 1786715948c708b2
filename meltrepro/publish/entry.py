"""Entries: public records of campaigns, small enough for a mail or a pull request, and what is in one.

An entry is a list of what may be known: nothing gets into one that has no field here. It holds digests of everything that
ran, and never a prompt, an answer, the name of a target or the id of a device.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from meltrepro.manifest.base import Bytes, Count, Sha256, Strict
from meltrepro.record import seal
from meltrepro.untrusted import parse

MOST_BYTES = 100_000
"""Of an entry's file."""
_UNSEEN = r"\x00-\x1f\x7f-\x9f"
Line = Annotated[str, StringConstraints(min_length=1, max_length=160, pattern=f"^[^{_UNSEEN}]*$")]
"""A short text on one line."""
CellPart = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=-]{0,199}$")]
"""A part of a cell's id."""
Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.:-]{0,99}$")]
Setting = bool | int | float | Line
Link = Annotated[str, StringConstraints(max_length=1000, pattern=r"^https://[!-~]+$")]
Verdict = Literal["REPRODUCED", "DIFFERS", "INCONCLUSIVE"]
CellVerdict = Literal["VALID", "INVALID", "FAILED", "SKIPPED"]


class PublicFigure(Strict):
    """A metric of a cell over the repetitions that are believed, in the unit that its name ends with."""

    median: float
    low: float = Field(description="Lower end of the interval (docs/protocol.md).")
    high: float
    n: Count = Field(description="Repetitions with a value.")


class PublicScore(Strict):
    """A score of a cell."""

    value: float
    stderr: float | None = None
    n: Count = Field(description="Questions, or windows of a text.")
    right: Count | None = Field(None, description="Right answers; absent where none are counted.")


class PublicDigests(Strict):
    """sha256 of everything that a cell ran."""

    model: Sha256
    bundle: Sha256
    runner: Sha256
    source: Sha256
    request: Sha256 | None = Field(None, description="What each repetition was asked, prompts included.")


class PublicRepetitions(Strict):
    """What became of a cell's repetitions."""

    asked: Count
    believed: Count
    invalid: Count
    failed: Count


class MetricReplay(Strict):
    """Whether a metric came out again."""

    verdict: Verdict
    ratio: float = Field(description="Repeated by recorded.")
    low: float | None = Field(None, description="Lower end of the ratio's interval; absent where there is none yet.")
    high: float | None = None


class CellReplay(Strict):
    """Whether a cell came out again."""

    number: Count = Field(description="Of the cell in the record that was repeated.")
    verdict: Verdict
    same_tokens: bool | None = Field(None, description="Whether the first repetitions generated the same tokens.")
    metrics: dict[Key, MetricReplay] = Field(default_factory=dict)


class PublicCell(Strict):
    """A cell, without the name of its target."""

    number: Annotated[int, Field(ge=1, lt=10**6)] = Field(description="Which one of its campaign it is, from 1.")
    device: Count = Field(description="Place of its device in the entry's list, from 0.")
    model: CellPart
    source: Line | None = Field(None, description="Where the weights come from, if that is a public place.")
    quantization: CellPart
    engine: CellPart = Field(description="Kind of its framework, with the options that other cells have otherwise.")
    release: Line
    commit: Line | None = None
    variant: Line = Field(description="What its programs were built for.")
    workload: CellPart
    synthetic: bool = Field(False, description="Whether the weights are made up.")
    accelerated: bool = Field(False, description="Whether layers ran on a GPU.")
    software_device: bool = Field(False, description="Whether that is a driver on the CPU.")
    verdict: CellVerdict
    causes: list[Key] = Field(default_factory=list, description="Why it is not VALID, by kind.")
    repetitions: PublicRepetitions
    metrics: dict[Key, PublicFigure] = Field(default_factory=dict)
    scores: dict[Key, PublicScore] = Field(default_factory=dict)
    settings: dict[Key, Setting] = Field(
        default_factory=dict, description="What was asked for, where not all cells have it alike."
    )
    effective: dict[Key, Setting] = Field(
        default_factory=dict,
        description="What was in effect, as engine and kernel say, where not all cells have it alike.",
    )
    model_bytes: Bytes
    digests: PublicDigests
    replay: CellReplay | None = None


class PublicDevice(Strict):
    """A device, without its name and its id."""

    kind: Key
    model: Line
    virtual: bool = Field(False, description="Whether it is made up: its figures say nothing of real ones.")
    facts: dict[Key, Setting] = Field(default_factory=dict)
    calibration: dict[Key, JsonValue] = Field(
        default_factory=dict, description="What its sensors were found to be worth, as its record has it."
    )


class PublicBundle(Strict):
    """The file that repeats the campaign."""

    sha256: Sha256
    bytes: Bytes
    url: Link | None = Field(None, description="Where it can be had.")


class PublicReplay(Strict):
    """Of a campaign that repeats another one."""

    record: Sha256 = Field(description="Of the record that was repeated.")
    verdict: Verdict
    margin: float = Field(gt=0, lt=1, description="Largest relative difference that counted as the same.")


class PublicCampaign(Strict):
    """How a campaign was run."""

    record: Sha256 = Field(
        description="Over its description and the outcomes of its trials, which hold all other digests."
    )
    manifest: Sha256
    plan: Sha256
    lock: Sha256
    meltrepro: Line = Field(description="Version that measured.")
    measured: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")] = Field(description="Day, UTC.")
    build_engine: Line
    order: Line
    seed: Count
    study: Key | None = None
    finished: bool


class PublicEntry(Strict):
    """The whole file."""

    entry: Literal[1] = Field(1, description="Version of the format.")
    meltrepro: Line = Field(description="Version that wrote it.")
    campaign: PublicCampaign
    replay: PublicReplay | None = None
    bundle: PublicBundle | None = None
    devices: list[PublicDevice] = Field(max_length=1000)
    settings: dict[Key, Setting] = Field(default_factory=dict, description="What all cells were asked for.")
    effective: dict[Key, Setting] = Field(default_factory=dict, description="What was in effect in all cells.")
    cells: list[PublicCell] = Field(min_length=1, max_length=1000)
    seal: Sha256 | None = Field(None, description="sha256 of everything else in the file, canonical JSON.")

    @property
    def id(self) -> str:
        """What it is called by: the first digits of its record's digest."""
        return self.campaign.record[:12]


def entry_bytes(entry: PublicEntry) -> bytes:
    """The content of an entry's file, sealed."""
    return seal.sealed(entry.model_dump(mode="json", exclude_none=True, exclude={"seal"}))


def parse_entry(content: bytes) -> PublicEntry:
    """The entry in a file's content; raises `ValueError` for one that is damaged or was changed."""
    entry = parse(PublicEntry, content)
    if entry.seal is None:
        raise ValueError("its seal is missing")
    seal.check(content, entry.seal)
    numbers = [cell.number for cell in entry.cells]
    if len(set(numbers)) < len(numbers):
        raise ValueError("a number of a cell stands there twice")
    if any(cell.device >= len(entry.devices) for cell in entry.cells):
        raise ValueError("a cell's device is not in the list")
    return entry
