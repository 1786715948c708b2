"""From a run and its bundle over a stranger's replay to a gallery, with the real commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from meltrepro import errors
from meltrepro.cli.app import main
from meltrepro.record.reader import campaign_folders
from tests.fault.project import Project, Refuse, flip
from tests.support.entries import allow, make_key
from tests.support.json_output import checked


def test_from_the_run_over_a_replay_to_the_gallery(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, entries = checked(capsys), tmp_path / "entries"
    ann, bob = make_key(tmp_path, "ann"), make_key(tmp_path, "bob")
    first, campaign = str(entries / "first.json"), project.campaign
    ran = said(
        *("publish", "publish", str(campaign), "--yes", "-o", first, "--sign", str(ann)),
        *("--bundle", str(project.bundle), "--url", "https://example.org/it.melt"),
    )
    text = Path(first).read_text()
    for private in (str(project.folder), "sleep 0", "/host/", campaign.name):
        assert private not in text
    # Somebody else, who has nothing but the bundle.
    other = tmp_path / "other"
    shutil.copytree(project.folder, other, ignore=shutil.ignore_patterns("records"))
    monkeypatch.setenv("MELTREPRO_HOME", str(other / "home"))
    monkeypatch.setenv("MELTREPRO_CACHE", str(other / "cache"))
    assert main(["bundle", "import", str(project.bundle)]) == 0
    assert main(["replay", campaign.name, "--no-track", "--maximum", "5"]) in (0, 60, 61)  # what came out is chance
    capsys.readouterr()
    (again,) = [folder for folder in campaign_folders(other / "home" / "records") if folder.name != campaign.name]
    repeated = said(
        *("publish", "publish", str(again), "--yes", "-o", str(entries / "again.json"), "--sign", str(bob)),
        *("--replay-of", campaign.name),
    )
    assert repeated["entry"]["replay"]["record"] == ran["entry"]["campaign"]["record"]
    assert {cell["replay"]["number"] for cell in repeated["entry"]["cells"]} == {1, 2}
    signers = allow(tmp_path / "signers", ann=ann, bob=bob)
    found = said("gallery", "gallery", str(entries), "-o", str(tmp_path / "site"), "--signers", str(signers))
    assert found["entries"] == {"signed": 2}
    assert found["refused"] == []
    page = (tmp_path / "site" / "index.html").read_text()
    assert f"meltrepro replay {ran['entry']['campaign']['record'][:12]}.melt --only" in page
    assert ran["entry"]["bundle"]["sha256"] in page
    assert " of 1</td>" in page or " of 1<span" in page, "one other tried"


def test_a_damaged_record_is_not_published(project: Project, refuse: Refuse) -> None:
    flip(next(project.campaign.glob("cells/**/w000/events.jsonl")))  # of which no figure is made
    refused = refuse(errors.RecordError, "publish", project.campaign, "--yes")
    assert "w000/events.jsonl" in refused.message


def test_a_bundle_of_another_campaign_is_refused(project: Project, refuse: Refuse) -> None:
    path = project.campaign / "campaign.json"
    assert main(["run", str(project.spec), "--new", "--no-track", "--quiet"]) == 0
    newest = campaign_folders(project.folder / "home" / "records")[-1]
    assert newest != path.parent
    refused = refuse(errors.EntryError, "publish", newest, "--yes", "--bundle", project.bundle)
    assert "is no bundle of" in refused.message


def test_an_entry_that_is_changed_in_any_byte_is_in_no_row(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, entries = make_key(tmp_path), tmp_path / "entries"
    assert main(["publish", str(project.campaign), "--yes", "-o", str(entries / "e.json"), "--sign", str(key)]) == 0
    path, said = entries / "e.json", checked(capsys)
    content = path.read_bytes()
    capsys.readouterr()
    for at in range(0, len(content), max(1, len(content) // 40)):
        flip(path, at)
        found = said("gallery", "gallery", str(entries), "-o", str(tmp_path / "site"))
        assert found["entries"] == {}, content[at - 20 : at + 20]
        assert found["refused"][0]["kind"] in ("damaged", "wrong signature")
        path.write_bytes(content)
    json.loads(content)
