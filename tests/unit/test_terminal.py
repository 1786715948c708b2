"""What people see on a real terminal: whole words and names, colours where they are wanted, and nothing in pipes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from meltrepro.cli.app import main
from meltrepro.cli.summary import ended
from meltrepro.cli.terminal import plain_table
from meltrepro.measure.records import read_campaign
from meltrepro.words import folded, pieces, wrapped
from tests.support.campaigns import Cell, build_campaign
from tests.support.pictures import pictures
from tests.support.terminal import environment, in_terminal, python_in_terminal

LONG = "a-model-with-a-name/q4_0/llama.cpp-2024/the-host-of-mine/chat"


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    """One whose cells are INVALID, since too few of their repetitions ended well."""
    return build_campaign(tmp_path / "home", [Cell("q8_0"), Cell("q4_0")], repetitions=3)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


@pytest.mark.parametrize("columns", [80, 120])
def test_no_word_is_broken_on_a_terminal(
    columns: int, campaign: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(campaign.parents[1]))
    shown = plain(in_terminal(columns, "show", **environment(campaign.parents[1])))
    assert main(["show"]) == 0
    piped = capsys.readouterr().out
    assert sorted(shown.split()) == sorted(piped.split())
    assert max(map(len, shown.splitlines())) <= columns or "/" in max(shown.splitlines(), key=len)


CELL = "smollm2-135m/q4_0/llama.cpp/board/chat"
DRAW = """
import json, sys
from meltrepro.cli.console import console
from meltrepro.cli.terminal import safe_streams
from meltrepro.steps import Step
with safe_streams(), console() as sink:
    for step in json.loads(sys.argv[1]):
        sink(Step(**step))
"""


def _trial(done: int, at_s: int, step: str = "progress", /, **detail: object) -> dict[str, object]:
    known = {"subject": f"{CELL} r{done:03d}", "done": done, "total": 12, "monotonic_ns": (1 + at_s) * 10**9}
    return {"name": "trial", "phase": step, **known, "detail": detail}


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_what_moves_on_a_terminal_takes_one_row(columns: int, tmp_path: Path) -> None:
    """Through the streams of the program: none of them breaks a row, or shows what moves the cursor."""
    trials = [
        _trial(10, 0, "begin"),
        *(_trial(10, age, elapsed_s=age) for age in (9, 59, 248)),
        *(_trial(10, age, elapsed_s=age, turn=1, tokens=32, phase="warming up") for age in (249, 250)),
        _trial(10, 251, "end", generation_tps=9.51, temperature_max_c=58.25, generation_power_w=4.04),
        _trial(11, 252, "begin"),
        *(_trial(11, 252 + age, elapsed_s=age, turn=2, tokens=4 * age, phase="generating") for age in (8, 88, 242)),
    ]
    sent = {"name": "deploy", "phase": "progress", "subject": f"{CELL} r011", "total": 107.7e6, "unit": "bytes"}
    deploys = [{**sent, "done": size, "monotonic_ns": 10**9 * n} for n, size in enumerate((261.6e3, 99.9e6), 1)]
    variables = environment(tmp_path)
    for steps, whole in ((trials, "12/12, 2:44 min left, turn 2, 352 tokens"), (deploys, "261.6 kB of 107.7 MB")):
        shown = python_in_terminal(columns, "-c", DRAW, json.dumps(steps), **variables)
        assert shown.count("\n") == 1, "only when it is over the cursor goes down"
        rows = plain(shown).split("\r")
        assert not [row for row in rows if len(row) > columns or "?" in row]
        assert any(whole in row for row in rows) or columns == 60


def test_errors_are_broken_between_words(campaign: Path) -> None:
    shown = in_terminal(80, "show", "nonsense", **environment(campaign.parents[1]))
    long = [line for line in shown.splitlines() if len(line) > 80]
    assert "name one of them" in " ".join(shown.split())
    assert all(" " not in line.strip() for line in long), "only what is one word is longer"


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colours_in_a_pipe_are_asked_for(
    variables: dict[str, str],
    coloured: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    campaign = build_campaign(tmp_path / "home", [Cell("q8_0", failing={0: "it broke"})], repetitions=2)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"MELTREPRO_HOME": str(campaign.parents[1]), **variables}.items():
        monkeypatch.setenv(name, value)
    assert main(["show"]) == 0
    shown = capsys.readouterr().out
    assert "failed" in shown
    assert ("\x1b[1;31mfailed" in shown) is coloured
    assert max(map(len, shown.splitlines())) > 80, "a pipe gets lines as long as they need"


def test_the_last_line_says_what_became_of_all_cells(campaign: Path) -> None:
    said = ended(read_campaign(campaign))
    assert said.startswith("2 cells: ")
    assert f"records in {campaign}; again: " in said
    assert said.endswith(f"show {campaign.name}")


@given(st.text("ab/-. ", max_size=60), st.integers(1, 30))
def test_a_text_in_a_table_loses_nothing_and_is_broken_where_it_may(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert max(map(len, lines)) <= width
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    if all(len(piece) <= width for piece in pieces(text)):
        assert [piece for line in lines for piece in pieces(line)] == pieces(text)


def test_a_long_word_of_a_sentence_stays_whole_to_be_copied() -> None:
    path = "/a/rather/long/path/of/a/file"
    assert folded(f"  it is in {path} now", 20) == ["  it is in", f"    {path}", "    now"]


def test_names_in_tables_break_after_their_slashes() -> None:
    out = io.StringIO()
    table = plain_table("cell", "prefill tok/s", "memory MB")
    table.add_row(LONG, "108.2 (105.9-109.0)", "319.3")
    Console(file=out, width=60).print(table)
    rows = [line.split("  ")[0].strip() for line in out.getvalue().splitlines()[1:]]
    assert "".join(rows) == LONG
    assert all(row.endswith("/") for row in rows[:-1])


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "docs" / "pictures").glob("console-*.svg")), ids=lambda path: path.stem
)
def test_a_picture_of_the_console_is_what_the_program_shows_today(path: Path, drawn: dict[Path, str]) -> None:
    assert path.read_text(encoding="utf-8") == drawn[path], "run: python -m tests.support.pictures"
    assert "url(http" not in drawn[path], "a page loads nothing from another host"


@pytest.fixture(scope="module")
def drawn() -> dict[Path, str]:
    return dict(pictures())
