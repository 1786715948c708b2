"""`meltrepro gallery`: a static site of many public records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.cli.common import JsonOption
from meltrepro.cli.json_output import print_json
from meltrepro.cli.publish_documents import GalleryDocument, RefusalDocument
from meltrepro.errors import EntryError
from meltrepro.words import counted

_MOST_SHOWN = 20


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of entries that `meltrepro publish` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder of the site.")] = Path(
        "gallery"
    ),
    signers: Annotated[
        Path | None,
        typer.Option("--signers", metavar="FILE", help="Whose keys count: an allowed_signers file of OpenSSH."),
    ] = None,
    signed_only: Annotated[
        bool, typer.Option("--signed-only", help="Take entries alone that somebody of --signers signed.")
    ] = False,
    title: Annotated[str, typer.Option("--title", help="What stands above it.")] = "Measurements that can be repeated",
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail where any file is not taken, after writing the site.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make a static site of public records: sort, filter, speed against what it costs, the command that repeats a row.

    Every entry is checked. One that is damaged, was changed, has a wrong signature or is there twice stands on the page with
    its reason, and in no row.
    """
    made = workflow.gallery(folder, output, title=title, signers=signers, signed_only=signed_only)
    taken, refused = made.collection.taken, made.collection.refused
    standing = [str(one.standing) for one in taken]
    found = {name: standing.count(name) for name in dict.fromkeys(standing)}
    if json:
        rows = [RefusalDocument(file=one.file, kind=one.kind, detail=one.detail) for one in refused]
        print_json("gallery", GalleryDocument(page=made.page, entries=found, refused=rows))
    else:
        for one in refused[:_MOST_SHOWN]:
            typer.echo(f"not taken: {one}", err=True)
        if len(refused) > _MOST_SHOWN:
            typer.echo(f"not taken: {len(refused) - _MOST_SHOWN} more, which the page has", err=True)
        said = ", ".join(f"{n} {name}" for name, n in found.items())
        typer.echo(
            f"{made.page}: written, of {counted(len(taken), 'entry', 'entries')}" + (f" ({said})" if said else "")
        )
    if strict and refused:
        raise EntryError(
            f"{counted(len(refused), 'file')} of {folder} {'is' if len(refused) == 1 else 'are'} no entry of this gallery: {refused[0]}",
            hint=f"the others stand in {made.page}",
        )
