"""From `events.jsonl` (docs/runner.md) to a trace.

The reader believes nothing. A line that is no event, time that runs backwards, an event out of its place, counts that
contradict each other, an end without `done`: each is a `RecordError` that names file and line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import get_args

from meltrepro import untrusted
from meltrepro.errors import RecordError
from meltrepro.record.event_fields import EventFields
from meltrepro.record.open_turn import OpenTurn
from meltrepro.record.placement import Placement
from meltrepro.record.trace import (
    Cached,
    ContextUsed,
    Conversation,
    Decoding,
    DraftModel,
    Fill,
    Hello,
    Load,
    Memory,
    MemoryPhase,
    Operator,
    OperatorCall,
    OperatorPhase,
    Said,
    Span,
    Thought,
    Trace,
    Turn,
)
from meltrepro.words import shorten

_CONTRACT = 1
_LONGEST_LINE = 1 << 24
"""Bytes; far above any answer's text, far below what would exhaust memory."""
_NUMBER = rb"(0|[1-9][0-9]{0,17})"
_DECIMAL = rb"((?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?(?:e[+-]?[0-9]{1,2})?)"
_TOKEN = re.compile(
    rb'\{"e": ?"token", ?"t": ?%b, ?"i": ?%b, ?"id": ?%b(?:, ?"margin": ?%b)?\}\n'
    % (_NUMBER, _NUMBER, _NUMBER, _DECIMAL)
)
"""A token as runners write it: nearly every line of a long trial is one."""


def read_trace(path: Path) -> Trace:
    """The trace in a file; raises `RecordError`."""
    try:
        with untrusted.opened(path) as file:
            return parse_trace(iter(lambda: file.readline(_LONGEST_LINE), b""), str(path))
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}") from error


def parse_trace(lines: Iterable[bytes], name: str = "events") -> Trace:
    """The trace in lines that keep their line ends; `name` is for messages. Raises `RecordError`."""
    parser = _Parser(name)
    for line in lines:
        parser.feed(line)
    return parser.finish()


