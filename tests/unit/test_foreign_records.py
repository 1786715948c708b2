"""Records of strangers: whatever a value in them is, reading, comparing and showing them ends in a result or a typed error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from meltrepro.errors import RecordError
from meltrepro.measure.clocks import Anchor, join
from meltrepro.measure.records import read_campaign
from meltrepro.record import trial as record
from meltrepro.record.capabilities import load, path_of
from meltrepro.record.study import read_study
from tests.fuzz.campaigns import Folder, changed, make

DIGEST = "0" * 64


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return make(tmp_path_factory.mktemp("home"))


@pytest.fixture
def campaign(whole: Folder, tmp_path: Path) -> Folder:
    there = tmp_path / whole.campaign.name
    shutil.copytree(whole.campaign, there)
    return Folder(there, there / whole.trial.relative_to(whole.campaign))


@pytest.mark.parametrize("value", [10**30, 2**63, -1, 1.5, "x", None])
def test_a_time_that_no_clock_shows(campaign: Folder, value: object) -> None:
    changed(campaign.campaign / "campaign.json", started_wall_ns=value)
    with pytest.raises(RecordError, match=r"campaign\.json is damaged: "):
        read_campaign(campaign.campaign)
    changed(campaign.trial / record.OUTCOME, started_wall_ns=value)
    changed(campaign.campaign / "campaign.json", started_wall_ns=1)
    with pytest.raises(RecordError, match=r"outcome\.json is damaged: "):
        _ = read_campaign(campaign.campaign).cells[0].trials


@pytest.mark.parametrize("value", ["1" + "0" * 400, "9" * 5000, "-1", "1e30", "NaN", str(2**62)])
def test_a_size_that_no_model_has(campaign: Folder, value: str) -> None:
    path = campaign.campaign / "campaign.json"
    path.write_text(path.read_text().replace('"model_bytes": 98000000', f'"model_bytes": {value}'))
    with pytest.raises(RecordError, match=r"campaign\.json is damaged: .*(model_bytes|too large|no number)"):
        read_campaign(campaign.campaign)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\0b", "a/./b", "x" * 300, "a\\b", ""])
def test_files_that_lie_elsewhere(campaign: Folder, name: str) -> None:
    changed(campaign.campaign / "campaign.json", files={name: DIGEST})
    with pytest.raises(RecordError, match=r"campaign\.json is damaged: files"):
        read_campaign(campaign.campaign)


@pytest.mark.parametrize(
    "value", ["2024-99-99", "!!int x", "!!bool x", "!!timestamp x", "9" * 5000, "[" * 5000, "&a [*a]"]
)
def test_a_manifest_of_odd_tags(campaign: Folder, value: str) -> None:
    (campaign.campaign / "manifest.yaml").write_text(f"meltrepro: {value}\n")
    with pytest.raises(RecordError, match=r"manifest\.yaml is damaged: manifest\.yaml:1:\d+: "):
        _ = read_campaign(campaign.campaign).manifest


def test_bits_that_no_weight_has(campaign: Folder) -> None:
    document = json.loads((campaign.campaign / "campaign.json").read_bytes())
    for value, expected in ((4.5, 4.5), (0, None), (1e-20, None), (1e9, None), ("4", None)):
        document["cells"][0]["params"]["bits_per_weight"] = value
        (campaign.campaign / "campaign.json").write_text(json.dumps(document))
        assert read_campaign(campaign.campaign).cells[0].bits_per_weight == expected


def test_clocks_that_run_backwards() -> None:
    uncertain = Anchor(0, 0, 1e12), Anchor(1000, -1000, 1e12)
    with pytest.raises(RecordError, match="moved apart"):
        join(*uncertain)


@pytest.mark.parametrize(
    "content", ["{}", "[" * 5000, "9" * 5000, '{"format": 1, "name": "\\ud800", "entries": []}', "\0"]
)
@pytest.mark.parametrize("read", [read_study, lambda path: load(path.parent.parent, "d")])
def test_studies_and_capabilities(tmp_path: Path, read: Callable[[Path], object], content: str) -> None:
    path = path_of(tmp_path, "d")
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(RecordError, match="is damaged"):
        read(path)
