"""The manifest: what a user writes, as frozen Pydantic models.

Every model forbids unknown keys. Units stand in the names (`cooldown_s`). Nothing here touches the disk or the
network: `loader` reads YAML into these models, later stages only read them.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    JsonValue,
    SerializeAsAny,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from meltrepro.manifest.accuracy import (
    ANSWERS,
    CONVERSATIONS,
    QUESTIONS,
    TEXT,
    AccuracyWorkload,
    AnswerWorkload,
    QuestionWorkload,
    TextWorkload,
    or_list,
    workload_kind,
)
from meltrepro.manifest.axes import Point, points
from meltrepro.manifest.base import Address, Name, Place, Strict, added, is_name
from meltrepro.manifest.kinds import OptionsOf
from meltrepro.manifest.lengths import Lengths, lengths_in
from meltrepro.manifest.protocol import Measure, Protocol
from meltrepro.manifest.shapes import ModelShape
from meltrepro.manifest.sources import Adapter, Source, SyntheticSource, as_whole, is_checkpoint
from meltrepro.manifest.targets import Target
from meltrepro.registry import FRAMEWORKS, TARGETS
from meltrepro.words import shorten

Prompt = Annotated[str, StringConstraints(pattern=r"\S")]
Conversation = Annotated[list[Prompt], Field(min_length=1)]
"""Prompts of one conversation, in order."""


# -- what is measured ---------------------------------------------------------------------------------------------


class Thinking(Strict):
    """Marks around what a reasoning model thinks before it answers: texts or control tokens of the model."""

    begin: str = Field("<think>", min_length=1, description="What opens the thinking.")
    end: str = Field("</think>", min_length=1, description="What closes it.")


OWN_TEMPLATE = "auto"
"""The chat template that a model brings with it."""


_TEMPLATES = (".jinja", ".jinja2", ".j2", ".txt")
"""Endings of the names of files with one."""


class OtherTemplate(Strict):
    """A chat template that is neither built in nor the model's usual one: exactly one of the keys."""

    file: Place | None = Field(None, description="A file in Jinja, relative to the manifest.")
    jinja: str | None = Field(None, min_length=1, description="The template itself.")
    named: Name | None = Field(
        None, description="Name of another template that the model brings, for example tool_use."
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if [self.file, self.jinja, self.named].count(None) != 2:
            raise ValueError("expected exactly one of the keys file, jinja, named")
        return self


class Model(Strict):
    """A model: where its weights come from and the quantizations to measure."""

    source: Source = Field(description="Where the weights come from.")
    lora: Adapter | None = added(None, description="Adapter that is added to the weights when they are loaded.")
    chat_template: Name | OtherTemplate = Field(
        OWN_TEMPLATE,
        description="How prompts become text: `auto` is the template that the model brings; or the name of a built-in one, "
        "for example chatml; or `{file: mine.jinja}`, `{named: tool_use}`.",
    )
    chat_template_args: dict[Name, JsonValue] = added(
        {}, description="Variables for the chat template, for example `{enable_thinking: false}`."
    )
    quantizations: list[Name] = Field(
        min_length=1, description="Quantizations to make from the source; `as-is` for none."
    )
    thinking: Thinking | None = Field(
        None,
        description="Marks of a reasoning model, whose thinking is told apart from its answers; `{}` for the usual ones. "
        "Where absent, those that the model's own chat template has.",
    )
    context: int | None = Field(
        None,
        ge=1,
        description="Longest context that the model was trained for, in tokens; that of the shape where a synthetic "
        "source names one.",
    )
    parameters: float | None = Field(
        None,
        gt=0,
        description="Number of parameters; lets a plan estimate sizes before anything is fetched. A synthetic source "
        "says it by itself.",
    )
    licence: str | None = Field(None, description="SPDX expression or name of the licence of the weights.")
    redistributable: bool = Field(
        False, description="Whether a bundle may contain the weights themselves; synthetic ones it always may."
    )

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where all of it comes from."""
        return (self.source, self.lora.source) if self.lora is not None else (self.source,)

    @property
    def shape(self) -> ModelShape | None:
        """Every size of a synthetic model; `None` where the weights come from somewhere."""
        return self.source.shape if isinstance(self.source, SyntheticSource) else None

    @property
    def synthetic(self) -> bool:
        """Whether the weights are made up: fit for speed, memory and size, never for accuracy."""
        return self.shape is not None

    @property
    def trained_context(self) -> int | None:
        """Longest context that the model, or the one that it has the shape of, was trained for, in tokens."""
        return self.context or (self.shape.context if self.shape else None)

    @property
    def parameter_count(self) -> float | None:
        """Number of weights, as far as it is known."""
        return self.parameters or (self.shape.parameters if self.shape else None)

    @field_validator("chat_template", mode="before")
    @classmethod
    def _no_file(cls, choice: Any) -> Any:
        if isinstance(choice, str) and ("/" in choice or choice.endswith(_TEMPLATES)):
            raise ValueError(f"expected the name of a template; one in a file is written {{file: {shorten(choice)}}}")
        return choice

    @field_validator("source")
    @classmethod
    def _all_parts(cls, source: Source) -> Source:
        return as_whole(source)

    @field_validator("quantizations")
    @classmethod
    def _no_repeats(cls, names: list[str]) -> list[str]:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise ValueError(f"{name!r} is named twice")
            seen.add(name)
        return names


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


class Require(Strict):
    """What a trial must have been, else it is INVALID."""

    backend: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,30}$",
        description="What must compute every operator, as the engine calls it without a number. Lookups in the table of tokens may be elsewhere.",
    )


class FrameworkEntry(Strict):
    """A framework at a pinned version: a release that the toolkit knows, or a source of your own."""

    kind: Name = Field(
        "",
        description="Which framework it is; the key in `frameworks` where absent.",
        json_schema_extra=_without_default,
    )
    release: str | None = Field(None, description="A pinned release, for example 2024-02-27.")
    releases: list[str] | None = added(
        None, description="Several, also ranges such as 0.3.20 .. 0.3.36: an entry each, called NAME-RELEASE."
    )
    source: Source | None = Field(None, description="A source tree instead of a known release.")
    options: Annotated[SerializeAsAny[BaseModel], OptionsOf(FRAMEWORKS)] = Field(
        default_factory=dict, validate_default=True, description="How it is built and run; each framework has its own."
    )
    optional: bool = added(
        False, description="What is not there or cannot be built leaves out its cells; always so of `releases`."
    )
    require: Require | None = added(None, description="What its trials must have been; a silent fallback is INVALID.")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.releases is not None:
            raise ValueError("'releases' stands in files of manifests alone, which are read into an entry each")
        if (self.release is None) == (self.source is None):
            raise ValueError("expected exactly one of the keys release, releases, source")
        if self.source is not None and is_checkpoint(self.source):
            raise ValueError("weights are no source tree: expected one file, or a repository of git")
        points(self.options)  # which have names of a length that there may be
        return self


def _named(entries: Any) -> Any:
    """Entries that do not say of which kind they are, are of the kind that they are called by."""
    if not isinstance(entries, dict):
        return entries
    return {
        name: {**entry, "kind": name}
        if isinstance(entry, dict) and entry.get("kind") is None and is_name(name)
        else entry
        for name, entry in entries.items()
    }


class Sampling(Strict):
    """How the next token is chosen. The order is: repeat penalty, top-k, temperature, top-p, draw."""

    greedy: bool = Field(False, description="Take the most probable token; the other settings then do nothing.")
    temperature: float = Field(0.9, gt=0, le=10, description="Logits are divided by this.")
    top_k: int = Field(40, ge=0, description="Keep this many of the most probable tokens; 0 keeps every token.")
    top_p: float = Field(0.95, gt=0, le=1, description="Keep the smallest set of tokens with this much probability.")
    repeat_penalty: float = Field(
        1.0, gt=0, le=10, description="Make tokens less probable that came up lately; 1.0 switches it off."
    )
    repeat_last_n: int = Field(64, ge=0, description="How many tokens back the repeat penalty looks.")


class Speculation(Strict):
    """Tokens that are foreseen cheaply. The model checks several in one step, so that its answer stays what it is."""

    tokens: int = Field(8, ge=1, le=64, description="Most tokens that are foreseen at once.")
    ngram: int | None = Field(
        None, ge=1, le=64, description="By what followed so many of the last tokens where they stood before."
    )
    model: Name | None = Field(
        None, description="By another model of the manifest, or the same one; it needs the same vocabulary."
    )
    quantization: Name | None = Field(None, description="Of that model; the cell's own where absent.")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.ngram is None) == (self.model is None):
            raise ValueError("expected exactly one of the keys ngram, model")
        if self.model is None and self.quantization is not None:
            raise ValueError("'quantization' does nothing without 'model'")
        return self


class Offload(Strict):
    """An engine on another device, which each target's own asks over a network and waits for."""

    to: Name = Field(description="The target of this manifest whose engine answers.")
    address: str | None = Field(
        None,
        min_length=1,
        description="How the devices that ask reach it: an IP address, or a name that this machine knows; by itself that of its SSH link.",
    )
    listen: str | None = Field(
        None, min_length=1, description="IP address at which it waits for them; that of `address` where absent."
    )
    port: int = Field(7878, ge=1024, le=65535, description="TCP port that it waits at, while a trial runs.")


class Workload(Strict):
    """Conversations and the limits under which they are held."""

    conversations: Place | Annotated[list[Conversation], Field(min_length=1)] = Field(
        description="A YAML file of conversations, relative to the manifest; `melt` for MELT's own set, which is fetched; the conversations (lists of prompts); or lengths in tokens as llama-bench names them, `pp512/tg128`."
    )
    first: int | None = Field(None, ge=1, description="Use only the first N conversations.")
    turns: int | None = Field(None, ge=1, description="Use only the first N prompts of each conversation.")
    prompts: int | None = Field(
        None, ge=1, description="Use only the first N prompts, counted from conversation to conversation."
    )
    continuous: bool = Field(
        False,
        description="Ask all prompts one after the other without pauses; an empty context begins where a turn may not fit.",
    )
    system: str | None = Field(None, description="System prompt; the chat template's own where absent.")
    date: datetime.date | None = added(
        None, description="The day that chat templates are told which ask for it; 2026-01-01 where absent."
    )
    context: int = Field(2048, ge=16, description="Context window in tokens.")
    max_tokens: int = Field(256, ge=1, description="Longest answer in tokens.")
    max_thinking_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens of an answer's thinking after which it is ended; no limit where absent. Models without `thinking` do not know it.",
    )
    ignore_eos: bool = Field(False, description="Generate exactly max_tokens, whatever the model says.")
    batch: int = Field(512, ge=1, description="Most tokens in one prefill step.")
    sampling: Sampling = Sampling(greedy=True)
    depth: int = added(
        0,
        ge=0,
        description="Of lengths: tokens that the context holds before. A list makes a workload of each: `NAME-depth1024`.",
        json_schema_extra=or_list,
    )
    hit_rate: float = added(
        0.0,
        ge=0,
        lt=1,
        description="Of lengths: part of the prompt that the context holds already, as after a prefix that was kept. A list makes a workload of each.",
        json_schema_extra=or_list,
    )
    restore: bool = added(
        False, description="Of lengths: write what the context holds before to a file, and read it within the turn."
    )
    sequences: int = added(
        1,
        ge=1,
        le=64,
        description="Answers that are written abreast; they need ignore_eos or lengths. A list makes a workload of each.",
        json_schema_extra=or_list,
    )
    shared_prompt: bool = added(
        True,
        description="Whether one of several sequences reads a prompt, and the others go on from there; `false`: each reads it for itself, all at once.",
    )
    speculate: Speculation | None = added(None, description="Foresee tokens; absent: decode each by itself.")
    page_cache: Literal["cold", "warm"] | None = added(
        None,
        description="What the page cache holds of the model's files when it is loaded: nothing, or all; as it comes where absent.",
    )
    offload: Offload | None = added(None, description="Have another device's engine answer; absent: the target's own.")

    @model_validator(mode="before")
    @classmethod
    def _roomy(cls, values: Any) -> Any:
        """Lengths have the context that they need."""
        lengths = lengths_in(values.get("conversations")) if isinstance(values, dict) else None
        if lengths is None or "context" in values or not isinstance(values.get("depth", 0), int):
            return values
        return {**values, "context": lengths.context(values.get("depth", 0))}

    @model_validator(mode="after")
    def _of_one_form(self) -> Self:
        lengths = self.lengths
        if lengths is None:
            if keys := [key for key in ("depth", "hit_rate", "restore") if getattr(self, key)]:
                raise ValueError(f"{keys[0]!r} needs lengths: conversations: pp512/tg128")
            if self.sequences > 1 and not self.ignore_eos:
                raise ValueError("several 'sequences' need 'ignore_eos', so that none ends before the others")
            return self._alone()
        texts = ("first", "turns", "prompts", "continuous", "system", "date", "max_tokens", "max_thinking_tokens")
        if keys := [key for key in texts if getattr(self, key) != type(self).model_fields[key].default]:
            raise ValueError(f"{keys[0]!r} does nothing with lengths, which have no texts and say how many tokens")
        if self.hit_rate and lengths.prompt is None:
            raise ValueError("'hit_rate' is of a prompt: conversations: pp512")
        if self.restore and not (self.depth or self.hit_rate):
            raise ValueError("'restore' needs 'depth' or 'hit_rate': a file of an empty context is none")
        if (needed := lengths.context(self.depth)) > self.context:
            raise ValueError(f"a context of {self.context} tokens does not hold the {needed} of these lengths")
        return self._alone()

    def _alone(self) -> Self:
        if self.sequences > self.batch:
            raise ValueError(f"a batch of {self.batch} tokens does not hold one of each of {self.sequences} sequences")
        if self.speculate is not None and self.sequences > 1:
            raise ValueError("'speculate' is of one sequence")
        if self.offload is not None and (self.lengths is not None or self.sequences > 1):
            raise ValueError(
                "'offload' needs conversations of texts, and one sequence: what is sent is part of what it costs"
            )
        return self

    @property
    def lengths(self) -> Lengths | None:
        """What is read and written, where texts do not matter."""
        return lengths_in(self.conversations)


