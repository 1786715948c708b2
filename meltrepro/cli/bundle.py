"""`meltrepro bundle`: one verifiable file with everything that a replay needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import complete_campaigns
from meltrepro.cli.console import console
from meltrepro.words import counted

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle file.", show_default=False)]


@app.callback()
def _group() -> None:
    """Pack, check, unpack everything that a replay needs."""


@app.command("export")
def export_command(
    campaign: Annotated[
        str,
        typer.Argument(
            metavar="CAMPAIGN", help="Id, name or folder; the newest of a name.", autocompletion=complete_campaigns
        ),
    ],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write.")] = None,
) -> None:
    """Pack a campaign: manifest, lock, sources, artifacts, records, report."""

    def tell(size: int, left_out: Sequence[str]) -> None:
        typer.echo(f"writes {size / 1e6:.1f} MB", err=True)
        for line in left_out:
            typer.echo(f"left out: {line}", err=True)

    with console() as sink:
        exported = workflow.export_bundle(campaign, output, begins=tell, sink=sink)
    size = exported.path.stat().st_size / 1e6
    typer.echo(f"{exported.path}: {counted(len(exported.index.members), 'file')}, {size:.1f} MB")
    if exported.withheld:
        typer.echo(f"left out: {counted(exported.withheld, 'file')}, which whoever replays it has to get elsewhere")


@app.command("verify")
def verify_command(bundle: BundleArgument) -> None:
    """Check every byte of a bundle, and say which of its programs this machine has built as well."""
    checked = workflow.check_bundle(bundle)
    typer.echo(f"{bundle}: whole, {counted(len(checked.index.members), 'file')}, and its parts agree")
    typer.echo("nothing in it is signed: whoever made it can have put anything into it")
    for artifact in checked.artifacts:
        built = "never" if artifact.here is None else "the same bytes" if artifact.own else "OTHER BYTES"
        typer.echo(f"  built here: {built:14}  {artifact}")
    for known in (*checked.artifacts, *checked.sources):
        if known.here not in (None, known.digest):
            typer.echo(
                f"warning: {known.name}: here it has sha256 {known.here}, in the bundle {known.digest}", err=True
            )


@app.command("import")
def import_command(bundle: BundleArgument) -> None:
    """Check a bundle and take its objects and records over."""
    with console() as sink:
        imported = workflow.import_bundle(bundle, sink=sink)
    typer.echo(f"{imported.objects} objects were new")
    for campaign in imported.campaigns:
        typer.echo(f"campaign: {campaign}")
    for gap in imported.gaps:
        typer.echo(f"not in the bundle, nor here: {gap.name}: {gap.why}")
        typer.echo(f"  {gap}")
