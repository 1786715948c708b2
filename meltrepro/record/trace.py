"""What happened in one complete trial, and when: the values behind `events.jsonl` (docs/runner.md).

Times ending in `_ns` are nanoseconds on the device's monotonic clock, unless a name says `wall`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from meltrepro.record.placement import Placement

Cached = Literal["cold", "warm"]
Stop = Literal["eog", "length", "context"]
MemoryPhase = Literal["load", "turn", "end"]
OperatorPhase = Literal["prefill", "generation"]
Said = Mapping[str, str | int | float | bool]
"""What a program says of itself, by names of its own."""


def text_of(value: str | int | float | bool) -> str:
    """Something that a program says of itself, for people."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Hello:
    """Who ran, and one reading of both clocks."""

    t_ns: int
    wall_ns: int
    """Unix time by the device's clock, read together with `t_ns`."""
    runner: str
    framework: str
    commit: str
    isa: str
    pid: int
    system: str


@dataclass(frozen=True)
class Load:
    """Loading the weights."""

    begin_ns: int
    end_ns: int
    model_bytes: int
    n_params: int
    n_vocab: int
    n_ctx_train: int
    cached_share: float | None = None
    """Part of the model's files that was in the page cache when loading began; `None` where the runner does not say."""
    asked: Cached | None = None
    """What was asked of the page cache."""


@dataclass(frozen=True)
class ContextUsed:
    """The context that the conversations were held in."""

    t_ns: int
    n_ctx: int
    n_batch: int
    threads: int
    kv_bytes: int | None
    """`None` where the framework does not say."""


@dataclass(frozen=True)
class Span:
    """A stretch of time."""

    begin_ns: int
    end_ns: int


@dataclass(frozen=True)
class Thought:
    """A stretch of thinking in an answer, by numbers of tokens from 0."""

    begin: int
    """Its first token."""
    end: int
    """The token after it and the marker that closes it; that after the last of the turn where it was never closed."""
    cut: bool = False
    """Whether its budget ended it, not the model."""


@dataclass(frozen=True)
class Drafted:
    """Speculative decoding in one turn."""

    tokens: int
    """That were foreseen."""
    accepted: int
    """Those of them that the model had chosen too."""
    ns: int
    """Time that foreseeing took."""


@dataclass(frozen=True)
class Served:
    """What the engine on another device took for a turn, and what the link to it carried."""

    ns: int
    """From the prompt's arrival there to the end of the answer, by the clock there."""
    first_ns: int | None
    """From the prompt's arrival to the first token; `None` where there is none."""
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True)
class DraftModel:
    """The model that foresees what another one says."""

    model_bytes: int
    n_params: int
    kv_bytes: int | None


@dataclass(frozen=True)
class Turn:
    """One prompt and its answer."""

    index: int
    begin_ns: int
    end_ns: int
    prefill: Span | None
    """`None` where the prompt did not fit into the context."""
    token_ns: tuple[int, ...]
    token_ids: tuple[int, ...]
    n_prompt: int
    n_past: int
    stop: Stop
    text: str
    margins: tuple[float | None, ...] = ()
    """By how much the logit of each token exceeds the next largest, where it was taken greedily; empty of older runners."""
    thinking: tuple[Thought, ...] = ()
    answer_at: int | None = None
    """Number of the first token of the answer proper; `None` where there is none, or thinking was not looked for."""
    answer: str | None = None
    """The text without the thinking; `None` where thinking was not looked for."""
    restored: Span | None = None
    """Reading a filled context from a file."""
    drafted: Drafted | None = None
    """`None` where every token was decoded by itself."""
    sequences: int = 1
    """That were written abreast; tokens and text are those of the first."""
    readers: int = 1
    """Of these, that read the prompt for themselves."""
    served: Served | None = None
    """`None` where the engine ran here."""

    @property
    def was_read(self) -> bool:
        """Whether an engine has read the prompt."""
        return self.prefill is not None or (self.served is not None and self.n_gen > 0)

    @property
    def n_read(self) -> int:
        """Tokens of the prompt, of all sequences that read it."""
        return self.n_prompt * self.readers

    @property
    def n_gen(self) -> int:
        """Sampled tokens, the one that ends the answer included."""
        return len(self.token_ids)

    @property
    def n_written(self) -> int:
        """Tokens of all sequences that came after their first."""
        return (self.n_gen - 1) * self.sequences

    @property
    def steps(self) -> int:
        """Calls of the decoder that wrote them."""
        return self.n_gen - 1 - (self.drafted.accepted if self.drafted else 0)


@dataclass(frozen=True)
class Fill:
    """Tokens that a context held before its first turn."""

    n: int
    span: Span
    saved: Span | None = None
    """Writing them to a file."""
    saved_bytes: int | None = None


@dataclass(frozen=True)
class Conversation:
    """Turns that share one growing context."""

    index: int
    begin_ns: int
    end_ns: int
    turns: tuple[Turn, ...]
    fill: Fill | None = None


@dataclass(frozen=True)
class Memory:
    """Memory of the runner at one moment, in bytes; `None` where the device does not say."""

    t_ns: int
    phase: MemoryPhase
    rss_anon: int | None
    rss_file: int | None
    hwm: int | None
    swap: int | None


@dataclass(frozen=True)
class Operator:
    """All calls of one operator of one module in one phase of a profiled trial."""

    phase: OperatorPhase
    name: str
    """The framework's name of the operation: `MUL_MAT`."""
    module: str
    """What it belongs to, the same in every layer: a weight (`ffn_up`), or a value's name; empty where it has none."""
    count: int
    ns: int


@dataclass(frozen=True)
class Decoding:
    """All calls of the framework's decoder in one phase of a profiled trial; operators are a part of this time."""

    phase: OperatorPhase
    count: int
    ns: int


@dataclass(frozen=True)
class OperatorCall:
    """One call of an operator, in the one call of the decoder per phase that a profile shows in full."""

    phase: OperatorPhase
    name: str
    module: str
    span: Span


@dataclass(frozen=True)
class Trace:
    """One complete trial."""

    hello: Hello
    load: Load
    context: ContextUsed
    warmup: Span | None
    conversations: tuple[Conversation, ...]
    memory: tuple[Memory, ...]
    pulses: tuple[Span, ...]
    """Planned loads of the sync marks, in order."""
    decoding: tuple[Decoding, ...]
    operators: tuple[Operator, ...]
    nodes: tuple[OperatorCall, ...]
    done_ns: int
    process: Said = field(default_factory=dict)
    """How the kernel treats the runner; empty in records of before it said so."""
    effective: Said = field(default_factory=dict)
    """What the engine uses, as far as it says so."""
    draft: DraftModel | None = None
    placement: Placement | None = None
    """Where it computes; `None` where it does not say."""

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns of all conversations, in order."""
        return tuple(turn for conversation in self.conversations for turn in conversation.turns)

    def wall_ns(self, t_ns: int) -> int:
        """Unix time in nanoseconds of a moment on the device's monotonic clock."""
        return self.hello.wall_ns + (t_ns - self.hello.t_ns)
