"""From accuracy cells to what their scorer is asked: questions chosen, written in its format, known by digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from meltrepro.accuracy.datasets import read_questions
from meltrepro.accuracy.questions import Question, Sheet, choose
from meltrepro.build.model import ADAPTER, Artifact, Input
from meltrepro.errors import DataError, RecordError
from meltrepro.frameworks.base import DATA, LOGITS, Scorer, scorer_of
from meltrepro.manifest.accuracy import QuestionWorkload, TextWorkload
from meltrepro.plan.model import Cell, Plan
from meltrepro.record.trial import AnyRequest, ScoringRequest
from meltrepro.targets.base import DeviceFacts


@dataclass(frozen=True)
class Data:
    """The data of an accuracy workload."""

    content: bytes
    digest: str
    label: str
    """What messages call them."""


Keep = Callable[[bytes], Input]
"""Puts a file for a scorer where it stays."""


@dataclass(frozen=True)
class _Asked:
    """What a workload asks a scorer, as a file."""

    file: Input
    sheet: Sheet
    left_out: tuple[int, ...] = ()
    """Numbers of questions that the scorer's format cannot hold."""


def score_requests(
    plan: Plan,
    data: Mapping[str, Data],
    devices: Mapping[str, DeviceFacts],
    keep: Keep,
) -> tuple[dict[str, ScoringRequest], dict[str, Input]]:
    """The request of every accuracy cell by id, without what is made for it, and the files by digest.

    `data` are by workload name. Raises `DataError` for data that a task cannot be made of.
    """
    bundles = {node.framework_name: node for node in plan.bundles}
    questions: dict[str, Sequence[Question]] = {}
    files: dict[tuple[str, str], _Asked] = {}
    requests: dict[str, ScoringRequest] = {}
    for cell in plan.cells:
        workload, name = cell.workload, cell.workload_name
        if not isinstance(workload, QuestionWorkload | TextWorkload):
            continue
        bundle = bundles[cell.framework_name]
        scorer, key = scorer_of(bundle.kind), (name, cell.framework_name)
        if isinstance(workload, QuestionWorkload):
            if name not in questions:
                questions[name] = read_questions(workload.task, data[name].content, data[name].label)
            if key not in files:
                files[key] = _sheet(workload, data[name], questions[name], scorer, bundle.release.name, keep)
        elif key not in files:
            content = _text(data[name])
            files[key] = _Asked(keep(content), Sheet(content, 0, 0, 1))
        requests[cell.id] = _request(cell, workload, scorer, data[name], files[key], devices)
    return requests, {asked.file.digest: asked.file for asked in files.values()}


def with_inputs(
    requests: Mapping[str, AnyRequest], plan: Plan, artifacts: Mapping[str, Artifact]
) -> tuple[dict[str, AnyRequest], dict[str, Input]]:
    """The requests with what their cells are compared with, and what is added to their models, once these are there.

    And those files by digest.
    """
    done, inputs = dict(requests), dict[str, Input]()
    for cell in plan.cells:
        request = requests[cell.id]
        if not isinstance(request, ScoringRequest):
            continue
        wanted = {LOGITS: cell.logits_id, ADAPTER: cell.adapter_id}
        found = {name: artifacts[id] for name, id in wanted.items() if id is not None}
        inputs |= {each.digest: Input(each.path, each.digest) for each in found.values()}
        read = {name: each.digest for name, each in found.items()}
        done[cell.id] = request.model_copy(update={"inputs": {**request.inputs, **read}})
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


def _sheet(
    workload: QuestionWorkload, data: Data, questions: Sequence[Question], scorer: Scorer, release: str, keep: Keep
) -> _Asked:
    mode = scorer.mode(workload.task)
    kept = [question for question in questions if scorer.holds(mode, question)]
    left_out = {question.number for question in questions} - {question.number for question in kept}
    try:
        sheet = scorer.sheet(mode, choose(kept, workload.questions, workload.sample), release)
    except DataError as error:
        raise DataError(f"{data.label}: {error.message}", hint=error.hint) from error
    return _Asked(keep(sheet.content), sheet, tuple(sorted(left_out)))


def _text(data: Data) -> bytes:
    try:
        empty = not data.content.decode().strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{data.label}: it is not text in UTF-8 (byte {error.start})") from error
    if empty:
        raise DataError(f"{data.label}: it is empty")
    return data.content


def _request(
    cell: Cell,
    workload: QuestionWorkload | TextWorkload,
    scorer: Scorer,
    data: Data,
    asked: _Asked,
    devices: Mapping[str, DeviceFacts],
) -> ScoringRequest:
    return ScoringRequest(
        task=workload.task,
        mode=scorer.mode(workload.task),
        model="",
        context=workload.context,
        threads=cell.target.threads or cell.target.usable_cores or devices[cell.target_name].cores,
        batch=workload.batch,
        data=data.digest,
        inputs={DATA: asked.file.digest} if DATA in scorer.inputs(scorer.mode(workload.task)) else {},
        questions=asked.sheet.questions or None,
        padding=asked.sheet.padding,
        sequences=asked.sheet.sequences,
        left_out=list(asked.left_out),
        chunks=workload.chunks if isinstance(workload, TextWorkload) else None,
        adapter_scale=cell.model.lora.scale if cell.model.lora is not None else None,
        options=scorer.takes(cell.options),
    )
