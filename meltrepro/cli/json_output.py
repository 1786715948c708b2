"""The only printer of JSON but for errors, and what each command prints as such."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import typer
from pydantic import TypeAdapter

from meltrepro.cli.bundle_documents import BundleDocument, CheckedBundleDocument, ImportedBundleDocument
from meltrepro.cli.documents import (
    ArtifactDocument,
    CheckDocument,
    CleanDocument,
    DeviceRow,
    Document,
    ErrorDocument,
    FindingsDocument,
    GcDocument,
    LabDocument,
    LabDownDocument,
    LabHostsDocument,
    LockDocument,
    ModelDocument,
    PlanDocument,
    ProgramDocument,
    RecordedDocument,
    ReportDocument,
    RestoreDocument,
    RunDocument,
    ShowDocument,
    StudyResultDocument,
    SyncDocument,
    UiDocument,
    ValidateDocument,
)
from meltrepro.cli.publish_documents import GalleryDocument, PublishDocument
from meltrepro.cli.tune_documents import TuneDocument, TunePlanDocument


@cache
def types() -> Mapping[str, Any]:
    """What each command prints, by the command's words joined with `-`, and what any says in place of it (`error`).

    Imports all that the models are made of.
    """
    from meltrepro.cli.bisect_documents import BisectDocument
    from meltrepro.history.trends import History
    from meltrepro.record.calibrations import Calibration
    from meltrepro.record.capabilities import Capabilities
    from meltrepro.replay.compare import Comparison
    from meltrepro.replay.gate import GateResult
    from meltrepro.replay.verify import Verified
    from meltrepro.report.tidy import MetricRow, TokenRow, TrialRow

    return {
        "error": ErrorDocument,
        "validate": ValidateDocument,
        "plan": PlanDocument,
        "model-add": ModelDocument,
        "lock": LockDocument,
        "build": list[ArtifactDocument],
        "verify": list[Verified],
        "run": RunDocument,
        "study": StudyResultDocument,
        "study-plans": list[PlanDocument],
        "calibrate": Calibration,
        "tune": TuneDocument,
        "tune-plan": TunePlanDocument,
        "show": ShowDocument,
        "show-list": list[RecordedDocument],
        "sync": SyncDocument,
        "ui": UiDocument,
        "findings": FindingsDocument,
        "compare": list[Comparison],
        "gate": GateResult,
        "bisect": BisectDocument,
        "history": History,
        "report": ReportDocument,
        "export-metrics": list[MetricRow],
        "export-trials": list[TrialRow],
        "export-tokens": list[TokenRow],
        "trace": list[Path],
        "replay": _replay_document(),
        "bundle-export": BundleDocument,
        "bundle-verify": CheckedBundleDocument,
        "bundle-import": ImportedBundleDocument,
        "publish": PublishDocument,
        "gallery": GalleryDocument,
        "devices": list[DeviceRow],
        "devices-probe": Capabilities,
        "devices-restore": RestoreDocument,
        "devices-clean": CleanDocument,
        "lab-up": LabDocument,
        "lab-status": LabDocument,
        "lab-down": LabDownDocument,
        "lab-hosts": LabHostsDocument,
        "gc": GcDocument,
        "doctor": list[CheckDocument],
    }


def _replay_document() -> Any:
    from meltrepro.replay.compare import CellComparison

    class ReplayDocument(Document):
        """Whether a campaign was reproduced: the verdict, and the comparison that it rests on."""

        verdict: str
        """REPRODUCED, DIFFERS or INCONCLUSIVE."""
        reasons: list[str]
        """Why."""
        not_repeated: dict[str, str]
        """Cells that were not repeated, and why."""
        programs: list[ProgramDocument]
        """Programs that were run."""
        first: str
        """Id of the recorded campaign."""
        second: str
        """Id of the replay's own."""
        cells: list[CellComparison]
        """Cell by cell."""
        only_first: list[str]
        """Cells that the replay lacks."""
        only_second: list[str]
        """Cells that the record lacks."""
        margin: float
        """Ratios from 1 / (1 + margin) to 1 + margin count as the same."""

    return ReplayDocument


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(types()[name])


def json_text(name: str, document: object) -> str:
    """What a command has to say as JSON, by the model that is published for it; what is not finite is `null`."""
    return _adapter(name).dump_json(document, indent=2).decode() + "\n"


def print_json(name: str, document: object) -> None:
    """Print it."""
    typer.echo(json_text(name, document), nl=False)
