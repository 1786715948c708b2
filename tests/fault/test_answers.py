"""Answers that are checked, through the whole program: asked by the runner, scored from the record alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from meltrepro.campaign import runner
from meltrepro.cli.app import main
from meltrepro.errors import DataError, ManifestError, RecordError
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.record import trial as record
from tests.fault.project import Project, Refuse, small
from tests.support.json_output import checked

SAID = {"say It is 4.|#### 4": "#### 4", "say Five?": "#### 5", "say That makes $1,000.": "#### 1000"}
"""What the runner answers, and the answer that is right: two of three are, one of them by the strict rule."""


def write(project: Project, rows: Mapping[str, str] = SAID, **workload: object) -> Path:
    data = [{"question": question, "answer": answer} for question, answer in rows.items()]
    (project.spec.parent / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    keys = {"task": "gsm8k", "data": {"file": "sums.jsonl"}, "context": 256, "max_tokens": 64, **workload}
    project.spec.write_text(yaml.safe_dump(small("small", {}, workloads={"sums": keys})))
    return project.spec


def measured(project: Project, spec: Path) -> CampaignRecord:
    assert main(["run", str(spec), "--no-track", "--quiet"]) == 0
    return read_campaign(project.campaign)


def test_from_the_run_to_the_replay(equipped: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    spec, said = write(equipped), checked(capsys)
    ran = said("run", "run", spec, "--no-track")
    assert ran["failed"] == []
    (cell,) = read_campaign(equipped.campaign).cells
    (trial,) = cell.repetitions
    assert [(score.metric, score.k, score.n) for score in cell.scores] == [("acc", 2, 3), ("strict", 1, 3)]
    assert [(mark.number, mark.right, mark.found) for mark in trial.marks] == [
        (1, True, "4"),
        (2, False, None),
        (3, True, "1000"),
    ]
    assert cell.entry.params["task"] == "gsm8k"
    assert cell.summaries["generation_tps"].n == 1, "it is measured as any conversation is"
    values = trial.metrics.values
    assert values["right_answers"] == 2
    assert cell.summaries["time_per_right_answer_s"].median == values["answering_s"] / 2
    assert "energy_per_right_answer_j" in cell.unavailable
    assert len(said("show", "show", ran["campaign"])["cells"]) == 1
    capsys.readouterr()
    assert main(["show", "last"]) == 0
    shown = capsys.readouterr().out
    assert "accuracy.gsm8k " in shown
    assert "accuracy.gsm8k.strict" in shown
    assert "generation tok/s" in shown
    assert "s/right" in shown
    assert "J/right" not in shown
    (found,) = said("show", "show", "last", "--answers")["cells"]
    assert found["answers"][1] == {
        "question": 2,
        "right": False,
        "strict": False,
        "expected": "5",
        "found": None,
        "answer": "Five?",
    }
    capsys.readouterr()
    assert main(["show", "last", "--answers"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert f"{cell.id}: 2 of 3 are right" in rows
    assert [row.split() for row in rows[-3:]] == [
        ["2", "wrong", "5", "-"],  # what is wrong comes first
        ["1", "right", "4", "4"],
        ["3", "right", "1000", "1000"],
    ]
    assert main(["report", "last", "-o", str(tmp_path / "report")]) == 0
    table = (tmp_path / "report" / "tables" / "accuracy.csv").read_text()
    assert "gsm8k,acc,0.666" in table
    assert "gsm8k,strict,0.333" in table
    assert "time_per_right_answer_s" in table.splitlines()[0]
    bundle = tmp_path / "it.melt"
    said("bundle-export", "bundle", "export", "last", "-o", bundle)
    replayed = said("replay", "replay", ran["campaign"], "--no-track")
    assert replayed["verdict"] == "REPRODUCED", replayed["reasons"]
    assert [score["verdict"] for score in replayed["cells"][0]["scores"]] == ["REPRODUCED"] * 2


def test_rules_of_ones_own(equipped: Project) -> None:
    rows = [
        {"prompt": "say HELLO THERE", "rules": [{"kind": "upper-case"}, {"kind": "words", "most": 2}]},
        {"prompt": "say - a|- b", "rules": [{"kind": "bullets", "least": 3}]},
    ]
    spec = write(equipped, task="instructions", repetitions=2)
    (spec.parent / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (cell,) = measured(equipped, spec).cells
    assert len(cell.repetitions) == 2
    assert cell.agreement.valid
    ((score,), (trial, _)) = cell.scores, cell.repetitions
    assert (score.k, score.n) == (1, 2)
    assert trial.marks[1].found == "2 bullet points, at least 3"
    taken = [each.metrics.values["answering_s"] for each in cell.repetitions]
    assert cell.summaries["time_per_right_answer_s"].median == pytest.approx(sum(taken) / 2), "sums over repetitions"


def test_where_no_answer_is_right_none_has_a_cost(equipped: Project) -> None:
    (cell,) = measured(equipped, write(equipped, {"say No.": "#### 1"})).cells
    assert cell.summaries["right_answers"].median == 0
    assert "time_per_right_answer_s" not in cell.summaries
    assert cell.unavailable["time_per_right_answer_s"] == "no answer is right"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "How much?"}, "question 2: expected text in 'answer', got nothing"),
        ({"question": "How much?", "answer": "four"}, "question 2: expected an 'answer' that ends in '#### NUMBER'"),
    ],
)
def test_rows_that_cannot_be_checked_stop_before_anything_is_built(
    equipped: Project, refuse: Refuse, row: Mapping[str, str], said: str
) -> None:
    spec = write(equipped, {"How much?": "#### 1"})
    with (spec.parent / "sums.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    found = refuse(DataError, "run", spec, "--no-track")
    assert said in found.message
    assert found.message.startswith("workloads.sums (file:")
    assert not (equipped.folder / "home" / "records").exists()


def test_a_question_that_would_speak_for_the_model_is_refused(equipped: Project, refuse: Refuse) -> None:
    spec = write(equipped, {"<|im_end|>": "#### 1"})
    spec.write_text(spec.read_text().replace("chat_template: plain", "chat_template: chatml"))
    found = refuse(ManifestError, "run", spec, "--no-track")
    assert "workloads.sums.data: conversation 1" in found.message


def test_what_answers_are_held_against_is_sealed(equipped: Project) -> None:
    campaign = measured(equipped, write(equipped))
    (cell,) = campaign.cells
    path = cell.repetitions[0].folder / record.CHECKS
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"gold":"5"', '"gold":"6"'))
    (cell,) = read_campaign(equipped.campaign).cells
    with pytest.raises(RecordError, match=r"checks\.json was changed after it was recorded"):
        _ = cell.scores


def test_other_data_are_another_campaign(equipped: Project) -> None:
    assert main(["run", str(write(equipped)), "--no-track", "--quiet"]) == 0
    equipped.lock.unlink()  # which pins the data
    changed = {**SAID, "say Five?": "#### 6"}
    assert main(["run", str(write(equipped, changed)), "--no-track", "--quiet"]) == 0
    assert len(list((equipped.folder / "home" / "records").iterdir())) == 2


# -- asking that ends early -------------------------------------------------------------------------------------------


def many(right: int, wrong: int) -> dict[str, str]:
    """Questions with so many right answers."""
    known = {f"say {n}": f"#### {n}" for n in range(100, 100 + right)}
    return known | {f"say {n}": "#### 1" for n in range(500, 500 + wrong)}


def test_asking_ends_once_the_score_is_known(
    equipped: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec, said = write(equipped, many(60, 20), stop_within=20, stop_every=10, max_tokens=8), checked(capsys)
    ran = said("run", "run", spec, "--no-track")
    assert ran["failed"] == []
    (cell,) = read_campaign(equipped.campaign).cells
    assert cell.asking is not None
    assert (cell.asking.known, cell.asking.asked, cell.asking.saved) == (True, 40, 40)
    assert [trial.name for trial in cell.repetitions] == ["r000", "r001", "r002", "r003"]
    assert cell.agreement.valid, "though each asks other questions"
    numbers = [mark.number for trial in cell.repetitions for mark in trial.marks]
    assert len(set(numbers)) == 40
    assert numbers != sorted(numbers), "in an order that is drawn"
    score, strict = cell.scores
    assert (score.n, score.k, strict.k) == (40, sum(cell.right.values()), 0)
    low, high = cell.asking.interval
    assert low <= 0.75 <= high
    assert max(score.value - low, high - score.value) <= 0.2
    assert cell.summaries["time_per_right_answer_s"].n == 4
    said_of_it = f"asked 40 of 80 questions, 40 saved: the score is known within 20 points; that of all lies from {100 * low:.1f}"
    capsys.readouterr()
    assert main(["show", "last"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert said_of_it in shown
    (found,) = said("show", "show", "last", "--answers")["cells"]
    assert sorted(each["question"] for each in found["answers"]) == sorted(numbers), "those of all its trials"
    assert main(["report", "last", "-o", str(tmp_path / "report")]) == 0
    head, row = (tmp_path / "report" / "tables" / "accuracy.csv").read_text().splitlines()[:2]
    assert dict(zip(head.split(","), row.split(","), strict=True))["saved"] == "40"
    assert "40 of 80 questions, 40 saved" in (tmp_path / "report" / "index.html").read_text()
    assert said("run", "run", spec, "--no-track", "--new")["failed"] == []
    replayed = said("replay", "replay", ran["campaign"], "--no-track")
    assert (replayed["verdict"], replayed["reasons"]) == ("REPRODUCED", [])


def test_where_it_cannot_be_known_of_fewer_all_are_asked(equipped: Project) -> None:
    (cell,) = measured(equipped, write(equipped, many(6, 6), stop_within=1, stop_every=5)).cells
    assert cell.asking is not None
    assert (cell.asking.asked, cell.asking.saved, cell.asking.interval) == (12, 0, (0.5, 0.5))
    assert [len(trial.marks) for trial in cell.repetitions] == [5, 5, 2]


def test_a_campaign_that_was_stopped_goes_on_asking(equipped: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write(equipped, many(60, 20), stop_within=20, stop_every=10, max_tokens=8)
    with monkeypatch.context() as patch:
        patch.setattr(runner, "is_known", lambda cell, index: stop_at(index, 2))
        assert main(["run", str(spec), "--no-track", "--quiet"]) == 130
    (cell,) = read_campaign(equipped.campaign).cells
    assert cell.asking is not None
    assert (cell.asking.asked, cell.asking.known, cell.asked) == (20, False, 8)
    (cell,) = measured(equipped, spec).cells
    assert cell.asking is not None
    assert (cell.asking.asked, cell.asked) == (40, 4)


def stop_at(index: int, last: int) -> bool:
    if index == last:
        raise KeyboardInterrupt
    return False
