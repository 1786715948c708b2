"""`campaign.json`: what a campaign is, without its results, and the names of the files in a campaign folder.

Campaigns write these folders; tracking, replay and reports read them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from meltrepro.manifest.axes import base
from meltrepro.manifest.base import Address, Bytes, Label, Nanoseconds, Sha256, Strict, WithinFolder
from meltrepro.manifest.protocol import Order
from meltrepro.record import seal
from meltrepro.record.ids import RUN, BundleId, CellId
from meltrepro.record.outcomes import SkipKind, with_skip_kind
from meltrepro.untrusted import parse

CAMPAIGN, MANIFEST, LOCK, PLAN, JOURNAL = "campaign.json", "manifest.yaml", "lock.yaml", "plan.json", "journal.jsonl"
BUILDS, CELLS, CALIBRATIONS = "builds", "cells", "calibrations"
MOST_W = "device.most_w"
"""Parameter of a cell: the most that its device can draw, in watts."""
IMPORTED = "imported"
"""An empty file in the folder of a campaign that came from elsewhere; no part of the campaign, which is nobody's to go on with."""


class CellEntry(Strict):
    """A cell, with the identities of everything that it runs."""

    id: Label
    model: Label
    quantization: Label
    framework: Label
    release: Label
    commit: Label
    target: Label
    workload: Label
    isa: Label
    model_digest: Sha256
    model_bytes: Bytes
    bundle_digest: Sha256
    runner_digest: Sha256
    source_digest: Sha256
    """sha256 of the framework's source; of the digests of all of them, where there are several."""
    params: dict[str, str | int | float]
    synthetic: bool = False
    """Whether the weights are made up: fit for speed, memory and size, never for accuracy."""

    @property
    def key(self) -> CellId:
        return CellId(self.model, self.quantization, self.framework, self.target, self.workload)

    @property
    def framework_kind(self) -> str:
        return str(self.params.get("kind", base(self.framework)))

    @property
    def most_w(self) -> float | None:
        """The most that its device can draw, in watts; `None` where nothing was recorded of it."""
        value = self.params.get(MOST_W)
        return value if isinstance(value, float) else None

    @property
    def expected(self) -> int | None:
        """How many repetitions there are to be, at most; `None` where the campaign does not say."""
        value = self.params.get("protocol.repetitions")
        return value if isinstance(value, int) else None

    @property
    def bundle_id(self) -> str:
        """Id of the programs that it runs."""
        return str(BundleId(base(self.framework), RUN, self.isa))

    @property
    def work(self) -> tuple[object, ...]:
        """What its trials do, and on which device: the same for cells whose trials are the same."""
        asked, device = self.params.get("request_digest"), self.params.get("device.id")
        return (self.isa, self.model_digest, self.bundle_digest, self.runner_digest, asked, device)


class SkipEntry(Strict):
    """A cell that does not run, and why."""

    id: Annotated[str, AfterValidator(lambda text: str(CellId.parse(text)))]
    kind: SkipKind
    reason: str

    _of_0_1 = model_validator(mode="before")(with_skip_kind)

    @property
    def key(self) -> CellId:
        return CellId.parse(self.id)


class TrackingEntry(Strict):
    """Where results are to be logged; never holds a password."""

    experiment: str
    uri: Address | None
    enabled: bool


class CampaignDocument(Strict):
    """The whole file."""

    format: Literal[1] = 1
    id: str
    name: str
    description: str
    started_wall_ns: Nanoseconds
    finished_wall_ns: Nanoseconds | None = None
    manifest_digest: Sha256
    plan_digest: Sha256
    """Of the plan and of every request that follows from it."""
    meltrepro_version: str
    virtual: bool
    synthetic: bool = False
    """Whether any cell's weights are made up."""
    tracking: TrackingEntry
    engine: str
    only: list[str]
    seed: int
    order: Order
    cells: list[CellEntry]
    skipped: list[SkipEntry]
    files: dict[WithinFolder, Sha256] = Field(
        default_factory=dict, description="sha256 of what the folder held from its beginning, by relative path."
    )
    seal: Sha256 | None = Field(None, description="sha256 of everything else in this file, canonical JSON.")

    @property
    def waiting(self) -> frozenset[str]:
        """The cells, by id, that were skipped for their devices alone: the campaign goes on with them when those are there."""
        return frozenset(skip.id for skip in self.skipped if skip.kind.of_device)

    def same_work(self, other: CampaignDocument) -> bool:
        """Whether the trials of one could as well belong to the other: cells that only one has wait in the other."""
        if (self.name, self.manifest_digest, self.engine) != (other.name, other.manifest_digest, other.engine):
            return False
        mine, theirs = ({cell.id: cell.work for cell in each.cells} for each in (self, other))
        return (
            all(mine[name] == theirs[name] for name in mine.keys() & theirs.keys())
            and mine.keys() - theirs.keys() <= other.waiting
            and theirs.keys() - mine.keys() <= self.waiting
        )


def campaign_bytes(document: CampaignDocument) -> bytes:
    """The content of `campaign.json`, sealed."""
    return seal.sealed(document.model_dump(mode="json"))


def parse_campaign(content: bytes) -> CampaignDocument:
    """The document in a file's content; raises `ValueError` for one that is damaged or was changed."""
    document = parse(CampaignDocument, content)
    seal.check(content, document.seal)
    return document