class _Parser:
    """Where the events are in the order that the contract lays down."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._last_ns = 0
        self._hello: Hello | None = None
        self._load_begin_ns: int | None = None
        self._cached: tuple[float | None, Cached | None] = None, None
        self._load: Load | None = None
        self._draft: DraftModel | None = None
        self._context: ContextUsed | None = None
        self._process: Said | None = None
        self._effective: Said | None = None
        self._placement: Placement | None = None
        self._warmup_begin_ns: int | None = None
        self._warmup: Span | None = None
        self._conversations: list[Conversation] = []
        self._conversation_begin_ns: int | None = None
        self._fill_begin: tuple[int, int] | None = None
        self._fill: Fill | None = None
        self._save_begin_ns: int | None = None
        self._turns: list[Turn] = []
        self._turn: OpenTurn | None = None
        self._memory: list[Memory] = []
        self._pulse_begin_ns: int | None = None
        self._pulses: list[Span] = []
        self._decoding: dict[str, Decoding] = {}
        self._operators: dict[tuple[str, str, str], Operator] = {}
        self._nodes: list[OperatorCall] = []
        self._done_ns: int | None = None

    def feed(self, line: bytes) -> None:
        """Take the next line."""
        self._number += 1
        if self._took_token(line):
            return
        if not line.endswith(b"\n"):
            raise RecordError(f"{self._where}: the line is cut off")
        fields = self._fields(line)
        if fields.t < self._last_ns:
            fields.fail(f"time runs backwards, from {self._last_ns} to {fields.t}")
        self._last_ns = fields.t
        if self._done_ns is not None:
            fields.fail(f"`{fields.kind}` after `done`")
        if self._hello is None and fields.kind != "hello":
            fields.fail(f"expected `hello` first, got `{fields.kind}`")
        handler = _HANDLERS.get(fields.kind)
        if handler is None:
            fields.fail(f"unknown event `{shorten(ascii(fields.kind))}`")
        handler(self, fields)

    def _took_token(self, line: bytes) -> bool:
        """Take a token that is in its place, ten times as fast; whatever else a line is, the others say."""
        turn = self._turn
        if turn is None or not turn.is_answered or (found := _TOKEN.fullmatch(line)) is None:
            return False
        t_ns, index, token_id = map(int, found.groups()[:3])
        if t_ns < self._last_ns or index != len(turn.token_ids):
            return False
        self._last_ns = t_ns
        turn.token_ns.append(t_ns)
        turn.token_ids.append(token_id)
        turn.margins.append(None if found[4] is None else float(found[4]))
        return True

    def finish(self) -> Trace:
        """The trace, once all lines are in."""
        if self._done_ns is None or self._hello is None or self._load is None or self._context is None:
            raise RecordError(f"{self._name}: ends after line {self._number} without `done`")
        return Trace(
            self._hello,
            self._load,
            self._context,
            self._warmup,
            tuple(self._conversations),
            tuple(self._memory),
            tuple(self._pulses),
            tuple(self._decoding.values()),
            tuple(self._operators.values()),
            tuple(self._nodes),
            self._done_ns,
            self._process or {},
            self._effective or {},
            self._draft,
            self._placement,
        )

    @property
    def _where(self) -> str:
        return f"{self._name}:{self._number}"

    def _fields(self, line: bytes) -> EventFields:
        try:
            values = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{self._where}: no event: {error}") from error
        if not isinstance(values, dict):
            raise RecordError(f"{self._where}: expected an object, got {shorten(ascii(values))}")
        return EventFields(values, self._where)

    # -- one method an event ------------------------------------------------------------------------------------

    def _on_hello(self, fields: EventFields) -> None:
        if self._hello is not None:
            fields.fail("a second `hello`")
        version = fields.whole("v")
        if version != _CONTRACT:
            fields.fail(f"version {version} of the contract, this program knows {_CONTRACT}")
        self._hello = Hello(
            t_ns=fields.t,
            wall_ns=fields.whole("wall"),
            runner=fields.string("runner"),
            framework=fields.string("framework"),
            commit=fields.string("commit"),
            isa=fields.string("isa"),
            pid=fields.whole("pid", most=2**31 - 1),
            system=fields.string("system"),
        )

    def _on_process(self, fields: EventFields) -> None:
        if self._process is not None or self._load_begin_ns is not None:
            fields.fail("`process` must come once, before `load_begin`")
        self._process = fields.said()

    def _on_load_begin(self, fields: EventFields) -> None:
        if self._load_begin_ns is not None:
            fields.fail("a second `load_begin`")
        self._load_begin_ns = fields.t
        self._cached = fields.amount_or_none("cached_share"), fields.one_of_or_none("asked", get_args(Cached))

    def _on_load_end(self, fields: EventFields) -> None:
        if self._load_begin_ns is None or self._load is not None:
            fields.fail("`load_end` without `load_begin`")
        self._load = Load(
            begin_ns=self._load_begin_ns,
            end_ns=fields.t,
            model_bytes=fields.whole("model_bytes"),
            n_params=fields.whole("n_params"),
            n_vocab=fields.whole("n_vocab"),
            n_ctx_train=fields.whole("n_ctx_train"),
            cached_share=self._cached[0],
            asked=self._cached[1],
        )

    def _on_context(self, fields: EventFields) -> None:
        if self._load is None or self._context is not None:
            fields.fail("`context` must come once, after `load_end`")
        self._context = ContextUsed(
            t_ns=fields.t,
            n_ctx=fields.whole("n_ctx"),
            n_batch=fields.whole("n_batch"),
            threads=fields.whole("threads"),
            kv_bytes=fields.whole_or_none("kv_bytes"),
        )

    def _on_effective(self, fields: EventFields) -> None:
        if self._context is None or self._effective is not None or self._conversations or self._in_conversation:
            fields.fail("`effective` must come once, after `context`")
        self._effective = fields.said("placement")
        self._placement = fields.placement()

    def _on_draft(self, fields: EventFields) -> None:
        if self._context is None or self._draft is not None or self._conversations or self._in_conversation:
            fields.fail("`draft` must come once, after `context`")
        self._draft = DraftModel(
            model_bytes=fields.whole("model_bytes"),
            n_params=fields.whole("n_params"),
            kv_bytes=fields.whole_or_none("kv_bytes"),
        )

    def _on_warmup_begin(self, fields: EventFields) -> None:
        if self._context is None or self._warmup_begin_ns is not None or self._in_conversation or self._conversations:
            fields.fail("`warmup_begin` must come once, between `context` and the first conversation")
        self._warmup_begin_ns = fields.t

    def _on_warmup_end(self, fields: EventFields) -> None:
        if self._warmup_begin_ns is None or self._warmup is not None:
            fields.fail("`warmup_end` without `warmup_begin`")
        self._warmup = Span(self._warmup_begin_ns, fields.t)

    def _on_conversation_begin(self, fields: EventFields) -> None:
        if self._context is None or self._in_warmup or self._in_conversation or self._pulse_begin_ns is not None:
            fields.fail("`conversation_begin` before `context`, in a warm-up, in a pulse or in another conversation")
        self._expect(fields, "c", len(self._conversations))
        self._conversation_begin_ns = fields.t
        self._turns = []
        self._fill_begin = self._fill = self._save_begin_ns = None

    def _on_fill_begin(self, fields: EventFields) -> None:
        if not self._in_conversation or self._turns or self._turn is not None or self._fill_begin is not None:
            fields.fail("`fill_begin` must come once in a conversation, before its first turn")
        self._fill_begin = fields.t, fields.whole("n")

    def _on_fill_end(self, fields: EventFields) -> None:
        if self._fill_begin is None or self._fill is not None:
            fields.fail("`fill_end` without `fill_begin`")
        self._fill = Fill(self._fill_begin[1], Span(self._fill_begin[0], fields.t))

    def _on_save_begin(self, fields: EventFields) -> None:
        if self._fill is None or self._save_begin_ns is not None or self._turns or self._turn is not None:
            fields.fail("`save_begin` must come once in a conversation, between `fill_end` and the first turn")
        self._save_begin_ns = fields.t

    def _on_save_end(self, fields: EventFields) -> None:
        if self._fill is None or self._save_begin_ns is None or self._fill.saved is not None:
            fields.fail("`save_end` without `save_begin`")
        span = Span(self._save_begin_ns, fields.t)
        self._fill = replace(self._fill, saved=span, saved_bytes=fields.whole("bytes"))

    def _on_restore_begin(self, fields: EventFields) -> None:
        turn = self._open_turn(fields)
        if self._fill is None or self._fill.saved is None or turn.n_prompt is not None or turn.restore_begin_ns:
            fields.fail("`restore_begin` must come once in a turn, before `prefill_begin`, of what was saved")
        turn.restore_begin_ns = fields.t

    def _on_restore_end(self, fields: EventFields) -> None:
        turn = self._open_turn(fields)
        if turn.restore_begin_ns is None or turn.restored is not None:
            fields.fail("`restore_end` without `restore_begin`")
        turn.restored = Span(turn.restore_begin_ns, fields.t)

    def _on_conversation_end(self, fields: EventFields) -> None:
        if self._conversation_begin_ns is None or self._turn is not None:
            fields.fail("`conversation_end` without a conversation, or in a turn")
        self._expect(fields, "c", len(self._conversations))
        self._conversations.append(
            Conversation(
                len(self._conversations), self._conversation_begin_ns, fields.t, tuple(self._turns), self._fill
            )
        )
        self._conversation_begin_ns = None

    def _on_turn_begin(self, fields: EventFields) -> None:
        if not self._in_conversation or self._turn is not None:
            fields.fail("`turn_begin` outside a conversation, or in another turn")
        if (self._fill_begin is None) != (self._fill is None):
            fields.fail("`turn_begin` before `fill_end`")
        self._expect(fields, "c", len(self._conversations))
        self._expect(fields, "i", len(self._turns))
        self._turn = OpenTurn(len(self._turns), fields.t)

    def _on_prefill_begin(self, fields: EventFields) -> None:
        turn = self._open_turn(fields)
        if turn.n_prompt is not None or turn.asked:
            fields.fail("a second `prefill_begin` in a turn, or one after `asked`")
        turn.n_prompt = fields.whole("n")
        turn.prefill_begin_ns = fields.t

    def _on_prefill_end(self, fields: EventFields) -> None:
        turn = self._open_turn(fields)
        if turn.n_prompt is None or turn.prefill is not None:
            fields.fail("`prefill_end` without `prefill_begin`")
        turn.prefill = Span(turn.prefill_begin_ns, fields.t)

    def _on_asked(self, fields: EventFields) -> None:
        turn = self._open_turn(fields)
        if turn.asked or turn.n_prompt is not None:
            fields.fail("`asked` must come once in a turn, and no `prefill_begin` with it")
        turn.asked = True

    def _on_token(self, fields: EventFields) -> None:
        turn = self._answering(fields)
        self._expect(fields, "i", len(turn.token_ids))
        turn.token_ns.append(fields.t)
        turn.token_ids.append(fields.whole("id"))
        turn.margins.append(fields.amount_or_none("margin"))

    def _on_thinking_begin(self, fields: EventFields) -> None:
        turn = self._answering(fields)
        if turn.thinking_begin is not None or turn.answer_at is not None:
            fields.fail("`thinking_begin` in thinking, or in an answer")
        self._expect(fields, "i", len(turn.token_ids))
        turn.thinking_begin = len(turn.token_ids)

    def _on_thinking_end(self, fields: EventFields) -> None:
        turn = self._answering(fields)
        if turn.thinking_begin is None:
            fields.fail("`thinking_end` without `thinking_begin`")
        self._expect(fields, "i", len(turn.token_ids))
        turn.thinking.append(Thought(turn.thinking_begin, len(turn.token_ids), fields.truth("cut")))
        turn.thinking_begin = None

    def _on_answer_begin(self, fields: EventFields) -> None:
        turn = self._answering(fields)
        if turn.thinking_begin is not None or turn.answer_at is not None or not turn.token_ids:
            fields.fail("`answer_begin` in thinking, in an answer, or before any token")
        self._expect(fields, "i", len(turn.token_ids) - 1)
        turn.answer_at = len(turn.token_ids) - 1

    def _on_turn_end(self, fields: EventFields) -> None:
        turn = self._open_turn(fields)
        if turn.n_prompt is not None and turn.prefill is None:
            fields.fail("`turn_end` before `prefill_end`")
        self._expect(fields, "c", len(self._conversations))
        self._expect(fields, "i", turn.index)
        self._expect(fields, "n_gen", len(turn.token_ids))
        if turn.n_prompt is not None:
            self._expect(fields, "n_prompt", turn.n_prompt)
        self._turns.append(turn.ended(fields))
        self._turn = None

    def _on_mem(self, fields: EventFields) -> None:
        if self._turn is not None:
            fields.fail("`mem` in a turn, where it would disturb the timing")
        self._memory.append(
            Memory(
                t_ns=fields.t,
                phase=fields.one_of("phase", get_args(MemoryPhase)),
                rss_anon=fields.whole_or_none("rss_anon"),
                rss_file=fields.whole_or_none("rss_file"),
                hwm=fields.whole_or_none("hwm"),
                swap=fields.whole_or_none("swap"),
            )
        )

    def _on_pulse_begin(self, fields: EventFields) -> None:
        if self._context is None or self._in_warmup or self._in_conversation or self._pulse_begin_ns is not None:
            fields.fail("`pulse_begin` before `context`, in a warm-up, in a conversation or in another pulse")
        self._pulse_begin_ns = fields.t

    def _on_pulse_end(self, fields: EventFields) -> None:
        if self._pulse_begin_ns is None:
            fields.fail("`pulse_end` without `pulse_begin`")
        self._pulses.append(Span(self._pulse_begin_ns, fields.t))
        self._pulse_begin_ns = None

    def _on_decoding(self, fields: EventFields) -> None:
        phase = fields.one_of("phase", get_args(OperatorPhase))
        if phase in self._decoding:
            fields.fail(f"a second `decoding` for {phase}")
        self._decoding[phase] = Decoding(phase, fields.whole("count"), fields.whole("ns"))

    def _on_op(self, fields: EventFields) -> None:
        operator = Operator(
            phase=fields.one_of("phase", get_args(OperatorPhase)),
            name=fields.string("name"),
            module=fields.string("module"),
            count=fields.whole("count"),
            ns=fields.whole("ns"),
        )
        key = (operator.phase, operator.name, operator.module)
        if operator.phase not in self._decoding:
            fields.fail(f"`op` before `decoding` of {operator.phase}")
        if key in self._operators:
            fields.fail(f"operator {operator.name} of {operator.module or 'no module'} is there twice")
        self._operators[key] = operator

    def _on_node(self, fields: EventFields) -> None:
        begin_ns = fields.whole("begin")
        span = Span(begin_ns, begin_ns + fields.whole("ns"))
        if span.end_ns > fields.t:
            fields.fail("a node that ends after it was written down")
        phase = fields.one_of("phase", get_args(OperatorPhase))
        self._nodes.append(OperatorCall(phase, fields.string("name"), fields.string("module"), span))

    def _on_error(self, fields: EventFields) -> None:
        fields.fail(f"the runner reported an error: {shorten(ascii(fields.string('message')))}")

    def _on_done(self, fields: EventFields) -> None:
        if self._context is None or self._in_warmup or self._in_conversation or self._pulse_begin_ns is not None:
            fields.fail("`done` before `context`, in a warm-up, in a pulse or in a conversation")
        self._done_ns = fields.t

    @property
    def _in_warmup(self) -> bool:
        return self._warmup_begin_ns is not None and self._warmup is None

    @property
    def _in_conversation(self) -> bool:
        return self._conversation_begin_ns is not None

    def _open_turn(self, fields: EventFields) -> OpenTurn:
        if self._turn is None:
            fields.fail(f"`{fields.kind}` outside a turn")
        return self._turn

    def _answering(self, fields: EventFields) -> OpenTurn:
        """The open turn, once its prompt was read."""
        turn = self._open_turn(fields)
        if not turn.is_answered:
            fields.fail(f"`{fields.kind}` before `prefill_end` or `asked`")
        return turn

    def _expect(self, fields: EventFields, key: str, expected: int) -> None:
        value = fields.whole(key)
        if value != expected:
            fields.fail(f"`{fields.kind}`: {key} is {value}, expected {expected}")


_HANDLERS = {name.removeprefix("_on_"): method for name, method in vars(_Parser).items() if name.startswith("_on_")}
EVENTS = frozenset(_HANDLERS)
"""Names of the events that the contract has."""
