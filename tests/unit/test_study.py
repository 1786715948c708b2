"""Studies: which manifests are meant, what has been measured already, how long the rest takes."""

from __future__ import annotations

from pathlib import Path

import pytest

import meltrepro
from meltrepro.campaign.campaign import finished_campaign
from meltrepro.errors import RecordError, UsageError
from meltrepro.manifest.lock import Lock, dump_lock
from meltrepro.manifest.schema import Manifest
from meltrepro.measure.records import read_campaign
from meltrepro.plan.identity import digest_of
from meltrepro.record.campaign import campaign_bytes
from meltrepro.record.study import StudyDocument, StudyEntry, read_study, study_bytes
from meltrepro.workflow.manifests import manifests_of
from meltrepro.workflow.studies import Clock, work_in
from tests.support.campaigns import build_campaign

STUDY = StudyDocument(
    name="paper",
    entries=[
        StudyEntry(manifest="macro.yaml", campaign="20261128T000000Z-macro-000000"),
        StudyEntry(manifest="phones.yaml", campaign=None, reason="no phone is attached"),
    ],
)


def manifest(**changes: object) -> Manifest:
    return Manifest.model_validate(
        {
            "meltrepro": 1,
            "name": "study",
            "models": {
                "small": {
                    "source": {"file": "a.gguf"},
                    "chat_template": "plain",
                    "quantizations": ["q8_0", "q4_0"],
                    "parameters": 1e9,
                }
            },
            "frameworks": {"llama.cpp": {"release": "2024-02-27"}},
            "workloads": {"chat": {"conversations": [["Hi"]], "max_tokens": 32}},
            "protocol": {"repetitions": 2, "warmups": 1},
            **changes,
        }
    )


def test_folders_stand_for_their_manifests_and_not_for_locks(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yaml", "a.lock.yaml", "notes.txt"):
        (tmp_path / name).write_text("")
    alone = tmp_path / "elsewhere" / "c.yaml"
    assert manifests_of([tmp_path, alone]) == [tmp_path / "a.yaml", tmp_path / "b.yaml", alone]


def test_an_empty_folder_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no manifest") as refused:
        manifests_of([tmp_path])
    assert refused.value.hint


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_bytes(study_bytes(STUDY))
    assert read_study(path).model_copy(update={"seal": None}) == STUDY


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda text: text.replace(b"phone is", b"phone was"), "it was changed"), (lambda text: text[:40], "is damaged")],
)
def test_a_study_that_was_changed_is_refused(tmp_path: Path, change: object, said: str) -> None:
    assert callable(change)
    path = tmp_path / "study.json"
    path.write_bytes(change(study_bytes(STUDY)))
    with pytest.raises(RecordError, match=said):
        read_study(path)
    with pytest.raises(RecordError, match="cannot be read"):
        read_study(tmp_path / "none.json")


def test_effort_grows_with_what_is_asked_for() -> None:
    turns = {"chat": 10}
    once = work_in(manifest(), turns)
    assert once == 3 * 10 * (32 + 8) * 2 * 1e9
    assert work_in(manifest(), {"chat": 20}) == 2 * once
    assert work_in(manifest(protocol={"repetitions": 5, "warmups": 1}), turns) == 2 * once


def test_time_left_follows_from_what_was_measured() -> None:
    clock = Clock([1.0, 2.0, 4.0])
    assert clock.left_s() is None
    clock.passed(0, 0.0)
    assert clock.left_s() is None, "what was there already says nothing about the time"
    clock.passed(1, 30.0)
    assert clock.left_s() == 60


def test_a_finished_campaign_is_found_again_only_for_the_same_work(tmp_path: Path) -> None:
    records, prompts = tmp_path / "records", {"prompts.yaml": "1" * 64}
    folder = build_campaign(tmp_path)
    record = read_campaign(folder)
    document = record.document.model_copy(
        update={"manifest_digest": digest_of(record.manifest), "meltrepro_version": meltrepro.__version__}
    )
    (folder / "campaign.json").write_bytes(campaign_bytes(document))
    lock = Lock(lock=1, manifest="0" * 64, prompts=prompts)
    (folder / "lock.yaml").write_text(dump_lock(lock))
    assert finished_campaign(records, record.manifest, prompts) == folder
    assert finished_campaign(records, record.manifest, {"prompts.yaml": "2" * 64}) is None
    other = record.manifest.model_copy(update={"description": "something else"})
    assert finished_campaign(records, other, prompts) is None
    assert finished_campaign(tmp_path / "nowhere", record.manifest, prompts) is None
    (folder / "campaign.json").write_bytes(campaign_bytes(document.model_copy(update={"finished_wall_ns": None})))
    assert finished_campaign(records, record.manifest, prompts) is None, "it has not ended"
    (folder / "campaign.json").write_bytes(b"{")
    assert finished_campaign(records, record.manifest, prompts) is None, "a damaged one is passed over"