AnyWorkload = Annotated[
    Annotated[Workload, Tag(CONVERSATIONS)]
    | Annotated[QuestionWorkload, Tag(QUESTIONS)]
    | Annotated[TextWorkload, Tag(TEXT)]
    | Annotated[AnswerWorkload, Tag(ANSWERS)],
    Discriminator(workload_kind),
]


class Tracking(Strict):
    """Where results are logged. MLFLOW_TRACKING_URI wins over `uri`."""

    experiment: str | None = Field(
        None, min_length=1, description="MLflow experiment; the manifest's name where absent."
    )
    uri: Address | None = Field(None, description="MLflow tracking URI; a local SQLite file where absent.")
    enabled: bool = Field(True, description="Whether to log to MLflow at all; records are kept in any case.")


Reference = Literal["auto", "control", "recorded"]


class Replay(Strict):
    """What a replay of this manifest's campaigns must show; declared before anything is measured."""

    margin: float = Field(0.05, gt=0, lt=1, description="Largest relative difference that still counts as the same.")
    maximum: int = Field(30, ge=5, le=1000, description="Most trials per cell before a replay ends INCONCLUSIVE.")
    session_cv: float = Field(
        0.01, ge=0, lt=1, description="How much medians of two sessions differ on a device that was not calibrated."
    )
    reference: Reference = added(
        "auto",
        description="What replayed trials are held against: the recorded artifact, run beside them (`control`), the values in the "
        "record (`recorded`), or the latter only where a calibration shows that sessions of the device differ little enough.",
    )


