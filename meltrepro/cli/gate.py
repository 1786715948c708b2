"""`meltrepro gate`: does a change make anything worse? For CI: an exit code, JUnit's XML, a summary in Markdown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from meltrepro import workflow
from meltrepro.atomic import write_bytes
from meltrepro.cli.common import (
    EngineOption,
    JsonOption,
    LockedOption,
    OnlyOption,
    QuietOption,
    SetOption,
    SpecArgument,
    WaitAtMostOption,
    WaitOption,
    patience,
)
from meltrepro.cli.console import console
from meltrepro.cli.json_output import print_json
from meltrepro.errors import Differs, Inconclusive, UsageError

SUMMARY = "GITHUB_STEP_SUMMARY"
"""Where GitHub's runners want what a job has to say."""


def command(
    spec: SpecArgument,
    against: Annotated[
        str,
        typer.Option(
            metavar="BASE",
            help="A campaign or bundle, whose recorded artifacts run beside those of today; or BEFORE=AFTER, two names of the "
            "manifest as `compare --map` takes them.",
        ),
    ],
    set_: SetOption = [],
    only: OnlyOption = [],
    metric: Annotated[
        list[str],
        typer.Option(
            "--metric", metavar="NAME", help="Judge this metric, not all that get a verdict.", show_default=False
        ),
    ] = [],
    margin: Annotated[float | None, typer.Option(help="Largest relative difference that counts as the same.")] = None,
    maximum: Annotated[int | None, typer.Option(help="Most pairs of trials per cell.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail also where something could not be decided.")] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit's XML here.")] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a summary in Markdown here; on GitHub's runners it is shown anyway."),
    ] = None,
    engine: EngineOption = "docker",
    locked: LockedOption = False,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Log the campaign to MLflow.")] = False,
    wait: WaitOption = False,
    wait_at_most: WaitAtMostOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Run a manifest beside what it is held against, in pairs, until each metric is decided; fail where one got worse.

    Both sides run in one campaign, so that neither the day nor the machine is between them. Faster, or with less memory, is no
    failure. What stays undecided is told, and fails with --strict.
    """
    from meltrepro.replay.gate import headline, text
    from meltrepro.replay.gate import junit as as_junit
    from meltrepro.replay.gate import markdown as as_markdown

    wait_s = patience(wait, wait_at_most)
    for path in (junit, markdown):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{path.absolute().parent} is no folder", hint="make it, or name another file")
    with console(quiet=quiet or json) as sink:
        gated = workflow.gate(
            spec,
            against,
            overrides=set_,
            only=only,
            metrics=metric,
            margin=margin,
            maximum=maximum,
            engine=engine,
            locked=locked,
            track=track,
            wait_s=wait_s,
            begins=lambda pairs: typer.echo("\n".join(f"{a} beside {b}" for a, b in pairs.items()), err=True),
            sink=sink,
        )
    result = gated.result
    if junit is not None:
        write_bytes(junit, as_junit(result))
    if markdown is not None:
        write_bytes(markdown, as_markdown(result).encode())
    if summary := os.environ.get(SUMMARY):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(as_markdown(result))
    if json:
        print_json("gate", result)
    else:
        for line in text(result):
            typer.echo(line)
    hint = f"the pairs of trials: meltrepro show {gated.folder.name}"
    if result.worse:
        raise Differs(f"something got worse; {headline(result)}", hint=hint)
    if strict and result.undecided:
        raise Inconclusive(f"not everything was decided; {headline(result)}", hint=hint)
