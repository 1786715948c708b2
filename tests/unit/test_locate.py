"""What RUN|RECORD|BUNDLE can be, apart from what only MLflow knows (tests/integration/test_recover.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.errors import RecordError, UsageError
from meltrepro.measure.records import read_campaign
from meltrepro.record.campaign import CAMPAIGN
from meltrepro.replay.locate import Located, locate
from meltrepro.settings import Settings
from meltrepro.steps import silent
from meltrepro.track.ledger import RunNote, open_ledger
from meltrepro.track.places import Place
from tests.support.campaigns import Cell, build_campaign


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "cache", tmp_path / "home", offline=True, mirrors=None, jobs=1)


@pytest.fixture
def campaign(settings: Settings) -> Path:
    return build_campaign(settings.home, [Cell("q8_0"), Cell("q4_0")])


def test_a_campaign_by_name_by_folder_and_as_the_last(settings: Settings, campaign: Path) -> None:
    for wanted in (str(campaign), campaign.name, campaign.name[-6:], "last"):
        assert locate(wanted, settings, silent) == Located(campaign)


def test_a_record_means_its_cell(settings: Settings, campaign: Path) -> None:
    cell = read_campaign(campaign).cells[1]
    for folder in (cell.folder, cell.repetitions[0].folder):
        assert locate(str(folder), settings, silent) == Located(campaign, cell.id)
    assert locate(str(campaign / "cells"), settings, silent) == Located(campaign)


def test_a_run_id_that_a_ledger_knows_needs_no_mlflow(settings: Settings, campaign: Path) -> None:
    cell = read_campaign(campaign).cells[0].id
    ledger = open_ledger(campaign)
    ledger.begin(Place("http://nowhere.invalid"), "1", "a" * 32).cells[cell] = RunNote(run_id="b" * 32)
    ledger.save()
    assert locate("a" * 32, settings, silent) == Located(campaign)
    assert locate("b" * 32, settings, silent) == Located(campaign, cell)


def test_nothing_of_the_kind(settings: Settings, campaign: Path) -> None:
    with pytest.raises(UsageError, match="no campaign matches 'nonsense'"):
        locate("nonsense", settings, silent)


def test_a_damaged_campaign_is_not_taken_for_another(settings: Settings, campaign: Path) -> None:
    (campaign / CAMPAIGN).write_text("{")
    with pytest.raises(RecordError, match="is damaged"):
        locate(str(campaign), settings, silent)


def test_a_campaign_can_be_restricted(campaign: Path) -> None:
    whole = read_campaign(campaign)
    some = whole.restricted(lambda cell: "q4_0" in cell)
    assert [cell.id for cell in some.cells] == [whole.cells[1].id]
    assert len(whole.cells) == 2
