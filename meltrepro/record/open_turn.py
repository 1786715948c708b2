"""A turn whose end is still to come, while events are read."""

from __future__ import annotations

from typing import get_args

from meltrepro.record.event_fields import EventFields
from meltrepro.record.trace import Drafted, Served, Span, Stop, Thought, Turn


class OpenTurn:
    """What is known of it so far."""

    def __init__(self, index: int, begin_ns: int) -> None:
        self.index = index
        self.begin_ns = begin_ns
        self.n_prompt: int | None = None
        self.prefill_begin_ns = 0
        self.prefill: Span | None = None
        self.token_ns: list[int] = []
        self.token_ids: list[int] = []
        self.margins: list[float | None] = []
        self.thinking: list[Thought] = []
        self.thinking_begin: int | None = None
        self.answer_at: int | None = None
        self.restore_begin_ns: int | None = None
        self.restored: Span | None = None
        self.asked = False
        """Whether the engine of another device was asked."""

    def ended(self, fields: EventFields) -> Turn:
        """The turn, as its last event completes it; raises `RecordError`."""
        if self.thinking_begin is not None:  # cut off by a limit, or ended by the model
            self.thinking.append(Thought(self.thinking_begin, len(self.token_ids)))
        stop = fields.one_of("stop", get_args(Stop))
        if not self.token_ids and stop != "context":
            fields.fail(f"the turn stopped for `{stop}` without a token")
        return Turn(
            index=self.index,
            begin_ns=self.begin_ns,
            end_ns=fields.t,
            prefill=self.prefill,
            token_ns=tuple(self.token_ns),
            token_ids=tuple(self.token_ids),
            n_prompt=fields.whole("n_prompt"),
            n_past=fields.whole("n_past"),
            stop=stop,
            text=fields.string("text"),
            margins=() if set(self.margins) <= {None} else tuple(self.margins),
            thinking=tuple(self.thinking),
            answer_at=self.answer_at,
            answer=fields.string_or_none("answer"),
            restored=self.restored,
            drafted=self._drafted(fields),
            sequences=max(fields.whole_or_none("sequences") or 1, 1),
            readers=max(fields.whole_or_none("readers") or 1, 1),
            served=self._served(fields) if self.asked else None,
        )

    @property
    def is_answered(self) -> bool:
        """Whether tokens may come."""
        return self.prefill is not None or self.asked

    def _served(self, fields: EventFields) -> Served:
        found = Served(
            fields.whole("served_ns"),
            fields.whole_or_none("first_ns"),
            fields.whole("sent_bytes"),
            fields.whole("received_bytes"),
        )
        if found.ns > fields.t - self.begin_ns or (found.first_ns or 0) > found.ns:
            fields.fail(f"the other device took {found.ns} ns for a turn of {fields.t - self.begin_ns} ns")
        return found

    def _drafted(self, fields: EventFields) -> Drafted | None:
        tokens = fields.whole_or_none("drafted")
        if tokens is None:
            return None
        found, most = (
            Drafted(tokens, fields.whole("accepted"), fields.whole("draft_ns")),
            max(len(self.token_ids) - 1, 0),
        )
        if found.accepted > min(tokens, most):
            fields.fail(
                f"{found.accepted} tokens accepted, of {tokens} that were drafted and {most} that they could be"
            )
        return found
