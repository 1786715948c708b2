"""Real questions, scored by both releases through the whole program."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.record import trial as record
from meltrepro.replay.archive import verify
from tests.integration.conftest import meltrepro

pytestmark = [pytest.mark.machine, pytest.mark.usefixtures("engine")]
SPECS = Path(__file__).parents[2] / "specs"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
QUESTIONS = 10


def data(folder: Path) -> None:
    """Questions of our own, in the form of ARC."""
    rows = []
    for n in range(QUESTIONS):
        choices = [{"label": str(i), "text": DAYS[(n + i) % 7]} for i in range(1, 5)]
        stem = f"Which day comes after {DAYS[n % 7]}, in week {n}?"
        rows.append({"question": {"stem": stem, "choices": choices}, "answerKey": "1"})
    (folder / "days.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a campaign was recorded that asks questions, and compares with the unquantized model."""
    folder = tmp_path_factory.mktemp("accuracy")
    data(folder)
    model = yaml.safe_load((SPECS / "common" / "models.yaml").read_text())["models"]["smollm2-135m"]
    text = {"file": str(SPECS / "texts" / "harbour.txt")}
    document = {
        "meltrepro": 1,
        "name": "accuracy",
        "models": {"m": {**model, "quantizations": ["q4_0"], "redistributable": False}},
        "frameworks": {
            "old": {"kind": "llama.cpp", "release": "2024-02-27"},
            "new": {"kind": "llama.cpp", "release": "2026-10-01"},
        },
        "workloads": {
            "days": {"task": "arc-easy", "data": {"file": "days.jsonl"}, "context": 256, "repetitions": 2},
            "text": {"task": "kl-divergence", "text": text, "context": 64, "chunks": 2, "redistributable": True},
        },
        "protocol": {"order": "as-written"},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(document))
    done = meltrepro("run", folder / "spec.yaml", "--no-track", "--only", "*/days", "--only", "*/old/*", home=folder)
    assert done.returncode == 0, done.stderr
    assert "accuracy.arc-easy" in done.stdout
    assert "quality.kl_divergence" in done.stdout
    return folder


@pytest.fixture(scope="module")
def campaign(home: Path) -> CampaignRecord:
    (folder,) = (path.parent for path in (home / "records").glob("*/campaign.json"))
    return read_campaign(folder)


def test_both_releases_score_the_same_questions(campaign: CampaignRecord) -> None:
    campaign.verify()
    cells = [cell for cell in campaign.cells if cell.entry.workload == "days"]
    assert len(cells) == 2
    for cell in cells:
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


def test_a_bundle_of_scores_is_reproduced_elsewhere(home: Path, campaign: CampaignRecord, tmp_path: Path) -> None:
    """Of a part of its manifest, with data that the bundle may not hold and text that it does."""
    bundle = tmp_path / "accuracy.melt"
    packed = meltrepro("bundle", "export", campaign.folder, "--output", bundle, home=home)
    assert packed.returncode == 0, packed.stderr
    members = set(verify(bundle).members)
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files(home).items()}
    assert f"objects/{digests['text']}" in members
    assert f"objects/{digests['days']}" not in members

    done = meltrepro("replay", bundle, "--no-track", "--only", "*/old/*", "--json", home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    assert (answer["verdict"], answer["reasons"]) == ("REPRODUCED", [])
    scores = {score["name"]: score["verdict"] for cell in answer["cells"] for score in cell["scores"]}
    text = ("kl_divergence", "perplexity", "same_top")
    assert scores == {"accuracy.arc-easy": "REPRODUCED", **{f"quality.{name}": "REPRODUCED" for name in text}}


def files(home: Path) -> dict[str, Path]:
    return {"days": home / "days.jsonl", "text": SPECS / "texts" / "harbour.txt"}
