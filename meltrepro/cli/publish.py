"""`meltrepro publish`: a small public record of a campaign, shown before it is written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import CampaignArgument, JsonOption, OnlyOption
from meltrepro.cli.json_output import print_json
from meltrepro.cli.publish_documents import PublishDocument
from meltrepro.errors import UsageError


def command(
    campaign: CampaignArgument = "last",
    only: OnlyOption = [],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to; ID.json in this folder if absent.")
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option("--sign", metavar="KEY", help="Sign it with this SSH key, such as ~/.ssh/id_ed25519."),
    ] = None,
    replay_of: Annotated[
        str | None,
        typer.Option("--replay-of", metavar="CAMPAIGN", help="The campaign that this one repeats: adds the verdicts."),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="FILE", help="The bundle that repeats it: adds its digest.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="ADDRESS", help="Where everybody can get that bundle (https).")
    ] = None,
    leave_out: Annotated[
        list[str], typer.Option("--leave-out", metavar="FIELD", help="Leave a field out, as the preview names it.")
    ] = [],
    keep: Annotated[
        list[str],
        typer.Option("--keep", metavar="FIELD", help="Let a field through that looks private, and that all may know."),
    ] = [],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write it without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would become public, and write nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make a public record of a campaign: what was run, effective values, verdicts, digests; at most 100 kB.

    It is looked through for names, paths, addresses, serial numbers and secrets, shown, and written when you say so.
    """
    from meltrepro.publish.show import preview

    draft = workflow.draft_entry(
        campaign, only=only, replay_of=replay_of, bundle=bundle, url=url, leave_out=leave_out, keep=keep
    )
    if not json:
        typer.echo(preview(draft.entry, draft.content))
        if draft.imported:
            typer.echo("this campaign came from elsewhere: somebody else measured it", err=True)
        if draft.may_be_replay:
            typer.echo("this campaign is a replay; --replay-of CAMPAIGN says of what, and adds the verdicts", err=True)
    written = None
    if not dry_run and (yes or _agreed(output or Path(draft.name))):
        written = workflow.write_entry(draft, output, sign=sign)
    if json:
        print_json("publish", _document(draft, written))
    elif written is None:
        typer.echo("nothing was written")
    else:
        typer.echo(f"{written.path}: written")
        if written.signature is None:
            typer.echo("unsigned: nobody can tell whose it is; --sign KEY signs it", err=True)
        else:
            typer.echo(f"{written.signature}: signed with the key {written.fingerprint}")


def _agreed(path: Path) -> bool:
    """Whether the user wants it written; raises `UsageError` where nobody can be asked."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"{path}: not written, for nobody was asked", hint="look at it, then write it with --yes")
    return typer.confirm(f"write this to {path}, for everybody to read?", default=False)


def _document(draft: workflow.Draft, written: workflow.PublishedEntry | None) -> PublishDocument:
    return PublishDocument(
        path=written.path if written else None,
        signature=written.signature if written else None,
        fingerprint=written.fingerprint if written else None,
        size=len(draft.content),
        entry=draft.entry,
    )
