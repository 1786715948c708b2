"""`meltrepro bundle`: one verifiable file with everything that a replay needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.bundle_documents import BundleDocument, CheckedBundleDocument, ClaimDocument, ImportedBundleDocument
from meltrepro.cli.common import JsonOption, complete_campaigns
from meltrepro.cli.console import console
from meltrepro.cli.documents import (
    GapDocument,
)
from meltrepro.cli.json_output import print_json
from meltrepro.words import counted

if TYPE_CHECKING:
    from meltrepro.replay.claims import Known

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
            metavar="CAMPAIGN", help="A folder, an id, a part of one, or `last`.", autocompletion=complete_campaigns
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file to write; ID.melt in this folder if absent.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Pack a campaign: manifest, lock, sources, artifacts, records, report."""

    def tell(size: int, left_out: Sequence[str]) -> None:
        typer.echo(f"writes {size / 1e6:.1f} MB", err=True)
        for line in left_out:
            typer.echo(f"left out: {line}", err=True)

    with console(quiet=json) as sink:
        exported = workflow.export_bundle(campaign, output, begins=tell, sink=sink)
    files = len(exported.index.members)
    if json:
        withheld = list(exported.index.withheld)
        document = BundleDocument(
            path=exported.path, size=exported.size, sha256=exported.sha256, files=files, withheld=withheld
        )
        print_json("bundle-export", document)
        return
    typer.echo(f"{exported.path}: {counted(files, 'file')}, {_amount(exported)}")
    if exported.withheld:
        typer.echo(f"left out: {counted(exported.withheld, 'file')}, which whoever replays it has to get elsewhere")


@app.command("verify")
def verify_command(bundle: BundleArgument, json: JsonOption = False) -> None:
    """Check every byte of a bundle, and say which of its programs this machine has built as well."""
    checked = workflow.check_bundle(bundle)
    if json:
        artifacts, sources = ([_claim(one) for one in each] for each in (checked.artifacts, checked.sources))
        files = len(checked.index.members)
        document = CheckedBundleDocument(
            path=bundle,
            size=checked.size,
            sha256=checked.sha256,
            files=files,
            artifacts=artifacts,
            sources=sources,
        )
        print_json("bundle-verify", document)
        return
    typer.echo(f"{bundle}: whole, {counted(len(checked.index.members), 'file')}, and its parts agree")
    typer.echo(_amount(checked))
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
def import_command(bundle: BundleArgument, json: JsonOption = False) -> None:
    """Check a bundle and take its objects and records over."""
    with console(quiet=json) as sink:
        imported = workflow.import_bundle(bundle, sink=sink)
    if json:
        gaps = [GapDocument(**asdict(gap)) for gap in imported.gaps]
        campaigns = list(imported.campaigns)
        print_json("bundle-import", ImportedBundleDocument(objects=imported.objects, campaigns=campaigns, gaps=gaps))
        return
    typer.echo(f"{imported.objects} objects were new")
    for campaign in imported.campaigns:
        typer.echo(f"campaign: {campaign}")
    for gap in imported.gaps:
        typer.echo(f"not in the bundle, nor here: {gap.name}: {gap.why}")
        typer.echo(f"  {gap}")


def _amount(file: workflow.Exported | workflow.Checked) -> str:
    return f"{file.size / 1e6:.1f} MB ({file.size} bytes), sha256 {file.sha256}"


def _claim(known: Known) -> ClaimDocument:
    return ClaimDocument(name=known.name, digest=known.digest, here=known.here)
