"""From cells to requests: the exact texts and limits that a runner gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from meltrepro.build.model import Artifact
from meltrepro.chat.contexts import lay_out
from meltrepro.chat.render import render
from meltrepro.chat.template import DATE, ChatTemplate, Rendered, TemplateError
from meltrepro.chat.thinking import speaks_of_thinking
from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.accuracy import AnswerWorkload
from meltrepro.manifest.lengths import Lengths
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.manifest.protocol import Protocol
from meltrepro.manifest.schema import Model, Workload
from meltrepro.plan.identity import digest_of
from meltrepro.plan.model import Cell, Plan
from meltrepro.record.trial import (
    AnyRequest,
    Request,
    RequestAdapter,
    RequestSampling,
    RequestSpeculation,
    RequestThinking,
    RequestTokens,
)
from meltrepro.targets.base import DeviceFacts

Conversations = Sequence[Sequence[str]]


def make_requests(
    loaded: LoadedManifest,
    plan: Plan,
    conversations: Mapping[str, Conversations],
    devices: Mapping[str, DeviceFacts],
    templates: Mapping[str, ChatTemplate],
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Request]:
    """The request of every cell that the runner serves, by cell id; conversations are by workload name, cut to what it uses.

    `templates` are by model. `note` is told what a template does with texts that nobody would expect. Raises `ManifestError`
    where a template is wrong, where a prompt would break out of its turn in it, and where a continuous workload has one that
    its context might not hold.
    """
    rendered: dict[tuple[str, str], Rendered] = {}
    problems: dict[Problem, None] = {}
    cells = [(cell, talk) for cell in plan.cells if (talk := _talk(cell)) is not None]
    spoken = {(cell.model_name, cell.workload_name): each for cell, each in cells if each.lengths is None}
    for (model, name), workload in spoken.items():
        template, wanted, day = templates[model], conversations[name], workload.date or DATE
        try:
            found = render(template, workload.system, wanted, day)
            if workload.continuous:
                pieces = lay_out(loaded, name, wanted, list(templates.values()))
                found = render(template, workload.system, pieces, day)
        except TemplateError as error:
            problems |= dict.fromkeys(_problems(loaded, model, name, error))
            continue
        rendered[model, name] = found
        unmarked = _marks(loaded.manifest.models[model], found) is None and speaks_of_thinking(template.text)
        for each in (*found.notes, *((_UNMARKED.format(model),) if unmarked else ())):
            note(f"{template.label}: {each}")
    if problems:
        breaks_out = any(problem.field.startswith("workloads.") for problem in problems)
        raise ManifestError(list(problems), hint=_SPEAKS if breaks_out else None)
    return {
        cell.id: _request(
            workload,
            cell,
            rendered.get((cell.model_name, cell.workload_name)),
            plan.manifest.protocol,
            devices[cell.engine_name].cores,
        )
        for cell, workload in cells
    }


def _talk(cell: Cell) -> Workload | None:
    """How a cell's conversations are held; a question that is answered freely is one of a single turn, answered greedily."""
    if isinstance(cell.workload, AnswerWorkload):
        alike = ("system", "date", "context", "max_tokens", "max_thinking_tokens", "batch")
        return Workload(conversations=[["-"]], **{name: getattr(cell.workload, name) for name in alike})
    return cell.workload if isinstance(cell.workload, Workload) else None


_UNMARKED = "no marks of thinking are found in it, so that thinking counts as answer; name them: models.{}.thinking"
_SPEAKS = "a prompt with such a marker would speak for the model; take it out"


def _problems(loaded: LoadedManifest, model: str, workload: str, error: TemplateError) -> Iterator[Problem]:
    """What is wrong with a template, or with each text that contains a marker of it."""
    if not error.marked:
        yield problem_at(loaded, ("models", model, "chat_template"), str(error))
    for each in error.marked:
        at: tuple[str | int, ...] = ("workloads", workload)
        if each.conversation is None or each.turn is None:
            yield problem_at(loaded, (*at, "system"), each.message)
        else:
            # A prompt in a file of its own has no place in the manifest; the nearest is the file's name.
            answers = isinstance(loaded.manifest.workloads[workload], AnswerWorkload)
            at = (*at, "data") if answers else (*at, "conversations", each.conversation, each.turn)
            yield problem_at(loaded, at, f"conversation {each.conversation + 1}, {each.message}")


