"""What differs around two campaigns, and what of it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import RecordError
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.replay.compare import compare
from meltrepro.replay.context import Difference
from meltrepro.replay.show import html, text
from meltrepro.spec import record
from meltrepro.spec.campaign import CAMPAIGN
from meltrepro.stats.equivalence import Design
from tests.support.campaigns import Cell, build_campaign

Make = Callable[..., CampaignRecord]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Campaigns of one cell; `before` is the state of its device before each trial."""

    def campaign(number: int, before: dict[str, Any], **changes: str) -> CampaignRecord:
        folder = build_campaign(tmp_path, [Cell("q4_0")], number=number, repetitions=3)
        document = json.loads((folder / CAMPAIGN).read_text())
        (folder / CAMPAIGN).write_text(json.dumps(document | changes))
        for trial in read_campaign(folder).cells[0].repetitions:
            (trial.folder / record.DEVICE).write_text(json.dumps({"before": before}))
        return read_campaign(folder)

    return campaign


def context(first: CampaignRecord, second: CampaignRecord) -> set[Difference]:
    (cell,) = compare(first, second, Design()).cells
    return set(cell.context)


def test_the_same_surroundings_are_not_mentioned(make: Make) -> None:
    state = {"temperatures_c": {"cpu": 50.0}, "load_1min": 0.2, "governors": {"cpu0": "performance"}}
    almost = {"temperatures_c": {"cpu": 51.5}, "load_1min": 0.4, "governors": {"cpu0": "performance"}}
    assert context(make(0, state), make(1, almost)) == set()


def test_engine_version_governor_and_readings_that_matter(make: Make) -> None:
    first = make(
        0, {"temperatures_c": {"cpu": 50.0, "board": 40.0}, "governors": {"cpu0": "performance"}}, engine="a 1"
    )
    second = make(
        1,
        {"temperatures_c": {"cpu": 60.0}, "governors": {"cpu0": "powersave", "cpu1": "powersave"}, "load_1min": 3.0},
        engine="b 2",
        meltrepro_version="9.9",
    )
    assert context(first, second) >= {
        Difference("engine", "a 1", "b 2"),
        Difference("governor", "performance", "powersave"),
        Difference("temperature at start", "50 C", "60 C"),
    }
    assert {difference.name for difference in context(first, second)} == {
        *("engine", "meltrepro", "governor", "temperature at start"),
    }, "a reading that one side lacks is no difference"
    shown = text(compare(first, second, Design()))
    assert "context governor: performance -> powersave" in shown
    assert "<td>governor</td>" in html(compare(first, second, Design()))


def test_a_damaged_state_is_named(make: Make) -> None:
    first, second = make(0, {}), make(1, {})
    path = second.cells[0].repetitions[1].folder / record.DEVICE
    path.write_text("[]")
    with pytest.raises(RecordError, match=f"{record.DEVICE} is damaged"):
        compare(first, second, Design())
