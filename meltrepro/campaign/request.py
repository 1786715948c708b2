"""From cells to requests: the exact texts and limits that a runner gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.chat_templates import TEMPLATES, TemplateError, render_turns
from meltrepro.manifest.context import lay_out
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.manifest.protocol import Protocol
from meltrepro.manifest.schema import Workload
from meltrepro.plan.identity import digest_of
from meltrepro.plan.model import Cell, Plan
from meltrepro.record.trial import AnyRequest, Request, RequestSampling, RequestThinking
from meltrepro.targets.base import DeviceFacts

Conversations = Sequence[Sequence[str]]


def make_requests(
    loaded: LoadedManifest, plan: Plan, conversations: Mapping[str, Conversations], devices: Mapping[str, DeviceFacts]
) -> dict[str, Request]:
    """The request of every cell with conversations, by cell id; these are by workload name, cut to what the workload uses.

    Raises `ManifestError` where a prompt would break out of its turn in a model's chat template, and where a continuous
    workload has one that its context might not hold.
    """
    rendered: dict[tuple[str, str], list[list[str]]] = {}
    problems: list[Problem] = []
    cells = [(cell, cell.workload) for cell in plan.cells if isinstance(cell.workload, Workload)]
    for cell, workload in cells:
        key = (cell.model.chat_template, cell.workload_name)
        if key in rendered:
            continue
        rendered[key] = []
        template = TEMPLATES[cell.model.chat_template]
        for number, prompts in enumerate(conversations[cell.workload_name]):
            try:
                rendered[key].append(render_turns(template, workload.system, prompts))
            except TemplateError as error:
                at: tuple[str | int, ...] = ("workloads", cell.workload_name)
                if error.turn is None:
                    problems.append(problem_at(loaded, (*at, "system"), str(error)))
                    break
                # A prompt in a file of its own has no place in the manifest; the nearest is the file's name.
                at = (*at, "conversations", number, error.turn)
                problems.append(problem_at(loaded, at, f"conversation {number + 1}, {error}"))
        if workload.continuous and not problems:
            pieces = lay_out(loaded, cell.workload_name, conversations[cell.workload_name])
            rendered[key] = [render_turns(template, workload.system, prompts) for prompts in pieces]
    if problems:
        raise ManifestError(problems, hint="a prompt with such a marker would speak for the model; take it out")
    return {
        cell.id: _request(
            workload,
            cell,
            rendered[cell.model.chat_template, cell.workload_name],
            plan.manifest.protocol,
            devices[cell.target_name].cores,
        )
        for cell, workload in cells
    }


def request_digest(request: AnyRequest) -> str:
    """Identity of what is asked for, wherever the model lies."""
    return digest_of(request.model_dump(mode="json", exclude={"model"}, exclude_none=True))


def _request(
    workload: Workload,
    cell: Cell,
    conversations: list[list[str]],
    protocol: Protocol,
    cores: int,
) -> Request:
    meter, thinking = cell.target.meter, cell.model.thinking
    return Request(
        model="",
        context=workload.context,
        threads=cell.target.threads or cell.target.usable_cores or cores,
        batch=workload.batch,
        **cell.options,
        max_tokens=workload.max_tokens,
        ignore_eos=workload.ignore_eos,
        sampling=RequestSampling(**workload.sampling.model_dump(), seed=protocol.seed),
        conversations=conversations,
        turn_pause_ms=0 if workload.continuous else round(1000 * protocol.turn_pause_s),
        conversation_pause_ms=0 if workload.continuous else round(1000 * protocol.conversation_pause_s),
        sync_mark=meter.sync_mark if meter is not None and meter.clock == "own" else None,
        thinking=RequestThinking(**thinking.model_dump(), max_tokens=workload.max_thinking_tokens)
        if thinking
        else None,
    )
