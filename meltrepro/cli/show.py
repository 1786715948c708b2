"""`meltrepro show`: the results of a campaign again, or which campaigns there are."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from meltrepro import settings, workflow
from meltrepro.cli.common import CampaignArgument, JsonOption, WithInvalidOption
from meltrepro.cli.documents import AnswerDocument, CellDocument, FigureDocument, RecordedDocument, ShowDocument
from meltrepro.cli.json_output import print_json
from meltrepro.words import counted


def command(
    campaign: CampaignArgument = "last",
    with_invalid: WithInvalidOption = False,
    answers: Annotated[
        bool, typer.Option("--answers", help="Show which answers are right, and what is wrong with others.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Name every campaign, oldest first.")] = False,
    json: JsonOption = False,
) -> None:
    """Show the results of a campaign: medians, intervals, what is INVALID and why, what is odd, operators."""
    from meltrepro.cli.summary import show_answers, show_results

    if list_ and json:
        print_json("show-list", [_recorded(each) for each in workflow.list_campaigns()])
    elif list_:
        _list()
    elif json:
        print_json("show", _document(workflow.load(campaign, with_invalid=with_invalid), answers=answers))
    elif answers:
        show_answers(workflow.load(campaign, with_invalid=with_invalid))
    else:
        record = workflow.load(campaign, with_invalid=with_invalid)
        show_results(record)
        for name, model in record.manifest.models.items():
            if model.licence:
                typer.echo(f"model {name}: licence {model.licence}")
        if not record.finished:
            typer.echo(_unfinished(record))


def _unfinished(record: workflow.LoadedCampaign) -> str:
    """How far a campaign is, and what goes on with it."""
    ended = sum(len(cell.repetitions) + len(cell.failures) for cell in record.cells)
    only = "".join(f" --only {shlex.quote(each)}" for each in record.document.only)
    return (
        f"unfinished: {ended} of {counted(sum(cell.asked for cell in record.cells), 'repetition')} have ended; unless it runs still, "
        f"the command that began it goes on with it: meltrepro run SPEC{only}, with the same --set"
    )


def _recorded(found: workflow.Recorded) -> RecordedDocument:
    """A campaign of the list: how many cells and trials it has; of a damaged one, what is wrong with it."""
    if (record := found.record) is None:
        return RecordedDocument(id=found.folder.name, folder=found.folder, damaged=str(found.problem))
    return RecordedDocument(
        id=found.folder.name,
        folder=found.folder,
        finished=record.finished,
        cells=len(record.cells),
        trials=sum(len(cell.trials) for cell in record.cells),
        virtual=record.document.virtual,
        synthetic=record.document.synthetic,
    )


def _document(record: workflow.LoadedCampaign, *, answers: bool) -> ShowDocument:
    from meltrepro.report.read import read_results
    from meltrepro.report.tidy import VERDICTS, metric_rows

    figures: dict[str, list[FigureDocument]] = {}
    for row in metric_rows(record):
        if row.metric is not None:
            keys = FigureDocument.model_fields
            figures.setdefault(row.cell, []).append(FigureDocument(**{key: getattr(row, key) for key in keys}))
    marks = {cell.id: cell.marks for cell in record.cells} if answers else {}
    cells = [
        CellDocument(
            cell=cell.cell,
            validity=VERDICTS[cell.state],
            reason=cell.reason,
            asked=cell.asked,
            exclusions=list(map(str, cell.exclusions)),
            remarks=list(cell.remarks),
            virtual=cell.device.virtual,
            synthetic=cell.synthetic,
            metrics=figures.get(cell.cell, []),
            answers=[
                AnswerDocument(
                    question=each.number,
                    right=each.right,
                    strict=each.strict,
                    expected=each.expected,
                    found=each.found,
                    answer=each.answer,
                )
                for each in marks.get(cell.cell, ())
            ],
        )
        for cell in read_results([record]).cells
    ]
    name, folder = record.document.name, record.folder
    return ShowDocument(campaign=record.id, name=name, folder=folder, finished=record.finished, cells=cells)


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
