"""`meltrepro export`: what campaigns measured as one tidy table, for pandas, R or a spreadsheet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import JsonOption, WithInvalidOption
from meltrepro.errors import UsageError
from meltrepro.report.tidy import TableName
from meltrepro.workflow.tables import TableFormat


def command(
    campaigns: Annotated[
        list[str], typer.Argument(metavar="[CAMPAIGN...]", help="Studies, folders, ids, parts of ids, or `last`.")
    ] = ["last"],
    table: Annotated[
        TableName, typer.Option("--table", help="One row a metric of a cell, a metric of a trial, or a token.")
    ] = "metrics",
    format: Annotated[TableFormat, typer.Option("--format", help="As which kind of file.")] = "csv",
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to this file.")] = None,
    with_invalid: WithInvalidOption = False,
    json: JsonOption = False,
) -> None:
    """Write what campaigns measured as one tidy table: a row a metric of a cell, a metric of a trial, or a token."""
    format = "json" if json else format
    if output is None and format == "parquet":
        raise UsageError("--format parquet: is no text to print", hint="name a file: -o FILE.parquet")
    data = workflow.export_table(campaigns, table, format, with_invalid=with_invalid)
    if output is None:
        sys.stdout.write(data.decode())
        return
    from meltrepro.atomic import write_bytes

    write_bytes(output, data)
    typer.echo(f"{output}: written")
