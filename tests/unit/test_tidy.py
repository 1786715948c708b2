"""Tidy tables of campaigns: for pandas, and as files that other programs read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from meltrepro import workflow
from meltrepro.cli import app
from meltrepro.measure.metrics import METRICS
from tests.support.campaigns import Cell, Trial, Turn, build_campaign, score_trial

FAILED = "crashed: signal 11"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def campaign(home: Path) -> Path:
    return build_campaign(
        home, [Cell("q8_0", 40, failing={1: FAILED}), Cell("q3_K", failing=dict.fromkeys(range(3), FAILED))]
    )


def test_metrics_are_those_of_the_summaries(campaign: Path) -> None:
    loaded = workflow.load()
    table = loaded.metrics
    (speed,) = table[(table.metric == "generation_tps") & (table.quantization == "q8_0")].itertuples()
    summary = loaded.cells[0].summaries["generation_tps"]
    assert (speed.median, speed.low, speed.high, speed.n, speed.asked) == (
        *(summary.median, summary.low, summary.high),
        *(2, 3),
    )
    assert (speed.unit, speed.validity, speed.target) == (METRICS["generation_tps"].unit, "VALID", "host")
    assert speed.campaign == campaign.name
    assert not table.duplicated(["campaign", "cell", "metric"]).any()


def test_what_is_missing_has_a_reason(campaign: Path) -> None:
    table = workflow.load().metrics
    missing = table[table["median"].isna()]
    assert len(missing) > 1
    assert missing.reason.notna().all()
    (lost,) = table[table.quantization == "q3_K"].itertuples()
    assert lost.validity == "FAILED"
    assert "signal 11" in lost.reason
    assert pd.isna(lost.metric)


def test_trials_have_every_repetition_and_warmup(campaign: Path) -> None:
    table = workflow.load().trials
    assert set(table.trial) == {"w000", "r000", "r001", "r002"}
    speeds = table[(table.metric == "generation_tps") & (table.kind == "repetition")]
    assert list(speeds.trial) == ["r000", "r002"]
    (crashed,) = table[(table.trial == "r001") & table.cell.str.contains("q8_0")].itertuples()
    assert crashed.validity == "FAILED"
    assert "signal 11" in crashed.reason


def test_tokens_have_the_gaps_of_their_turn(home: Path) -> None:
    turns = [Turn(gaps_ns=(10, 30)), Turn(gaps_ns=(50,))]
    build_campaign(home, [Cell(trial=Trial([turns]))], repetitions=2)
    table = workflow.load().tokens
    assert len(table) == 2 * 5
    first = table[table.repetition == 0]
    assert list(zip(first.turn, first.token, strict=True)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert [None if pd.isna(gap) else gap for gap in first.gap_ns] == [None, 10, 30, None, 50]
    assert first.t_ns.is_monotonic_increasing
    assert str(table.gap_ns.dtype) == "Int64"


def test_a_score_is_a_metric(home: Path) -> None:
    cell = Cell()
    folder = build_campaign(home, [cell], repetitions=1, warmups=0)
    score_trial(folder, cell, "r000", 80, asked=100)
    (score,) = workflow.load().metrics.itertuples()
    assert (score.metric, score.median) == ("accuracy.piqa", 0.8)
    assert score.low < 0.75 < 0.85 < score.high
    assert list(workflow.load().trials.metric) == ["accuracy.piqa"]
    assert workflow.load().tokens.empty


@pytest.mark.parametrize("table", ["metrics", "trials", "tokens"])
def test_all_formats_hold_the_same(campaign: Path, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    expected = getattr(workflow.load(), table)
    assert app.main(["export", "last", "--table", table]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out, newline="")))
    assert list(rows[0]) == list(expected)
    assert len(rows) == len(expected)
    assert app.main(["export", "last", "--table", table, "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(expected)
    assert app.main(["export", "last", "--table", table, "--format", "parquet", "-o", "t.parquet"]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet("t.parquet"), expected)


def test_several_campaigns_are_one_table(campaign: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = build_campaign(home, number=1)
    assert app.main(["export", campaign.name, "last", "last", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["campaign"] for row in rows} == {campaign.name, later.name}
    assert len({(row["campaign"], row["cell"], row["metric"]) for row in rows}) == len(rows)


def test_parquet_is_not_printed(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["export", "--format", "parquet"]) == 2
    assert "-o FILE.parquet" in capsys.readouterr().err
