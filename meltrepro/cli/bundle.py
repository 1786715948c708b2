"""`meltrepro bundle`: one verifiable file with everything that a replay needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meltrepro.words import counted

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle file.", show_default=False)]


@app.callback()
def _group() -> None:
    """Pack, check, unpack everything that a replay needs."""


@app.command("export")
def export_command(
    campaign: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Id, name or folder; the newest of a name.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The file to write.")] = None,
) -> None:
    """Pack a campaign: manifest, lock, sources, artifacts, records, report."""
    from meltrepro import settings as settings_module
    from meltrepro.cli.console import console
    from meltrepro.measure.records import read_campaign
    from meltrepro.record.reader import find_campaign
    from meltrepro.replay.bundle import export
    from meltrepro.report.content import assemble
    from meltrepro.report.files import report_files
    from meltrepro.store.cas import Store

    settings = settings_module.load()
    folder = find_campaign(settings.records, campaign)
    out = output or Path(f"{folder.name}.melt")
    recorded = read_campaign(folder)
    recorded.verify()
    with console() as sink:
        index = export(folder, Store(settings.cache / "store"), out, sink, report_files(assemble([recorded])))
    typer.echo(f"{out}: {counted(len(index.members), 'file')}, {out.stat().st_size / 1e6:.1f} MB")
    withheld = index.about.get("withheld")
    if isinstance(withheld, list) and withheld:
        typer.echo(
            f"left out, because their licence does not allow passing them on: {counted(len(withheld), 'file')} of weights, data or NDKs"
        )


@app.command("verify")
def verify_command(bundle: BundleArgument) -> None:
    """Check every byte of a bundle, and say which of its programs this machine has built as well."""
    from meltrepro import settings as settings_module
    from meltrepro.replay.bundle import verify_bundle
    from meltrepro.replay.claims import artifacts_of, sources_of
    from meltrepro.store.cas import Store

    index, lock = verify_bundle(bundle)
    store = Store(settings_module.load().cache / "store")
    typer.echo(f"{bundle}: whole, {counted(len(index.members), 'file')}, and its parts agree")
    typer.echo("nothing in it is signed: whoever made it can have put anything into it")
    artifacts = artifacts_of(lock, store)
    for artifact in artifacts:
        built = "never" if artifact.here is None else "the same bytes" if artifact.own else "OTHER BYTES"
        typer.echo(f"  built here: {built:14}  {artifact}")
    for known in (*artifacts, *sources_of(lock, store)):
        if known.here not in (None, known.digest):
            typer.echo(
                f"warning: {known.name}: here it has sha256 {known.here}, in the bundle {known.digest}", err=True
            )


@app.command("import")
def import_command(bundle: BundleArgument) -> None:
    """Check a bundle and take its objects and records over."""
    from meltrepro import settings as settings_module
    from meltrepro.cli.console import console
    from meltrepro.replay.bundle import import_bundle
    from meltrepro.store.cas import Store

    settings = settings_module.load()
    with console() as sink:
        imported = import_bundle(bundle, Store(settings.cache / "store"), settings.records, sink)
    typer.echo(f"{imported.objects} objects were new")
    for campaign in imported.campaigns:
        typer.echo(f"campaign: {campaign}")
    for digest in imported.withheld:
        typer.echo(f"not in the bundle (licence): {digest}")
