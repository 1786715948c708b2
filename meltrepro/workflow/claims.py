"""Claims of studies, decided from the records of campaigns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from meltrepro import settings as settings_module
from meltrepro.errors import UsageError
from meltrepro.measure.records import read_campaign
from meltrepro.record.reader import find_campaign
from meltrepro.record.study import campaigns_meant
from meltrepro.registry import STUDIES
from meltrepro.report.read import read_results
from meltrepro.report.results import Results
from meltrepro.settings import Settings
from meltrepro.studies.base import Decided, Study, studies_of


def findings(
    campaigns: Sequence[str] = ("last",),
    *,
    study: str | None = None,
    virtual_only: bool = False,
    with_invalid: bool = False,
    settings: Settings | None = None,
) -> Decided:
    """The claims of the study that campaigns belong to, by the records of its campaigns; or of `study`, by all of them.

    Raises `UsageError` where they belong to none or to several, `RecordError`.
    """
    settings = settings or settings_module.load()
    folders = dict.fromkeys(
        find_campaign(settings.records, name) for name in campaigns_meant(settings.studies, campaigns)
    )
    results = read_results([read_campaign(folder, with_invalid=with_invalid) for folder in folders])
    meant, own = _study(study, results)
    return meant.decide(own, virtual_only=virtual_only)


def conclusions(folders: Sequence[Path]) -> Mapping[str, Decided]:
    """By name of each study that campaigns belong to, what they say of its claims; raises `RecordError`."""
    results = read_results([read_campaign(folder) for folder in folders])
    return {study.name: study.decide(own) for study, own in studies_of(results)}


def _study(name: str | None, results: Results) -> tuple[Study, Results]:
    known = ", ".join(STUDIES.kinds())
    if name is not None:
        if not STUDIES.has(name):
            raise UsageError(f"--study: there is no study {name!r}", hint=f"there are: {known}")
        return STUDIES.get(name), results
    found = list(studies_of(results))
    if not found:
        names = ", ".join(results.names) or "no campaign"
        raise UsageError(
            f"{names}: belongs to no study, so that there are no claims to decide",
            hint=f"a manifest names its study (`study: NAME`); to decide the claims of one all the same: --study, which knows {known}",
        )
    if len(found) > 1:
        raise UsageError(
            f"these campaigns belong to several studies: {', '.join(one.name for one, _ in found)}",
            hint="name one with --study, or the campaigns of one",
        )
    return found[0]
