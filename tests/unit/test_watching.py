"""How far a trial is: told from its own events, and not at all where looking would disturb it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.campaign.watching import progress, watched
from meltrepro.cli.console import within
from meltrepro.steps import Step
from tests.support.campaigns import Trial, as_lines, events

LINES = b"".join(as_lines(events(Trial())))


@given(st.integers(0, len(LINES)))
def test_it_does_not_matter_how_often_one_looks(at: int) -> None:
    cut = LINES.rfind(b"\n", 0, at) + 1
    whole = progress({}, LINES)
    assert progress(progress({}, LINES[:cut]), LINES[cut:]) == whole
    turns = [event for event in events(Trial()) if event["e"] == "turn_begin"]
    assert whole["turn"] == len(turns)


def test_of_a_turn_that_runs_its_tokens_are_counted() -> None:
    begun = [{"e": kind} for kind in ("hello", "load_begin", "load_end", "turn_begin", "prefill_begin", "prefill_end")]
    lines = b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in begun)
    assert progress({}, lines[: lines.index(b"turn_begin")]) == {"phase": "loading"}
    seen = progress(progress({}, lines), b'{"e":"token","t":1}\n' * 3)
    assert seen == {"turn": 1, "tokens": 3, "phase": "generating"}
    assert progress(seen, b'{"e":"turn_end","t":1}\n') == {"turn": 1, "tokens": 3, "phase": "done"}
    step = Step("trial", "progress", "cell r000", detail={**seen, "elapsed_s": 12.3})
    assert within(step) == ["turn 1", "3 tokens", "generating", "12 s"]


def test_a_turn_of_which_nothing_is_told_is_no_warm_up() -> None:
    begun = b'{"e":"load_begin","t":1}\n{"e":"context","t":2}\n'
    warm = b'{"e":"warmup_begin","t":3}\n{"e":"warmup_end","t":4}\n'
    assert progress({}, begun) == {"phase": "ready"}
    assert progress({}, begun + warm) == {"phase": "answering"}


@pytest.mark.parametrize(
    ("here", "spare", "told"),
    [(True, True, {"turn", "phase", "elapsed_s"}), (True, False, {"elapsed_s"}), (False, False, {"elapsed_s"})],
)
def test_who_is_looked_at(tmp_path: Path, here: bool, spare: bool, told: set[str]) -> None:
    """A trial of this machine that leaves a CPU free; any other only has its age told."""
    path = tmp_path / "events.jsonl"
    if here:
        path.write_bytes(b'{"e":"turn_begin","t":1}\n{"e":"prefill_begin"}\n{"e":"tok')
    heard, said = threading.Event(), list[Mapping[str, object]]()

    def tell(seen: Mapping[str, object]) -> None:
        said.append(seen)
        heard.set()

    with watched(path, tell, spare=spare, every_s=0.001):
        assert heard.wait(60)
    assert all(set(seen) == told for seen in said)
