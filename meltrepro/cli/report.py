"""`meltrepro report`: one page and its tables from the records of campaigns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import JsonOption, complete_campaigns
from meltrepro.cli.console import console
from meltrepro.cli.documents import ReportDocument
from meltrepro.cli.json_output import print_json
from meltrepro.errors import UsageError
from meltrepro.words import counted


def command(
    campaigns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]",
            help="Studies, campaign ids, folders, bundles, MLflow run ids, or `last`.",
            autocompletion=complete_campaigns,
        ),
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
    all_: Annotated[
        bool, typer.Option("--all", help="The report of every campaign, and a page that leads to them; logs nothing.")
    ] = False,
    track: Annotated[
        bool, typer.Option("--track/--no-track", help="Log the report to the campaigns' MLflow runs.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Make one self-contained HTML page, with its tables as CSV and LaTeX, from the records of campaigns."""
    if all_ and (campaigns or from_records):
        raise UsageError("--all is of every campaign, and is made anew", hint="leave out RUN and --from-records")
    if all_:
        made = workflow.report_all(output)
        if json:
            print_json("report", document(made))
        else:
            typer.echo(f"{made.page}: written, with the reports of {counted(len(made.campaigns), 'campaign')}")
        return
    with console(quiet=json) as sink:
        made = workflow.report(campaigns or (), output, from_records=from_records, track=track, sink=sink)
    if json:
        print_json("report", document(made))
    else:
        tell_report(made)


def document(made: workflow.Reported) -> ReportDocument:
    """A report as JSON has it."""
    return ReportDocument(
        page=made.page,
        files=sorted(made.files),
        campaigns=[folder.name for folder in made.campaigns],
        compared=made.compared,
        runs=made.runs,
        problem=made.problem.message if made.problem else None,
    )


def tell_report(made: workflow.Reported) -> None:
    """Say where a report is and whether it was logged."""
    if made.compared:
        folder, files = made.page.parent, counted(len(made.files), "file")
        typer.echo(f"{folder}: the same bytes, {files}, from the records of {counted(len(made.campaigns), 'campaign')}")
        return
    tables = sum(name.endswith(".csv") for name in made.files)
    typer.echo(f"{made.page}: written, and {counted(tables, 'table')} beside it as CSV and LaTeX")
    if made.problem is not None:
        typer.echo(f"not logged to MLflow: {made.problem.message}", err=True)
        typer.echo("next: make the report again when that is mended; the files on disk are complete", err=True)
    elif made.runs:
        typer.echo(f"logged to {counted(made.runs, 'MLflow run')}, below report/")
    elif made.runs == 0:
        names = " ".join(folder.name for folder in made.campaigns)
        typer.echo(
            f"not logged to MLflow: it has none of these campaigns; log them with: meltrepro sync {names}", err=True
        )
