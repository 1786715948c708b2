"""`meltrepro findings`: which claims of a study hold on its campaigns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.errors import TrackingError, UsageError

if TYPE_CHECKING:
    from meltrepro.report.results import Results
    from meltrepro.studies.base import Study
    from meltrepro.track.places import Place

ARTIFACT = "findings.json"
"""Name among the artifacts of a campaign in MLflow."""


def command(
    campaigns: Annotated[
        list[str], typer.Argument(metavar="[CAMPAIGN...]", help="Studies, folders, ids, parts of ids, or `last`.")
    ] = ["last"],
    study: Annotated[
        str | None,
        typer.Option(
            "--study", help="Decide the claims of this study on all of the campaigns, also on those of no study."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    virtual_only: Annotated[bool, typer.Option("--virtual-only", help="Decide by virtual devices alone.")] = False,
    with_invalid: Annotated[
        bool, typer.Option("--with-invalid", help="Count repetitions that are INVALID too.")
    ] = False,
) -> None:
    """Decide the claims of a study from the records of its campaigns, and say why.

    A manifest says which study it belongs to (`study: melt`). Several campaigns are one table: what one lacks another may
    have. A claim that fails is a result, not an error.
    """
    from meltrepro.measure.records import read_campaign
    from meltrepro.record.reader import find_campaign
    from meltrepro.record.study import campaigns_meant
    from meltrepro.report.read import read_results

    settings = settings_module.load()
    wanted = campaigns_meant(settings.studies, campaigns)
    folders = dict.fromkeys(find_campaign(settings.records, name) for name in wanted)
    results = read_results([read_campaign(folder, with_invalid=with_invalid) for folder in folders])
    meant, own = _study(study, results)
    decided = meant.decide(own, virtual_only=virtual_only)
    typer.echo(decided.json if json else decided.text, nl=False)


def _study(name: str | None, results: Results) -> tuple[Study, Results]:
    """The study whose claims are to be decided, and on what; raises `UsageError` where there is none or a choice."""
    from meltrepro.registry import STUDIES
    from meltrepro.studies.base import studies_of

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


def tell(folder: Path, place: Place | None) -> None:
    """A line at the end of a run of a study's manifest; where in MLflow its campaign was logged to, the findings go too."""
    for text, document in conclude([folder], "last"):
        typer.echo(text)
        if place is not None:
            _attach(folder, document, place)


def conclude(folders: Sequence[Path], named: str) -> Iterator[tuple[str, str]]:
    """A line on what campaigns say of the claims of each study that they belong to, and all of it as JSON.

    `named` is what a user would type for them. Raises `RecordError` where a record is damaged.
    """
    from meltrepro.measure.records import read_campaign
    from meltrepro.report.read import read_results
    from meltrepro.studies.base import studies_of

    for study, own in studies_of(read_results([read_campaign(folder) for folder in folders])):
        decided = study.decide(own)
        yield f"findings of {study.name}: {decided.tally}; see them with: meltrepro findings {named}", decided.json


def _attach(folder: Path, document: str, place: Place) -> None:
    from meltrepro.track.logged import attach

    try:
        attach([folder], {ARTIFACT: document}, place)
    except TrackingError as error:
        typer.echo(f"findings not logged to MLflow: {error.message}", err=True)