def request_digest(request: AnyRequest) -> str:
    """Identity of what is asked for, wherever the model lies."""
    return digest_of(request.model_dump(mode="json", exclude={"model"}, exclude_none=True))


def _request(
    workload: Workload,
    cell: Cell,
    rendered: Rendered | None,
    protocol: Protocol,
    cores: int,
) -> Request:
    meter, lengths = cell.target.meter, workload.lengths
    thinking = _marks(cell.model, rendered) if rendered is not None else None
    depth, conversations = _lengths(workload, lengths) if lengths is not None else (0, _texts(rendered))
    return Request(
        model="",
        context=workload.context,
        threads=cell.engine_target.threads or cell.engine_target.usable_cores or cores,
        batch=workload.batch,
        **cell.options,
        max_tokens=(lengths.answer or 1) if lengths is not None else workload.max_tokens,
        ignore_eos=lengths is not None or workload.ignore_eos,
        sampling=RequestSampling(**workload.sampling.model_dump(), seed=protocol.seed),
        conversations=conversations,
        depth=depth or None,
        restore=workload.restore or None,
        sequences=workload.sequences if workload.sequences > 1 else None,
        shared_prompt=False if workload.sequences > 1 and not workload.shared_prompt else None,
        speculate=_speculation(workload),
        lora=RequestAdapter(scale=cell.model.lora.scale) if cell.model.lora is not None else None,
        page_cache=workload.page_cache,
        turn_pause_ms=0 if workload.continuous else round(1000 * protocol.turn_pause_s),
        conversation_pause_ms=0 if workload.continuous else round(1000 * protocol.conversation_pause_s),
        sync_mark=meter.sync_mark if meter is not None and meter.clock == "own" else None,
        thinking=RequestThinking(begin=thinking[0], end=thinking[1], max_tokens=workload.max_thinking_tokens)
        if thinking
        else None,
    )


def _texts(rendered: Rendered | None) -> list[list[str | RequestTokens]]:
    return [list(texts) for texts in rendered.texts] if rendered is not None else []


def _lengths(workload: Workload, lengths: Lengths) -> tuple[int, list[list[str | RequestTokens]]]:
    """How much the context holds before, and a conversation that reads a prompt, and one that writes an answer.

    A prefix that was kept lies in the context, as what came before does.
    """
    kept = round((lengths.prompt or 0) * workload.hit_rate)
    conversations: list[list[str | RequestTokens]] = []
    if lengths.prompt is not None:
        conversations.append([RequestTokens(tokens=max(lengths.prompt - kept, 1), max_tokens=1)])
    if lengths.answer is not None:
        conversations.append([RequestTokens(tokens=1, max_tokens=lengths.answer + 1)])
    return workload.depth + kept, conversations


def _speculation(workload: Workload) -> RequestSpeculation | None:
    wanted = workload.speculate
    return RequestSpeculation(tokens=wanted.tokens, ngram=wanted.ngram) if wanted is not None else None


def with_files(
    requests: Mapping[str, AnyRequest], plan: Plan, artifacts: Mapping[str, Artifact]
) -> dict[str, AnyRequest]:
    """The requests with the files that are read besides the model, once they are there: what drafts, and what is added."""
    done = dict(requests)
    for cell in plan.cells:
        request = requests[cell.id]
        if not isinstance(request, Request):
            continue
        if cell.draft_id is not None and request.speculate is not None:
            drafts = {"model": "", "digest": artifacts[cell.draft_id].digest}
            request = request.model_copy(update={"speculate": request.speculate.model_copy(update=drafts)})
        if cell.adapter_id is not None and request.lora is not None:
            added = {"model": "", "digest": artifacts[cell.adapter_id].digest}
            request = request.model_copy(update={"lora": request.lora.model_copy(update=added)})
        done[cell.id] = request
    return done


def _marks(model: Model, rendered: Rendered) -> tuple[str, str] | None:
    """What is around a model's thinking: as the manifest says, else as its chat template has it."""
    return (model.thinking.begin, model.thinking.end) if model.thinking else rendered.thinking
