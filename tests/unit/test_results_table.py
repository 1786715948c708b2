"""What `meltrepro run` prints at its end."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from meltrepro.cli.summary import show_results
from meltrepro.measure.records import read_campaign
from tests.support.campaigns import Cell, build_campaign


def shown(folder: Path) -> str:
    out = io.StringIO()
    show_results(read_campaign(folder), Console(file=out, highlight=False))
    return out.getvalue()


def test_cells_with_median_and_interval(tmp_path: Path) -> None:
    lines = shown(build_campaign(tmp_path)).splitlines()
    assert lines[0].endswith(": smollm2-135m/*/llama.cpp/host/chat")
    rows = {line.split()[0]: line.split() for line in lines[3:]}
    assert set(rows) == {"q8_0", "q4_0"}
    assert rows["q8_0"][1] == "3"
    assert 30 < float(rows["q8_0"][4]) < 50


def test_operators_of_a_profiled_cell(tmp_path: Path) -> None:
    operators = {f"m{i}": (30, 1000 * (20 - i)) for i in range(12)}
    text = shown(build_campaign(tmp_path, [Cell("q8_0", operators=operators), Cell("q4_0")]))
    (head,) = [line for line in text.splitlines() if "of 1 decoding is" in line]
    assert head.startswith("q8_0, generation: 100.0% of 1 decoding is in operators; the profiled trial was ")
    rows = [line.split() for line in text.partition(head)[2].splitlines()[2:]]
    assert rows[0] == ["MUL_MAT", "m0", "11.5", "0.6667", "30"]
    assert rows[8][:2] == ["4", "others"]
    assert abs(sum(float(row[2]) for row in rows) - 100) < 1
