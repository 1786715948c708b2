"""`meltrepro show`: the results of a campaign again, or which campaigns there are."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

import typer

from meltrepro import settings, workflow
from meltrepro.cli.common import CampaignArgument, JsonOption, WithInvalidOption
from meltrepro.errors import UsageError
from meltrepro.words import counted


def command(
    campaign: CampaignArgument = "last",
    with_invalid: WithInvalidOption = False,
    list_: Annotated[bool, typer.Option("--list", help="Name every campaign, oldest first.")] = False,
    json: JsonOption = False,
) -> None:
    """Show the results of a campaign: medians, intervals, what is INVALID and why, what is odd, operators."""
    from meltrepro.cli.summary import show_results

    if list_ and json:
        typer.echo(json_module.dumps([_as_json(each) for each in workflow.list_campaigns()], indent=2))
    elif json:
        raise UsageError("--json goes with --list")
    elif list_:
        _list()
    else:
        show_results(workflow.load(campaign, with_invalid=with_invalid))


def _as_json(found: workflow.Recorded) -> dict[str, Any]:
    """A campaign of the list: how many cells and trials it has; of a damaged one, what is wrong with it."""
    known: dict[str, Any] = {"id": found.folder.name, "folder": str(found.folder)}
    if (record := found.record) is None:
        return {**known, "damaged": str(found.problem)}
    return {
        **known,
        "finished": record.finished,
        "cells": len(record.cells),
        "trials": sum(len(cell.trials) for cell in record.cells),
        "virtual": record.document.virtual,
        "synthetic": record.document.synthetic,
    }


def _list() -> None:
    found = workflow.list_campaigns()
    width = max((len(each.folder.name) for each in found), default=0) + 2
    for each in found:
        if record := each.record:
            state = "finished" if record.finished else "unfinished"
            ended = sum(len(cell.trials) for cell in record.cells)
            marks = [mark for mark in ("virtual", "synthetic") if getattr(record.document, mark)]
            text = ", ".join((f"{state:12}{counted(len(record.cells), 'cell')}", counted(ended, "trial"), *marks))
        else:
            text = f"damaged: {each.problem}"
        typer.echo(f"{each.folder.name:{width}}{text}")
    if not found:
        typer.echo(f"there is no campaign in {settings.load().records}; run one first: meltrepro run SPEC")
