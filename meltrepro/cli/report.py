"""`meltrepro report`: one page and its tables from the records of campaigns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import settings as settings_module
from meltrepro.words import counted

if TYPE_CHECKING:
    from meltrepro.settings import Settings


def command(
    campaigns: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN...]", help="Studies, campaign ids, folders, bundles, MLflow run ids, or `last`."),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder to write into.")] = Path(
        "report"
    ),
    from_records: Annotated[
        bool,
        typer.Option(
            "--from-records",
            help="Use record folders alone; where FOLDER holds a report, compare with it and change nothing.",
        ),
    ] = False,
    track: Annotated[
        bool, typer.Option("--track/--no-track", help="Log the report to the campaigns' MLflow runs.")
    ] = True,
) -> None:
    """Make one self-contained HTML page, with its tables as CSV and LaTeX, from the records of campaigns."""
    from meltrepro.report.files import campaigns_of, holds_report

    compared = from_records and holds_report(output)
    make_report(
        campaigns or (campaigns_of(output) if compared else ["last"]),
        output,
        from_records=from_records,
        compared=compared,
        track=track,
    )


def make_report(
    named: Sequence[str], output: Path, *, from_records: bool = False, compared: bool = False, track: bool = True
) -> None:
    """Write the report of studies and campaigns, or compare it with the one that is there."""
    from meltrepro.measure.records import read_campaign
    from meltrepro.record.study import campaigns_meant, find_study
    from meltrepro.report.content import assemble
    from meltrepro.report.files import PAGE, compare_report, report_files, write_report

    settings = settings_module.load()
    campaigns = campaigns_meant(settings.studies, named)
    folders = list(dict.fromkeys(_folders(campaigns, settings, from_records=from_records)))
    study = find_study(settings.studies, named[0]) if len(named) == 1 else None
    files = report_files(assemble([read_campaign(folder) for folder in folders], study))
    if compared:
        compare_report(output, files)
        typer.echo(
            f"{output}: the same bytes, {counted(len(files), 'file')}, from the records of {counted(len(folders), 'campaign')}"
        )
        return
    write_report(output, files)
    tables = sum(name.endswith(".csv") for name in files)
    typer.echo(f"{output / PAGE}: written, and {counted(tables, 'table')} beside it as CSV and LaTeX")
    if track and folders and not from_records:
        _log(folders, files, settings)


def _folders(named: Sequence[str], settings: Settings, *, from_records: bool) -> list[Path]:
    """Folders of campaigns; unless records alone are to count, bundles are imported and runs fetched from MLflow."""
    from meltrepro.record.reader import find_campaign

    if from_records:
        return [find_campaign(settings.records, name) for name in named]
    from meltrepro.cli.console import console
    from meltrepro.replay.locate import locate

    with console(quiet=False) as sink:
        return [locate(name, settings, sink).campaign for name in named]


def _log(folders: Sequence[Path], files: Mapping[str, bytes], settings: Settings) -> None:
    """Log the files to MLflow as far as it is there; the report on disk does not depend on it."""
    from meltrepro.errors import TrackingError
    from meltrepro.track.logged import attach
    from meltrepro.track.places import choose

    texts = {f"report/{name}": data.decode() for name, data in files.items()}
    try:
        runs = attach(folders, texts, choose(os.environ, None, settings.tracking_uri))
    except TrackingError as error:
        typer.echo(f"not logged to MLflow: {error.message}", err=True)
        typer.echo("next: make the report again when that is mended; the files on disk are complete", err=True)
        return
    if runs:
        typer.echo(f"logged to {counted(runs, 'MLflow run')}, below report/")
    else:
        typer.echo("not logged to MLflow: it has none of these campaigns; log them with: meltrepro sync", err=True)
