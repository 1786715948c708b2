"""Real questions, scored by both releases through the whole program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from meltrepro.measure.records import read_campaign
from meltrepro.spec import record
from tests.integration.conftest import meltrepro

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("engine")]
SPECS = Path(__file__).parents[2] / "specs"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
QUESTIONS = 24


def data(folder: Path) -> None:
    """Questions of our own, in the form of ARC."""
    rows = []
    for n in range(QUESTIONS):
        choices = [{"label": str(i), "text": DAYS[(n + i) % 7]} for i in range(1, 5)]
        stem = f"Which day comes after {DAYS[n % 7]}, in week {n}?"
        rows.append({"question": {"stem": stem, "choices": choices}, "answerKey": "1"})
    (folder / "days.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_both_releases_score_the_same_questions(tmp_path: Path) -> None:
    data(tmp_path)
    spec = tmp_path / "spec.yaml"
    model = yaml.safe_load((SPECS / "common" / "models.yaml").read_text())["models"]["smollm2-135m"]
    document = {
        "meltrepro": 1,
        "name": "accuracy",
        "models": {"m": {**model, "quantizations": ["q4_0"]}},
        "frameworks": {
            "old": {"kind": "llama.cpp", "release": "2024-02-27"},
            "new": {"kind": "llama.cpp", "release": "2026-10-01"},
        },
        "workloads": {
            "days": {"task": "arc-easy", "data": {"file": "days.jsonl"}, "context": 256, "repetitions": 2},
        },
        "protocol": {"order": "as-written"},
    }
    spec.write_text(yaml.safe_dump(document))
    done = meltrepro("run", spec, "--no-track", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "accuracy.arc-easy" in done.stdout
    (folder,) = (path.parent for path in (tmp_path / "records").glob("*/campaign.json"))
    campaign = read_campaign(folder)
    campaign.verify()
    assert len(campaign.cells) == 2
    for cell in campaign.cells:
        first, second = cell.repetitions
        assert cell.validity.valid, "two runs come to the same score"
        (score,) = first.scores
        assert second.scores == first.scores
        assert score.n == QUESTIONS
        assert score.k is not None
        assert score.value == score.k / score.n
        assert cell.bits_per_weight is not None
        assert 4 < cell.bits_per_weight < 8
        assert first.scoring is not None
        assert first.scoring.padding == (100 - QUESTIONS if cell.entry.framework == "old" else 0)
        assert {record.REQUEST, record.STDOUT, record.STDERR} <= set(first.outcome.files)