def this_machine() -> dict[str, Target]:
    """The targets of a manifest that names none."""
    return {"host": TARGETS.get("host").options()}


class Manifest(Strict):
    """The whole file: models x quantizations x frameworks x targets x workloads."""

    meltrepro: Literal[1] = Field(description="Version of the manifest format.")
    name: Name = Field(description="Name of the campaigns that this manifest describes.")
    description: str = Field("", description="What is measured and why, for people.")
    study: Name | None = Field(
        None, description="Study whose claims the results are held against, such as `melt`; of none where absent."
    )
    include: list[str] = Field(
        default_factory=list, description="Manifests whose keys are merged in first, relative to this file."
    )
    models: dict[Name, Model] = Field(min_length=1, description="Models by a name of your own.")
    frameworks: Annotated[dict[Name, FrameworkEntry], BeforeValidator(_named)] = Field(
        min_length=1, description="Frameworks by a name of your own, or by the kind of framework."
    )
    targets: dict[Name, Target] = Field(
        default_factory=this_machine,
        min_length=1,
        description="Devices by a name of your own; this machine where absent.",
    )
    workloads: dict[Name, AnyWorkload] = Field(
        min_length=1, description="Workloads by a name of your own: conversations, or a task of accuracy."
    )
    protocol: Protocol = Protocol()
    measure: Measure = Measure()
    tracking: Tracking = Tracking()
    replay: Replay = Replay()

    @property
    def points(self) -> dict[str, tuple[str, Point]]:
        """The frameworks with one value for each option, by what ids call them: the name of the entry, and the options."""
        return {
            name + point.name: (name, point)
            for name, entry in self.frameworks.items()
            for point in points(entry.options)
        }

    @property
    def conversations(self) -> dict[str, Workload]:
        """The workloads that are conversations in words, by name."""
        workloads = self.workloads.items()
        return {name: each for name, each in workloads if isinstance(each, Workload) and each.lengths is None}

    @property
    def talks(self) -> dict[str, Workload | AnswerWorkload]:
        """The workloads that a model answers in its own words, by name."""
        answers = {name: each for name, each in self.workloads.items() if isinstance(each, AnswerWorkload)}
        return {**self.conversations, **answers}

    @property
    def accuracy(self) -> dict[str, AccuracyWorkload]:
        """The workloads that are tasks of accuracy, by name."""
        return {name: each for name, each in self.workloads.items() if not isinstance(each, Workload)}
