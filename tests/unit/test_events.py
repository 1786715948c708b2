"""The reader of events: what a runner writes is read, everything else is refused with a line number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import RecordError
from meltrepro.record.events import parse_trace, read_trace
from meltrepro.record.trace import Decoding, Drafted, DraftModel, Fill, Operator, OperatorCall, Span, Thought, Trace
from tests.support.campaigns import MS, START_WALL_NS, Trial, Turn, as_lines, events

Events = list[dict[str, Any]]

turns = st.builds(
    Turn,
    prompt_tokens=st.integers(1, 500),
    tokenize_ns=st.integers(0, 10**7),
    prefill_ns=st.integers(0, 10**10),
    first_ns=st.integers(0, 10**7),
    gaps_ns=st.lists(st.integers(0, 10**9), max_size=8).map(tuple),
    tail_ns=st.integers(0, 10**7),
    fits=st.booleans(),
)
trials = st.builds(
    Trial,
    conversations=st.lists(st.lists(turns, max_size=3), max_size=3),
    load_ns=st.integers(0, 10**10),
    kv_bytes=st.none() | st.integers(0, 2**40),
    hwm=st.none() | st.integers(0, 2**40),
    warmup_tokens=st.sampled_from([0, 16]),
)


def parse(entries: Events) -> Trace:
    return parse_trace(as_lines(entries))


def find(entries: Events, kind: str, nth: int = 0) -> int:
    return [i for i, entry in enumerate(entries) if entry["e"] == kind][nth]


@given(trials)
def test_what_a_runner_writes_is_read(trial: Trial) -> None:
    trace = parse(events(trial))
    assert trace.load.end_ns - trace.load.begin_ns == trial.load_ns
    assert trace.context.kv_bytes == trial.kv_bytes
    assert (trace.warmup is not None) == bool(trial.warmup_tokens)
    assert [len(c.turns) for c in trace.conversations] == [len(c) for c in trial.conversations]
    truth = [turn for conversation in trial.conversations for turn in conversation]
    for read, true in zip(trace.turns, truth, strict=True):
        assert read.n_gen == true.count
        assert read.n_prompt == true.prompt_tokens
        if true.fits:
            assert read.prefill is not None
            assert read.prefill.end_ns - read.prefill.begin_ns == true.prefill_ns
            assert [b - a for a, b in zip(read.token_ns, read.token_ns[1:], strict=False)] == list(true.gaps_ns)
        else:
            assert read.prefill is None


@given(trials)
def test_how_a_line_is_written_does_not_matter(trial: Trial) -> None:
    entries = events(trial)
    backwards = [json.dumps(dict(reversed(entry.items()))).encode() + b"\n" for entry in entries]
    narrow = [json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in entries]
    assert parse_trace(backwards) == parse_trace(narrow) == parse(entries)


def test_wall_time_follows_from_one_anchor() -> None:
    trace = parse(events(Trial()))
    assert trace.wall_ns(trace.hello.t_ns) == START_WALL_NS
    assert trace.wall_ns(trace.hello.t_ns + 7 * MS) == START_WALL_NS + 7 * MS


def test_operators_and_fields_of_later_versions() -> None:
    entries = events(Trial())
    entries[find(entries, "context")]["flash_attention"] = True
    entries[-1:-1] = profile(entries[-1]["t"])
    trace = parse(entries)
    assert trace.decoding == (Decoding("prefill", 1, 10),)
    assert trace.operators == (Operator("prefill", "MUL_MAT", "ffn_up", 3, 9),)
    begin_ns = entries[-1]["t"] - 5
    assert trace.nodes == (OperatorCall("prefill", "MUL_MAT", "ffn_up", Span(begin_ns, begin_ns + 2)),)


def test_what_a_runner_says_of_itself() -> None:
    process = {"nice": 5, "scheduler": "other", "aslr": True}
    effective = {"flash_attention": "on", "weights": "CPU_REPACK 54.0 MiB", "share": 0.5}
    trace = parse(events(Trial(process=process, effective=effective)))
    assert (trace.process, trace.effective) == (process, effective)
    before = parse(events(Trial()))
    assert (before.process, before.effective) == ({}, {}), "runners of before say nothing"


@pytest.mark.parametrize("said", [{"x": [1]}, {"x": {"y": 1}}, {"x": "y" * 5000}, {"x" * 200: 1}, {"x": "\ud800"}])
@pytest.mark.parametrize("event", ["process", "effective"])
def test_what_nobody_could_show_is_refused(event: str, said: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        parse(events(Trial(process=said) if event == "process" else Trial(effective=said)))


@pytest.mark.parametrize(("event", "after"), [("process", "load_end"), ("effective", "conversation_begin")])
def test_it_says_so_once_and_in_time(event: str, after: str) -> None:
    entries = events(Trial(process={"nice": 0}, effective={"x": 1}))
    said = entries.pop(find(entries, event))
    at = find(entries, after)
    late = [*entries[: at + 1], {**said, "t": entries[at]["t"]}, *entries[at + 1 :]]
    twice = events(Trial(process={"nice": 0}, effective={"x": 1}))
    twice.insert(find(twice, event), twice[find(twice, event)])
    for wrong in (late, twice):
        with pytest.raises(RecordError, match=event):
            parse(wrong)


def profile(t_ns: int) -> Events:
    """What a runner writes of one phase."""
    what = {"t": t_ns, "phase": "prefill", "name": "MUL_MAT", "module": "ffn_up"}
    return [
        {"e": "decoding", "t": t_ns, "phase": "prefill", "count": 1, "ns": 10},
        {"e": "op", **what, "count": 3, "ns": 9},
        {"e": "node", **what, "begin": t_ns - 5, "ns": 2},
    ]


def test_pulses_of_a_sync_mark() -> None:
    entries = events(Trial())
    at = find(entries, "context") + 1
    t_ns = entries[at - 1]["t"]
    entries[at:at] = [{"e": name, "t": t_ns, "i": 0} for name in ("pulse_begin", "pulse_end")]
    assert parse(entries).pulses == (Span(t_ns, t_ns),)
    del entries[at + 1]
    with pytest.raises(RecordError, match="in a pulse"):
        parse(entries)


@given(st.data())
def test_a_file_that_ends_early_is_refused(data: st.DataObject) -> None:
    content = b"".join(as_lines(events(Trial())))
    kept = content[: data.draw(st.integers(0, len(content) - 1))]
    with pytest.raises(RecordError, match=r"cut off|ends after|no event"):
        parse_trace(kept.splitlines(keepends=True))


@given(st.data())
def test_a_missing_line_is_noticed(data: st.DataObject) -> None:
    """Only events that the contract leaves to the runner may be missing."""
    entries = events(Trial())
    gone = entries.pop(data.draw(st.integers(0, len(entries) - 1)))
    if gone["e"] in ("mem",):
        parse(entries)
    else:
        with pytest.raises(RecordError):
            parse(entries)


@given(st.data())
def test_a_repeated_line_is_noticed(data: st.DataObject) -> None:
    entries = events(Trial())
    at = data.draw(st.integers(0, len(entries) - 1))
    entries.insert(at, dict(entries[at]))
    if entries[at]["e"] == "mem":
        parse(entries)
    else:
        with pytest.raises(RecordError, match=r"events:\d+: "):
            parse(entries)


@given(st.data())
def test_time_that_runs_backwards_is_noticed_where_it_does(data: st.DataObject) -> None:
    entries = events(Trial())
    at = data.draw(st.integers(1, len(entries) - 1))
    entries[at]["t"] = entries[at - 1]["t"] - data.draw(st.integers(1, 10**9))
    with pytest.raises(RecordError, match=rf"events:{at + 1}: time runs backwards"):
        parse(entries)


@given(st.data(), st.binary(max_size=200))
def test_any_garbage_in_a_line_ends_in_one_error(data: st.DataObject, garbage: bytes) -> None:
    lines = as_lines(events(Trial()))
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = garbage.replace(b"\n", b"") + b"\n"
    with pytest.raises(RecordError, match=re.escape(f"events:{at + 1}: ")):
        parse_trace(lines)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.data(), json_values)
def test_any_value_in_any_field_is_read_or_refused(data: st.DataObject, value: object) -> None:
    entries = events(Trial())
    entry = entries[data.draw(st.integers(0, len(entries) - 1))]
    entry[data.draw(st.sampled_from(sorted(entry)))] = value
    try:
        parse(entries)
    except RecordError as error:
        assert error.message.startswith("events:")
        assert "\n" not in error.message


def test_endless_nesting_is_refused() -> None:
    lines = as_lines(events(Trial()))
    lines[3] = b'{"e": ' + b"[" * 100_000 + b"\n"
    with pytest.raises(RecordError, match="events:4: "):
        parse_trace(lines)


def change(kind: str, nth: int = 0, **fields: Any) -> Callable[[Events], None]:
    def apply(entries: Events) -> None:
        entries[find(entries, kind, nth)] |= fields

    return apply


def swap_turns(entries: Events) -> None:
    for kind in ("turn_begin", "turn_end"):
        entries[find(entries, kind, 0)]["i"], entries[find(entries, kind, 1)]["i"] = 1, 0


def after_done(entries: Events) -> None:
    entries.append({**entries[find(entries, "mem")], "t": entries[-1]["t"]})


def memory_in_turn(entries: Events) -> None:
    at = find(entries, "prefill_end")
    entries.insert(at, {**entries[find(entries, "mem")], "t": entries[at]["t"]})


def runner_error(entries: Events) -> None:
    entries[-1] = {"e": "error", "t": entries[-1]["t"], "code": 5, "message": "decoding failed\x1b[31m"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change("hello", v=2), "version 2 of the contract"),
        (change("hello", wall=-1), "wall: expected a whole number"),
        (change("hello", pid=2**31), "pid: expected a whole number"),
        (change("hello", commit=None), "commit: expected a text"),
        (change("load_end", model_bytes=1.5), "model_bytes: expected a whole number"),
        (change("load_end", n_vocab=True), "n_vocab: expected a whole number"),
        (change("context", n_ctx=2**64), "n_ctx: expected a whole number"),
        (change("conversation_begin", c=1), "c is 1, expected 0"),
        (change("token", i=5), "i is 5, expected 0"),
        (change("turn_end", n_gen=99), "n_gen is 99, expected 10"),
        (change("turn_end", n_prompt=7), "n_prompt is 7, expected 20"),
        (change("turn_end", stop="tired"), "stop: expected one of eog, length, context, got 'tired'"),
        (change("turn_end", text="\ud800"), "half a character"),
        (change("mem", phase="lunch"), "phase: expected one of"),
        (change("warmup_begin", e="dance"), "unknown event"),
        (swap_turns, "i is 1, expected 0"),
        (after_done, "after `done`"),
        (memory_in_turn, "`mem` in a turn"),
        (runner_error, r"the runner reported an error: 'decoding failed\\x1b"),
    ],
)
def test_what_breaks_the_contract_is_named(spoil: Callable[[Events], None], message: str) -> None:
    entries = events(Trial())
    spoil(entries)
    with pytest.raises(RecordError, match=message):
        parse(entries)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((0, 1, 1), "operator MUL_MAT of ffn_up is there twice"),
        ((0, 0), "a second `decoding` for prefill"),
        ((1,), "`op` before `decoding` of prefill"),
    ],
)
def test_a_profile_that_contradicts_itself(order: tuple[int, ...], message: str) -> None:
    entries = events(Trial())
    written = profile(entries[-1]["t"])
    entries[-1:-1] = [dict(written[i]) for i in order]
    with pytest.raises(RecordError, match=message):
        parse(entries)


def test_a_node_of_the_future_is_refused() -> None:
    entries = events(Trial())
    *_, node = profile(entries[-1]["t"])
    entries.insert(-1, {**node, "ns": 6})
    with pytest.raises(RecordError, match="ends after it was written down"):
        parse(entries)


# -- thinking and margins --------------------------------------------------------------------------------------------

THINKS = Turn(thinking=(0, 4), margins=tuple(n / 8 for n in range(10)))


def test_thinking_is_told_from_the_answer() -> None:
    cut = Turn(thinking=(2, 5), cut=True)
    first, second, plain = parse(events(Trial(conversations=[[THINKS, cut, Turn()]]))).turns
    assert (first.thinking, first.answer_at, first.answer) == ((Thought(0, 4),), 4, "word " * 6)
    assert (second.thinking, second.answer_at) == ((Thought(2, 5, cut=True),), 5)
    assert (plain.thinking, plain.answer_at, plain.answer) == ((), None, None)


def test_thinking_that_nothing_ended_goes_to_the_last_token() -> None:
    entries = events(Trial(conversations=[[THINKS]]))
    for kind in ("thinking_end", "answer_begin"):
        del entries[find(entries, kind)]
    (turn,) = parse(entries).turns
    assert (turn.thinking, turn.answer_at) == ((Thought(0, 10),), None)


@pytest.mark.parametrize("margin", ["0", "0.125", "1e-05", "2.5e+01", "12.50"])
def test_margins_are_read_however_they_are_written(margin: str) -> None:
    for written in (f'"margin":{margin}', f'"margin" : {margin}'):  # the second is not as runners write it
        lines = as_lines(events(Trial(conversations=[[Turn(gaps_ns=(), margins=(0.5,))]])))
        (turn,) = parse_trace([line.replace(b'"margin": 0.5', written.encode()) for line in lines]).turns
        assert turn.margins == (float(margin),)


def test_runs_of_older_runners_have_no_margins() -> None:
    assert parse(events(Trial())).turns[0].margins == ()


def twice(kind: str) -> Callable[[Events], None]:
    def apply(entries: Events) -> None:
        at = find(entries, kind)
        entries.insert(at, dict(entries[at]))

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (twice("thinking_begin"), "`thinking_begin` in thinking"),
        (twice("thinking_end"), "`thinking_end` without `thinking_begin`"),
        (twice("answer_begin"), "`answer_begin` in thinking, in an answer"),
        (change("thinking_begin", i=1), "i is 1, expected 0"),
        (change("thinking_end", i=3), "i is 3, expected 4"),
        (change("thinking_end", cut="no"), "cut: expected true or false, got 'no'"),
        (change("answer_begin", i=9), "i is 9, expected 4"),
        (change("thinking_end", e="answer_begin", i=3), "`answer_begin` in thinking"),
        (change("turn_end", answer=7), "answer: expected a text, got 7"),
        (change("token", margin=-1), "margin: expected a number from 0, got -1"),
        (change("token", margin=float("inf")), "margin: expected a number from 0, got inf"),
        (change("token", margin=True), "margin: expected a number from 0, got True"),
    ],
)
def test_thinking_that_cannot_be(spoil: Callable[[Events], None], message: str) -> None:
    entries = events(Trial(conversations=[[THINKS]]))
    spoil(entries)
    with pytest.raises(RecordError, match=message):
        parse(entries)


def test_a_turn_without_a_token_must_say_why() -> None:
    entries = events(Trial(conversations=[[Turn(tokens=0)]]))
    assert parse(entries).turns[0].n_gen == 0
    entries[find(entries, "turn_end")]["stop"] = "eog"
    with pytest.raises(RecordError, match="stopped for `eog` without a token"):
        parse(entries)


def test_messages_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with pytest.raises(RecordError, match="cannot be read"):
        read_trace(path)
    path.write_text(json.dumps({"e": "hello"}) + "\n")
    with pytest.raises(RecordError, match=rf"{path}:1: t: expected"):
        read_trace(path)
    path.write_bytes(b"".join(as_lines(events(Trial()))))
    assert len(read_trace(path).turns) == 2


# -- contexts that hold more than turns -------------------------------------------------------------------------------


def filled() -> Events:
    """A conversation of one turn over a context that was filled, saved and restored, with a draft model."""
    entries = events(Trial(conversations=[[Turn()]]))

    def insert(before: str, *more: dict[str, Any]) -> None:
        at = find(entries, before)
        entries[at:at] = [{"t": entries[at]["t"], **each} for each in more]

    insert("conversation_begin", {"e": "draft", "model_bytes": 10, "n_params": 5, "kv_bytes": None})
    insert(
        "turn_begin",
        {"e": "fill_begin", "n": 64},
        {"e": "fill_end"},
        {"e": "save_begin"},
        {"e": "save_end", "bytes": 4096},
    )
    insert("prefill_begin", {"e": "restore_begin"}, {"e": "restore_end"})
    entries[find(entries, "load_begin")] |= {"cached_share": 0.25, "asked": "cold"}
    entries[find(entries, "turn_end")] |= {"drafted": 6, "accepted": 4, "draft_ns": 900, "sequences": 2}
    return entries


def test_a_context_that_was_filled_and_drafts_are_read() -> None:
    trace = parse(filled())
    (conversation,) = trace.conversations
    (turn,) = conversation.turns
    assert isinstance(conversation.fill, Fill)
    assert (conversation.fill.n, conversation.fill.saved_bytes) == (64, 4096)
    assert turn.restored is not None and turn.drafted == Drafted(6, 4, 900)
    assert (turn.n_written, turn.steps) == (2 * (turn.n_gen - 1), turn.n_gen - 1 - 4)
    assert trace.draft == DraftModel(10, 5, None)
    assert (trace.load.cached_share, trace.load.asked) == (0.25, "cold")


@pytest.mark.parametrize(
    "kind", ["fill_begin", "fill_end", "save_begin", "save_end", "restore_begin", "restore_end", "draft"]
)
def test_each_of_them_comes_once_and_in_its_place(kind: str) -> None:
    entries = filled()
    at = find(entries, kind)
    with pytest.raises(RecordError, match=kind):
        parse([*entries[: at + 1], entries[at], *entries[at + 1 :]])
    last = entries[-1]
    with pytest.raises(RecordError):
        parse([*entries[:-1], {**entries[at], "t": last["t"]}, last])


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("turn_end", {"accepted": 7}, "7 tokens accepted, of 6"),
        ("turn_end", {"accepted": -1}, "accepted"),
        ("turn_end", {"draft_ns": None}, "draft_ns"),
        ("load_begin", {"asked": "hot"}, "asked"),
        ("load_begin", {"cached_share": "all"}, "cached_share"),
        ("save_end", {"bytes": None}, "bytes"),
    ],
)
def test_wrong_values_of_them_are_refused(kind: str, changes: dict[str, object], message: str) -> None:
    entries = filled()
    entries[find(entries, kind)] |= changes
    with pytest.raises(RecordError, match=message):
        parse(entries)
