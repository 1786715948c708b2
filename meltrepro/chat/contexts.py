"""Whether the conversations of a workload fit its context, as far as their texts say it before any model is here.

Only a model knows how many tokens a text has. No tokenizer that is known here joins words, so that there are at least as many
tokens as words; and none makes more of a text than it has bytes. In between, four bytes a token are usual.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from meltrepro.chat.render import render
from meltrepro.chat.template import BUILT_IN, ChatTemplate, TemplateError
from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.accuracy import AnswerWorkload
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.manifest.prompts import MELT, load_conversations
from meltrepro.manifest.schema import Workload
from meltrepro.words import counted, shorten

Talk = Workload | AnswerWorkload
"""What is put to a model as conversations."""
USUAL_BYTES = 4
"""Of a token, in English and most programs' texts."""
TURN_TOKENS = 80
"""Most that a built-in chat template puts around a prompt, in bytes, with what tokenizers add of their own."""
FIRST_TURN_TOKENS = 128
"""Most that it puts before the first prompt, with a model's own system prompt."""
_ADDED = 16
"""What tokenizers add of their own."""


@dataclass(frozen=True)
class Need:
    """What one conversation takes, in tokens."""

    number: int
    """From 1."""
    turns: int
    least: int
    """Of its prompts and answers together, whatever the model."""
    prompts: int
    """Of its prompts, as usual."""
    answers: int
    """Of its answers, at most."""

    @property
    def usual(self) -> int:
        return self.prompts + self.answers


def needs(workload: Talk, conversations: Sequence[Sequence[str]], template: ChatTemplate) -> Iterator[Need]:
    """What each conversation takes with a chat template's markup; one that does not render is left to those who say why."""
    numbers = list(range(len(conversations)))
    try:
        rendered = render(template, workload.system, conversations)
    except TemplateError as error:
        bad = {each.conversation for each in error.marked}
        if not bad or None in bad:
            return
        numbers = [number for number in numbers if number not in bad]
        rendered = render(template, workload.system, [conversations[number] for number in numbers])
    for number, texts in zip(numbers, rendered.texts, strict=True):
        # The last token of the last answer is never put into the context.
        answers = workload.max_tokens * len(texts) - 1
        words = sum(len(text.split()) or 1 for text in texts)
        usual = sum(max(len(text.split()), len(text.encode()) // USUAL_BYTES, 1) for text in texts)
        yield Need(number + 1, len(texts), words + (answers if _to_the_end(workload) else 0), usual, answers)


def _to_the_end(workload: Talk) -> bool:
    """Whether every answer is as long as it may be."""
    return isinstance(workload, Workload) and workload.ignore_eos


def check_contexts(loaded: LoadedManifest, wanted: Collection[str]) -> tuple[list[Problem], list[Problem]]:
    """What of the wanted workloads cannot fit its context with any model of the manifest, and what may not fit."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for name, workload in loaded.manifest.conversations.items():
        if name not in wanted or workload.conversations == MELT:  # which is not here yet
            continue
        try:
            conversations = load_conversations(workload, loaded.path.parent)
            if workload.continuous:
                lay_out(loaded, name, conversations)
        except ManifestError as error:
            problems += error.problems
            continue
        if not workload.continuous:
            check_texts(loaded, name, workload, conversations, problems, warnings)
    return problems, warnings


def check_texts(
    loaded: LoadedManifest,
    name: str,
    workload: Talk,
    conversations: Sequence[Sequence[str]],
    problems: list[Problem],
    warnings: list[Problem],
) -> None:
    """Add what of a workload's conversations cannot fit its context, or else may not."""
    field = ("workloads", name, "context")
    named = {str(model.chat_template) for model in loaded.manifest.models.values()}
    # What a model brings, or a file has, comes on top of the plain texts.
    templates = {name if name in BUILT_IN else "plain" for name in named}
    found = [list(needs(workload, conversations, BUILT_IN[each])) for each in sorted(templates)]
    worst = [max(each, key=lambda need: need.least) for each in found if each]
    usual = max((need for each in found for need in each), key=lambda need: need.usual, default=None)
    if worst and (need := min(worst, key=lambda each: each.least)).least > workload.context:
        problems.append(problem_at(loaded, field, _too_small(need, workload), _MEND))
    elif usual is not None and usual.usual > workload.context:
        warnings.append(problem_at(loaded, field, _may_be_too_small(usual, workload)))


def beyond_training(loaded: LoadedManifest) -> list[Problem]:
    """Workloads whose context is longer than models were trained for: those cells will be skipped."""
    found: list[Problem] = []
    for name, workload in loaded.manifest.workloads.items():
        trained = {model: each.trained_context for model, each in loaded.manifest.models.items()}
        short = [f"{model} ({most})" for model, most in trained.items() if most is not None and workload.context > most]
        if short:
            message = (
                f"{workload.context} tokens are more than these models have: {', '.join(short)}; such cells are skipped"
            )
            found.append(problem_at(loaded, ("workloads", name, "context"), message))
    return found


_MEND = "a larger context, fewer turns, or a smaller max_tokens"


def _too_small(need: Need, workload: Talk) -> str:
    answers = f" with answers of {workload.max_tokens} tokens" if _to_the_end(workload) else ""
    return (
        f"{_what(need, workload, answers)} takes at least {need.least} tokens, and the context has {workload.context}"
    )


def _may_be_too_small(need: Need, workload: Talk) -> str:
    return (
        f"{_what(need, workload)} takes about {need.prompts} tokens for its prompts and up to {need.answers} for its answers, and "
        f"the context has {workload.context}: where it is full the conversation ends"
    )


def _what(need: Need, workload: Talk, answers: str = "") -> str:
    if isinstance(workload, AnswerWorkload):
        return f"question {need.number}"
    return f"conversation {need.number} ({counted(need.turns, 'turn')}{answers})"


def lay_out(
    loaded: LoadedManifest, name: str, conversations: Sequence[Sequence[str]], templates: Collection[ChatTemplate] = ()
) -> list[list[str]]:
    """All prompts of a workload in order, in as few conversations as are sure to fit its context, whichever template they get.

    Only a model knows how many tokens a prompt has, and all models of a campaign shall get the same layout: so it counts as
    many as it has bytes, which no tokenizer exceeds, and an answer as many as it may have. Raises `ManifestError` where a
    single prompt with its answer might not fit.
    """
    workload = loaded.manifest.conversations[name]
    around = [render(template, None, ()) for template in templates]
    each = max([TURN_TOKENS, *(found.later + _ADDED for found in around)])
    first = max([FIRST_TURN_TOKENS, *(found.first + _ADDED for found in around)])
    pieces: list[list[str]] = []
    free = 0
    for prompt in (prompt for turns in conversations for prompt in turns):
        needed = len(prompt.encode()) + each + workload.max_tokens
        if not pieces or needed > free:
            pieces.append([])
            free = workload.context - first - len((workload.system or "").encode())
        if needed > free:
            message = (
                f"the prompt {shorten(prompt)} and an answer of {workload.max_tokens} tokens may need "
                f"{workload.context - free + needed} tokens, and the context has {workload.context}"
            )
            raise ManifestError([problem_at(loaded, ("workloads", name, "context"), message)])
        pieces[-1].append(prompt)
        free -= needed
    return pieces
