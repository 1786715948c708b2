"""A cell of which some repetitions are not believed: console, report and findings say the same of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meltrepro.measure.records import read_campaign
from meltrepro.record.campaign import MANIFEST
from meltrepro.report.content import assemble
from meltrepro.report.files import PAGE, report_files
from meltrepro.report.read import read_results
from meltrepro.studies.melt.study import STUDY
from tests.support.campaigns import Cell, build_campaign
from tests.unit.test_results_table import shown


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A campaign whose shortest repetition is too short."""
    made = build_campaign(tmp_path, [Cell("q8_0", 40), Cell("q4_0", 55)])
    traces = [trial.trace() for trial in read_campaign(made).cells[0].repetitions]
    seconds = sorted(sum(turn.token_ns[-1] - turn.token_ns[0] for turn in trace.turns) / 1e9 for trace in traces)
    path = made / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["measure"]["limits"]["min_generation_s"] = (seconds[0] + seconds[1]) / 2
    path.write_text(json.dumps(manifest))
    return made


def test_the_console_and_the_report_agree(folder: Path) -> None:
    campaign = read_campaign(folder)
    cell = campaign.cells[0]
    (said,) = map(str, cell.exclusions)
    assert said.startswith("1 of 3 repetitions INVALID: r00")
    assert "too-short" in said
    text = shown(folder)
    assert f"q8_0: {said}" in text
    (row,) = [line for line in text.splitlines() if line.startswith("q8_0  ")]
    assert row.split()[1:4] == ["2", "of", "3"]
    files = report_files(assemble([campaign]))
    page = files[PAGE].decode()
    assert "n = 2 of 3" in page
    assert said in page
    assert "measured, 1 of 3 repetitions INVALID" in page
    (csv_row,) = [line for line in files["tables/throughput.csv"].decode().splitlines() if ",q8_0," in line]
    assert ",2," in csv_row
    assert "single repetitions are INVALID or failed: 1" in STUDY.decide(read_results([campaign])).text


def test_who_asks_for_them_is_told_that_they_count(folder: Path) -> None:
    campaign = read_campaign(folder, with_invalid=True)
    (said,) = map(str, campaign.cells[0].exclusions)
    assert said.startswith("1 of 3 repetitions INVALID, counted all the same: ")
    assert "n = 2 of 3" not in report_files(assemble([campaign]))[PAGE].decode()


def test_failed_repetitions_are_told_apart(tmp_path: Path) -> None:
    failing = {index: f"crashed: signal {index}" for index in range(5)}
    campaign = read_campaign(build_campaign(tmp_path, [Cell(failing=failing)], repetitions=6))
    (said,) = map(str, campaign.cells[0].exclusions)
    assert said == (
        "5 of 6 repetitions failed: r000 crashed: signal 0, r001 crashed: signal 1, r002 crashed: signal 2, 2 more"
    )
    assert "n = 1 of 6" in report_files(assemble([campaign]))[PAGE].decode()
