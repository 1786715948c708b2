"""A trial as a tree of spans at their true times: trial > load, conversation > turn > prefill, generate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from meltrepro.errors import RecordError
from meltrepro.measure.records import TrialRecord
from meltrepro.record.trace import Trace, Turn
from meltrepro.record.trial import Request
from meltrepro.words import counted

_PREVIEW = 200
"""Characters of prompt and answer in a list of traces."""


@dataclass(frozen=True)
class SpanRecord:
    """One span; times are Unix nanoseconds."""

    id: str
    """16 hexadecimal digits."""
    parent_id: str | None
    name: str
    type: str
    begin_ns: int
    end_ns: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: Any = None
    outputs: Any = None


@dataclass(frozen=True)
class TraceRecord:
    """All spans of a trial; the first is their root."""

    id: str
    """32 hexadecimal digits, the same whenever the same trial is logged."""
    spans: tuple[SpanRecord, ...]

    @property
    def asked(self) -> str | None:
        return next((str(span.inputs)[:_PREVIEW] for span in self.spans if span.inputs is not None), None)

    @property
    def answered(self) -> str | None:
        return next((str(span.outputs)[:_PREVIEW] for span in self.spans if span.outputs is not None), None)


def trace_of(campaign_id: str, cell_id: str, name: str, trial: TrialRecord, trace: Trace) -> TraceRecord:
    """The spans of a trial of a cell with this name, with prompts and answers where the request is at hand."""
    turns = trace.turns
    what = f"turn {turns[0].index}" if len(turns) == 1 else counted(len(turns), "turn")
    identity = f"{campaign_id}/{cell_id}/{trial.name}"
    builder = _Builder(identity, trace, _prompts(trial))
    return TraceRecord(_hex(identity, 32), tuple(builder.build(f"{name} · {trial.name} · {what}")))


class _Builder:
    def __init__(self, identity: str, trace: Trace, prompts: Sequence[Sequence[str]]) -> None:
        self._identity = identity
        self._trace = trace
        self._prompts = prompts
        self._spans: list[SpanRecord] = []

    def build(self, name: str) -> list[SpanRecord]:
        """The spans below a root of this name."""
        trace = self._trace
        root = self._add(
            name,
            "CHAIN",
            None,
            trace.hello.t_ns,
            trace.done_ns,
            {"framework": trace.hello.framework, "commit": trace.hello.commit, "isa": trace.hello.isa},
        )
        self._add("load", "UNKNOWN", root, trace.load.begin_ns, trace.load.end_ns, {"bytes": trace.load.model_bytes})
        if trace.warmup:
            self._add("warm-up", "UNKNOWN", root, trace.warmup.begin_ns, trace.warmup.end_ns, {})
        for conversation in trace.conversations:
            label = f"conversation {conversation.index}"
            parent = self._add(label, "CHAIN", root, conversation.begin_ns, conversation.end_ns, {})
            for turn in conversation.turns:
                self._turn(parent, conversation.index, turn)
        return self._spans

    def _turn(self, parent: str, conversation: int, turn: Turn) -> None:
        tokens = {
            "input_tokens": turn.n_prompt,
            "output_tokens": turn.n_gen,
            "total_tokens": turn.n_prompt + turn.n_gen,
        }
        span = self._add(
            f"conversation {conversation}, turn {turn.index}",
            "LLM",
            parent,
            turn.begin_ns,
            turn.end_ns,
            {"stop": turn.stop, "n_past": turn.n_past, "mlflow.chat.tokenUsage": tokens},
            inputs=self._prompt(conversation, turn.index),
            outputs=turn.text,
        )
        if turn.prefill is not None:
            attributes = {"tokens": turn.n_prompt}
            self._add("prefill", "UNKNOWN", span, turn.prefill.begin_ns, turn.prefill.end_ns, attributes)
            if turn.token_ns:
                attributes = {"tokens": turn.n_gen}
                self._add("generate", "UNKNOWN", span, turn.prefill.end_ns, turn.token_ns[-1], attributes)
        elif turn.was_read:
            self._add("answer", "UNKNOWN", span, turn.token_ns[0], turn.token_ns[-1], {"tokens": turn.n_gen})

    def _add(
        self,
        name: str,
        type: str,
        parent: str | None,
        begin_ns: int,
        end_ns: int,
        attributes: Mapping[str, Any],
        inputs: Any = None,
        outputs: Any = None,
    ) -> str:
        id = _hex(f"{self._identity}/{len(self._spans)}", 16)
        wall = self._trace.wall_ns
        self._spans.append(
            SpanRecord(id, parent, name, type, wall(begin_ns), wall(end_ns), attributes, inputs, outputs)
        )
        return id

    def _prompt(self, conversation: int, turn: int) -> str | None:
        try:
            return self._prompts[conversation][turn]
        except IndexError:
            return None


def _prompts(trial: TrialRecord) -> Sequence[Sequence[str]]:
    """The texts that were asked, by conversation and turn; none where the request cannot be read."""
    try:
        request = trial.request
    except RecordError:
        return ()
    if not isinstance(request, Request):
        return ()
    return [
        [each if isinstance(each, str) else counted(each.tokens, "token") for each in turns]
        for turns in request.conversations
    ]


def _hex(text: str, digits: int) -> str:
    return sha256(text.encode()).hexdigest()[:digits]
