"""The Python API: what `meltrepro` does, as functions that the command line calls and notebooks import.

Functions take plain arguments, return frozen values and raise the errors of `meltrepro.errors`. They print nothing and ask
nothing: what happens meanwhile goes to a `sink` of steps (`meltrepro.steps`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for the types of what the table names
    from meltrepro.workflow.artifacts import *
    from meltrepro.workflow.beginnings import *
    from meltrepro.workflow.bisecting import *
    from meltrepro.workflow.calibrating import *
    from meltrepro.workflow.campaigns import *
    from meltrepro.workflow.galleries import *
    from meltrepro.workflow.gating import *
    from meltrepro.workflow.histories import *
    from meltrepro.workflow.labs import *
    from meltrepro.workflow.machine import *
    from meltrepro.workflow.manifests import *
    from meltrepro.workflow.publishing import *
    from meltrepro.workflow.records import *
    from meltrepro.workflow.replays import *
    from meltrepro.workflow.reports import *
    from meltrepro.workflow.studies import *
    from meltrepro.workflow.tables import *
    from meltrepro.workflow.tracking import *
    from meltrepro.workflow.tuning import *

_MODULES = {
    "artifacts": ("Build", "LockChange", "Planned", "Verification", "build", "lock", "plan", "verify"),
    "beginnings": ("Added", "Compared", "add_model", "begin"),
    "bisecting": ("Bisected", "bisect_releases"),
    "calibrating": ("Calibrated", "calibrate"),
    "campaigns": ("Ran", "run"),
    "gating": ("Gated", "gate"),
    "galleries": ("Gallery", "gallery"),
    "histories": ("Traced", "history"),
    "labs": ("lab_state", "release_device", "reserve_device", "run_on_lab"),
    "machine": ("Check", "check_machine", "collect_garbage", "repair_machine", "stop_engine"),
    "manifests": ("Validated", "validate", "write_quickstart"),
    "publishing": ("Draft", "PublishedEntry", "draft_entry", "write_entry"),
    "records": (
        "Checked",
        "Compared",
        "Exported",
        "Recorded",
        "list_campaigns",
        "check_bundle",
        "compare",
        "export_bundle",
        "import_bundle",
        "log_comparisons",
        "trace",
    ),
    "replays": ("Intent", "ReplayResult", "replay"),
    "reports": ("Reported", "conclusions", "findings", "log_findings", "report", "report_all"),
    "studies": ("Studied", "study"),
    "tables": ("LoadedCampaign", "export_table", "load"),
    "tracking": ("Browsable", "Logged", "Synced", "browse", "sync"),
    "tuning": ("Tuned", "TuningPlan", "plan_tuning", "tune"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Names are imported when they are used: a command line starts faster than its parts load."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
