"""Campaigns whose scorer is a script: every way in which it ends has its outcome, and a rerun finishes what was killed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.build.model import Input
from meltrepro.campaign.conduct import CampaignResult
from meltrepro.campaign.setup import Setup
from meltrepro.errors import RecordError
from meltrepro.frameworks.base import DATA, scorer_of
from meltrepro.manifest.accuracy import QuestionWorkload
from meltrepro.manifest.sources import FileSource
from meltrepro.measure.records import read_campaign
from meltrepro.record import layout
from meltrepro.record.reader import campaign_folders, read_outcome
from meltrepro.record.trial import ScoringRequest
from meltrepro.replay.control import with_controls
from meltrepro.replay.replay import recorded_requests, replay
from meltrepro.stats.equivalence import ReplayVerdict
from meltrepro.steps import Sink, Step, silent
from meltrepro.store.archive import pack_tree
from meltrepro.store.cas import Store
from tests.fault import rig

SCORER = scorer_of("llama.cpp")
ASKED = 10
ONCE = {"repetitions": 1, "warmups": 0, "timeout_s": 20, "retries": 2}
SCRIPT = '''#!{python} -IS
"""Stands in for a scorer: obeys its data."""
import os, signal, sys, time
given = dict(zip(sys.argv[1:], sys.argv[2:]))
asked, order = int(given["--multiple-choice-tasks"]), open(given["-bf"]).read().split()
def answer(n, right):
    print(n, 100 * min(n, right) / n, sep="\\t", flush=True)
def answers(last, right=7):
    for n in range(1, last + 1):
        answer(n, right)
flag = given["-bf"] + ".killed"
match order:
    case ["right", k]:
        answers(asked, int(k))
    case ["exit", status]:
        print("failed to load the model \\x1b[31m", file=sys.stderr)
        sys.exit(int(status))
    case ["signal", number]:
        answers(3)
        os.kill(os.getpid(), int(number))
    case ["signal-once", number]:
        answers(3)
        if not os.path.exists(flag):
            open(flag, "w").close()
            os.kill(os.getpid(), int(number))
        for n in range(4, asked + 1):
            answer(n, 7)
    case ["give-up"]:
        answers(4)
        print("multiple_choice_score : task 5 does not fit in the context window", file=sys.stderr)
    case ["stop-after", n]:
        answers(int(n))
    case ["too-many"]:
        answers(asked + 1)
    case ["jump"]:
        answers(4)
        print("5\\t20.0")
    case ["garbage"]:
        sys.stdout.buffer.write(bytes(range(256)) * 400)
    case ["nothing"]:
        pass
    case ["half-a-line"]:
        answers(asked - 1)
        sys.stdout.write(str(asked))
    case ["hang"]:
        answers(2)
        time.sleep(1000)
'''


def scoring(folder: Path, orders: Mapping[str, str], protocol: Mapping[str, object] = ONCE) -> Setup:
    """A campaign with one workload of ten questions for each order."""
    setup = rig.make_setup(folder, rig.Spec(dict.fromkeys(orders, "sleep 0"), dict(protocol)))
    scorer = folder / "bundle" / SCORER.program
    scorer.write_text(SCRIPT.format(python=sys.executable))
    scorer.chmod(0o755)
    workloads, files = {}, {}
    for name, order in orders.items():
        path = folder / f"{name}.data"
        path.write_text(order)
        files[name] = Input(path, hashlib.sha256(order.encode()).hexdigest())
        workloads[name] = QuestionWorkload(task="piqa", data=FileSource(file=path.name), questions=ASKED)
    manifest = setup.plan.manifest.model_copy(update={"workloads": workloads})
    cells = tuple(replace(cell, workload=workloads[cell.workload_name], kind="llama.cpp") for cell in setup.plan.cells)
    bundles = tuple(replace(node, kind="llama.cpp") for node in setup.plan.bundles)
    requests = {
        cell.id: ScoringRequest(
            task="piqa",
            mode="multiple-choice",
            model="",
            context=512,
            threads=1,
            batch=128,
            data=files[cell.workload_name].digest,
            inputs={DATA: files[cell.workload_name].digest},
            questions=ASKED,
        )
        for cell in cells
    }
    return replace(
        setup,
        plan=replace(setup.plan, manifest=manifest, cells=cells, bundles=bundles),
        requests=requests,
        inputs={file.digest: file for file in files.values()},
        data={name: file.digest for name, file in files.items()},
    )


def run(folder: Path, orders: Mapping[str, str], sink: Sink = silent, **protocol: object) -> CampaignResult:
    return rig.run_setup(folder, scoring(folder, orders, {**ONCE, **protocol}), sink)


@pytest.mark.parametrize(
    ("order", "reason", "attempts", "exit_code"),
    [
        ("exit 1", "runner-error: exit status 1, the scorer failed: failed to load the model ?[31m", 1, 1),
        ("exit 126", "not-started: the scorer cannot be started", 1, 126),
        ("signal 9", "killed: something else stopped the scorer with SIGKILL", 3, 137),
        ("signal 11", "crashed: the scorer died of SIGSEGV", 1, 139),
        ("give-up", "not-scored: the scorer gave up: multiple_choice_score : task 5 does not fit", 1, 0),
        ("stop-after 9", "not-scored: the scorer's output does not add up: it was asked 10 questions and ans", 1, 0),
        ("too-many", "not-scored: the scorer's output does not add up: it was asked 10 questions and ans", 1, 0),
        ("half-a-line", "not-scored: the scorer's output does not add up: it was asked 10 questions and ans", 1, 0),
        ("jump", "not-scored: the scorer's output does not add up: question 5 cannot bring the share", 1, 0),
        ("garbage", "not-scored: the scorer's output does not add up: ", 1, 0),
        ("nothing", "not-scored: the scorer's output does not add up: it was asked 10 questions and ans", 1, 0),
    ],
)
def test_a_scorer_that_fails_has_its_reason(
    tmp_path: Path, order: str, reason: str, attempts: int, exit_code: int
) -> None:
    result = run(tmp_path, {"bad": order, "good": "right 7"})
    ((trial, failure),) = result.tally.failed
    said = str(failure)
    assert said.startswith(reason)
    assert result.tally.ok == 1, "the other cell goes on"
    outcome = read_outcome(layout.trial_folder(result.campaign.folder, trial))
    assert outcome is not None
    assert (outcome.state, outcome.exit_code, outcome.attempt) == ("failed", exit_code, attempts)
    assert {"request.json", "stdout.log", "stderr.log"} <= set(outcome.files)
    campaign = read_campaign(result.campaign.folder)
    campaign.verify()
    scores = {cell.entry.workload: [(score.k, score.n) for score in cell.scores] for cell in campaign.cells}
    assert scores == {"bad": [], "good": [(7, 10)]}
    bad = next(cell for cell in campaign.cells if cell.entry.workload == "bad")
    assert not bad.validity.valid


def test_a_scorer_that_hangs_is_stopped(tmp_path: Path) -> None:
    result = run(tmp_path, {"bad": "hang"}, timeout_s=0.5)
    ((_, failure),) = result.tally.failed
    said = str(failure)
    assert said.startswith("timeout: stopped after 0.5 s")


def test_a_scorer_that_was_killed_is_started_again(tmp_path: Path) -> None:
    result = run(tmp_path, {"a": "signal-once 9"})
    assert (result.tally.ok, result.tally.failed) == (1, ())
    (cell,) = read_campaign(result.campaign.folder).cells
    (trial,) = cell.repetitions
    assert trial.outcome.attempt == 2
    assert [(score.k, score.n) for score in trial.scores] == [(7, 10)], "of the second attempt alone"
    assert (trial.folder.parent / "r000.attempt1" / "stdout.log").read_text().count("\n") == 3


def test_a_rerun_finishes_a_campaign_that_was_interrupted(tmp_path: Path) -> None:
    orders = {"a": "right 7", "b": "right 6", "c": "right 5"}
    begun = []

    def interrupt(step: Step) -> None:
        if step.name == "trial" and step.phase == "begin":
            begun.append(step.subject)
            if len(begun) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, orders, interrupt)
    again = run(tmp_path, orders)
    assert again.campaign.resumed
    assert (again.tally.ok, again.tally.earlier) == (3, 1)
    (folder,) = campaign_folders(tmp_path / "home/records")
    assert [cell.scores[0].k for cell in read_campaign(folder).cells] == [7, 6, 5]


def test_other_questions_are_another_campaign(tmp_path: Path) -> None:
    first = run(tmp_path, {"a": "signal 11"})
    second = run(tmp_path, {"a": "right 3"})
    assert second.campaign.folder != first.campaign.folder, "nothing is resumed with other data"
    assert not second.campaign.resumed


def test_repetitions_of_scores_are_their_own(tmp_path: Path) -> None:
    setup = scoring(tmp_path, {"a": "right 7"}, {**ONCE, "repetitions": 5, "warmups": 2})
    assert rig.run_setup(tmp_path, setup).tally.ok == 1, "those of the workload, not of the protocol"


def test_questions_that_changed_since_a_record_are_refused(tmp_path: Path) -> None:
    setup = scoring(tmp_path, {"a": "right 7"})
    with pytest.raises(RecordError, match=r"the record's data of task piqa has sha256 .* none such can be made"):
        rig.run_setup(tmp_path, replace(setup, inputs={}))


def test_a_bundle_without_a_scorer_is_refused(tmp_path: Path) -> None:
    setup = scoring(tmp_path, {"a": "right 7"})
    (tmp_path / "bundle" / SCORER.program).unlink()
    with pytest.raises(RecordError, match=r"has no scorer \(bin/perplexity\)"):
        rig.run_setup(tmp_path, setup)


def test_output_that_was_changed_afterwards_is_no_score(tmp_path: Path) -> None:
    result = run(tmp_path, {"a": "right 7"})
    (cell,) = read_campaign(result.campaign.folder).cells
    path = cell.repetitions[0].folder / "stdout.log"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("70.0", "80.0"))
    (cell,) = read_campaign(result.campaign.folder).cells
    with pytest.raises(RecordError, match=r"stdout\.log"):
        _ = cell.scores


def test_another_build_is_compared_with_the_record_alone(tmp_path: Path) -> None:
    """Scores are the same on any day: the recorded artifacts need not run once more beside it."""
    store = Store(tmp_path / "cache" / "store")
    setup = scoring(tmp_path, {"a": "right 7"})
    pack_tree(tmp_path / "bundle", tmp_path / "tar", prefix="bundle")
    kept = {"bundle": store.put_file(tmp_path / "tar", move=True), "model": store.put_file(tmp_path / "model")}
    artifacts = {name: replace(each, digest=kept[each.kind]) for name, each in setup.artifacts.items()}
    recorded = read_campaign(rig.run_setup(tmp_path, replace(setup, artifacts=artifacts)).campaign.folder)
    rebuilt = replace(setup, requests=recorded_requests(recorded))
    assert with_controls(rebuilt, recorded, store, rebuilt.plan.manifest.replay) == rebuilt
    answer = replay(recorded, rebuilt, rebuilt.plan.manifest.replay, rig.settings(tmp_path / "again"), silent)
    (cell,) = answer.comparison.cells
    assert {each.name for each in cell.identities} >= {"bundle_digest", "model_digest"}
    assert (answer.verdict, answer.reasons) == (ReplayVerdict.reproduced, ())
