"""What a gate makes of a comparison: worse, better, the same, undecided; as text, Markdown and JUnit's XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.measure.records import read_campaign
from meltrepro.replay.compare import Comparison, compare
from meltrepro.replay.gate import Gate, headline, judged, junit, markdown, text
from meltrepro.replay.maps import mapped
from meltrepro.stats.equivalence import Design, ReplayVerdict
from tests.support.campaigns import Cell, build_campaign


def compared(home: Path, before: float, after: float, repetitions: int = 10) -> Comparison:
    """Two names of one campaign, with these speeds."""
    cells = [Cell("q4_0", before, framework="before"), Cell("q4_0", after, framework="after")]
    campaign = read_campaign(build_campaign(home, cells, repetitions=repetitions))
    ids = [cell.id for cell in campaign.cells]
    return compare(campaign, campaign, Design(), renamed=mapped(["before=after"], ids, ids)).narrowed(
        ["generation_tps"]
    )


@pytest.mark.parametrize(
    ("before", "after", "gate"),
    [(40, 40, Gate.same), (40, 30, Gate.worse), (30, 40, Gate.better), (40, 42, Gate.undecided)],
)
def test_what_became_of_a_metric(tmp_path: Path, before: float, after: float, gate: Gate) -> None:
    result = judged(compared(tmp_path, before, after))
    (metric,) = result.metrics
    assert metric.gate is gate
    assert (result.worse, result.undecided) == (gate is Gate.worse, gate is Gate.undecided)
    assert f"1 {gate}" in headline(result)
    assert any(line.startswith(f"  {gate}") for line in text(result))
    (case,) = ET.fromstring(junit(result)).findall(".//testcase")
    kinds = {Gate.worse: "failure", Gate.undecided: "skipped"}
    assert [child.tag for child in case] == [kinds.get(gate, "system-out")]


def test_where_less_is_better(tmp_path: Path) -> None:
    found = compared(tmp_path, 40, 30)
    cell = found.cells[0]
    for name, gate in (("peak_memory_bytes", Gate.better), ("load_s", Gate.better), ("prefill_tps", Gate.worse)):
        metrics = tuple(replace(each, metric=name) for each in cell.metrics)  # its ratio is below 1
        assert judged(replace(found, cells=(replace(cell, metrics=metrics),))).metrics[0].gate is gate


def test_what_was_not_compared_is_undecided(tmp_path: Path) -> None:
    found = compared(tmp_path, 40, 40)
    assert not judged(found).undecided
    missing = judged(found, ("m/q/f/t/w",))
    assert missing.undecided and not missing.worse
    assert "m/q/f/t/w: not compared" in missing.remarks[0] and "1 to know" in headline(missing)
    assert judged(replace(found, cells=())).undecided
    invalid = replace(found.cells[0], invalid=("first: INVALID(noisy)",))
    assert judged(replace(found, cells=(invalid,))).undecided


def test_names_of_strangers_do_no_harm(tmp_path: Path) -> None:
    found = compared(tmp_path, 40, 30)
    evil = "a|b<script>&\x1b[31m\x00\ufffe"
    result = judged(replace(found, cells=(replace(found.cells[0], cell=evil),)), (evil,))
    ET.fromstring(junit(result))
    assert "\x1b" not in junit(result).decode() and "\x1b" not in markdown(result)
    row = next(line for line in markdown(result).splitlines() if "generation_tps" in line)
    assert row.replace("\\|", "").count("|") == 7
    assert found.cells[0].metrics[0].decision is not None
    assert found.cells[0].metrics[0].decision.verdict is ReplayVerdict.differs
