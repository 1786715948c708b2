"""From accuracy cells to what their scorer is asked: questions chosen, written in its format, known by digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meltrepro.accuracy.datasets import read_questions
from meltrepro.accuracy.questions import choose
from meltrepro.build.model import Artifact, Input
from meltrepro.errors import DataError, RecordError
from meltrepro.frameworks.llamacpp import scorer_files as files
from meltrepro.frameworks.llamacpp.scorer import DATA, LOGITS, fewest
from meltrepro.manifest.accuracy import QuestionWorkload, TextWorkload
from meltrepro.manifest.targets import usable_cores
from meltrepro.plan.model import Cell, Plan
from meltrepro.record.trial import AnyRequest, Mode, ScoringRequest
from meltrepro.targets.base import DeviceFacts

_MODES: Mapping[str, Mode] = {"hellaswag": "hellaswag", "winogrande": "winogrande"}
"""Tasks that the scorer has a way of its own for; all others are multiple choice."""


@dataclass(frozen=True)
class Data:
    """The data of an accuracy workload."""

    content: bytes
    digest: str
    label: str
    """What messages call them."""


Keep = Callable[[bytes], Input]
"""Puts a file for a scorer where it stays."""


def score_requests(
    plan: Plan, data: Mapping[str, Data], devices: Mapping[str, DeviceFacts], keep: Keep
) -> tuple[dict[str, ScoringRequest], dict[str, Input]]:
    """The request of every accuracy cell by id, without what cells are compared with, and the files by digest.

    `data` are by workload name. Raises `DataError` for data that a task cannot be made of.
    """
    releases = {node.framework_name: node.release.name for node in plan.bundles}
    sheets: dict[tuple[str, int], tuple[files.Sheet, Input]] = {}
    requests: dict[str, ScoringRequest] = {}
    for cell in plan.cells:
        workload = cell.workload
        if isinstance(workload, QuestionWorkload):
            mode = _MODES.get(workload.task, "multiple-choice")
            key = (cell.workload_name, fewest(mode, releases[cell.framework_name]))
            if key not in sheets:
                sheet = _sheet(workload, mode, data[cell.workload_name], key[1])
                sheets[key] = (sheet, keep(sheet.content))
            sheet, file = sheets[key]
        elif isinstance(workload, TextWorkload):
            mode = "perplexity" if workload.task == "perplexity" else "kl-divergence"
            key = (cell.workload_name, 0)
            if key not in sheets:
                content = _text(data[cell.workload_name])
                sheets[key] = (files.Sheet(content, 0, 0, 1), keep(content))
            sheet, file = sheets[key]
        else:
            continue
        requests[cell.id] = _request(cell, mode, data[cell.workload_name], sheet, file, devices)
    return requests, {file.digest: file for _, file in sheets.values()}


def with_logits(
    requests: Mapping[str, AnyRequest], plan: Plan, artifacts: Mapping[str, Artifact]
) -> tuple[dict[str, AnyRequest], dict[str, Input]]:
    """The requests with what their cells are compared with, once it was made, and those files by digest."""
    done, inputs = dict(requests), dict[str, Input]()
    for cell in plan.cells:
        request = requests[cell.id]
        if cell.logits_id is not None and isinstance(request, ScoringRequest):
            logits = artifacts[cell.logits_id]
            inputs[logits.digest] = Input(logits.path, logits.digest)
            done[cell.id] = request.model_copy(update={"inputs": {**request.inputs, LOGITS: logits.digest}})
    return done, inputs


def inputs_of(request: AnyRequest, known: Mapping[str, Input]) -> dict[str, Input]:
    """The files of a request by name; raises `RecordError` where the data no longer give what a record asks for."""
    if not isinstance(request, ScoringRequest):
        return {}
    missing = [name for name, digest in request.inputs.items() if digest not in known]
    if missing:
        raise RecordError(
            f"the record's {missing[0]} of task {request.task} has sha256 {request.inputs[missing[0]]}, and none such can be "
            "made of today's data and program",
            hint="replay it with the version of meltrepro that recorded it",
        )
    return {name: known[digest] for name, digest in request.inputs.items()}


def _sheet(workload: QuestionWorkload, mode: Mode, data: Data, least: int) -> files.Sheet:
    questions = read_questions(workload.task, data.content, data.label)
    try:
        if mode == "winogrande":
            kept = [question for question in questions if files.holds_sentence(question)]
            left_out = tuple(question.number for question in questions if question not in kept)
            sheet = files.winogrande(choose(kept, workload.questions, workload.sample))
            return files.Sheet(sheet.content, sheet.questions, sheet.padding, sheet.sequences, left_out)
        chosen = choose(questions, workload.questions, workload.sample)
        return files.hellaswag(chosen) if mode == "hellaswag" else files.multiple_choice(chosen, least)
    except DataError as error:
        raise DataError(f"{data.label}: {error.message}", hint=error.hint) from error


def _text(data: Data) -> bytes:
    try:
        empty = not data.content.decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{data.label}: it is not text in UTF-8 (byte {error.start})") from error
    if empty:
        raise DataError(f"{data.label}: it is empty")
    return data.content


def _request(
    cell: Cell, mode: Mode, data: Data, sheet: files.Sheet, file: Input, devices: Mapping[str, DeviceFacts]
) -> ScoringRequest:
    workload = cell.workload
    assert isinstance(workload, QuestionWorkload | TextWorkload)
    return ScoringRequest(
        task=workload.task,
        mode=mode,
        model="",
        context=workload.context,
        threads=cell.target.threads or usable_cores(cell.target) or devices[cell.target_name].cores,
        batch=workload.batch,
        data=data.digest,
        inputs={} if mode == "kl-divergence" else {DATA: file.digest},
        questions=sheet.questions or None,
        padding=sheet.padding,
        sequences=sheet.sequences,
        left_out=list(sheet.left_out),
        chunks=workload.chunks if isinstance(workload, TextWorkload) else None,
    )
