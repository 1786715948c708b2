"""From cells to requests: the exact texts and limits that a runner gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.chat_templates import TEMPLATES, TemplateError, render_turns
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.manifest.protocol import Protocol
from meltrepro.manifest.schema import Workload
from meltrepro.plan.identity import digest_of
from meltrepro.plan.model import Cell, Plan
from meltrepro.record.trial import AnyRequest, Request, RequestSampling
from meltrepro.targets.base import DeviceFacts
from meltrepro.words import shorten

Conversations = Sequence[Sequence[str]]
TURN_TOKENS = 80
"""Most that a chat template puts around a prompt, in bytes, with what tokenizers add of their own."""
FIRST_TURN_TOKENS = 128
"""Most that it puts before the first prompt, with a model's own system prompt."""


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
    meter = cell.target.meter
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
    )


def lay_out(loaded: LoadedManifest, name: str, conversations: Sequence[Sequence[str]]) -> list[list[str]]:
    """All prompts of a workload in order, in as few conversations as are sure to fit its context.

    Only a model knows how many tokens a prompt has, and all models of a campaign shall get the same layout: so it counts as
    many as it has bytes, which no tokenizer exceeds, and an answer as many as it may have. Raises `ManifestError` where a
    single prompt with its answer might not fit.
    """
    workload = loaded.manifest.conversations[name]
    pieces: list[list[str]] = []
    free = 0
    for prompt in (prompt for turns in conversations for prompt in turns):
        needed = len(prompt.encode()) + TURN_TOKENS + workload.max_tokens
        if not pieces or needed > free:
            pieces.append([])
            free = workload.context - FIRST_TURN_TOKENS - len((workload.system or "").encode())
        if needed > free:
            message = (
                f"the prompt {shorten(prompt)} and an answer of {workload.max_tokens} tokens may need "
                f"{workload.context - free + needed} tokens, and the context has {workload.context}"
            )
            raise ManifestError([problem_at(loaded, ("workloads", name, "context"), message)])
        pieces[-1].append(prompt)
        free -= needed
    return pieces
