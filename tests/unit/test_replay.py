"""Replays of a campaign whose runner is a script: the same binary, another one, one that the store still has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.build.model import Artifact
from meltrepro.campaign.setup import Setup
from meltrepro.errors import CorruptStore, PlanError, UsageError
from meltrepro.frameworks.base import SkipKind
from meltrepro.manifest.protocol import Limits, Measure, Order, Protocol
from meltrepro.manifest.schema import Reference, Replay
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.plan.model import SkippedCell
from meltrepro.record.calibrations import Calibration, CalibrationSession
from meltrepro.registry import FRAMEWORKS
from meltrepro.replay.control import STEADY, is_twin, twin_of, with_controls
from meltrepro.replay.replay import Replayed, recorded_requests, replay, undecidable
from meltrepro.replay.show import session_in_words
from meltrepro.stats.equivalence import ReplayVerdict
from meltrepro.steps import Step, silent
from meltrepro.store.archive import pack_tree
from meltrepro.store.cas import Store
from meltrepro.workflow.replays import intend
from tests.fault import rig
from tests.support.frameworks import Fake

DECLARED = Replay(margin=0.2, maximum=10, session_cv=0.01)
CELL = "m/as-is/f/host/chat"


def spec(repetitions: int = DECLARED.maximum) -> rig.Spec:
    return rig.Spec({"chat": "pace-on-paper 10"}, {"repetitions": repetitions, "warmups": 0, "order": "interleaved"})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache" / "store")


def stored_bundle(store: Store, folder: Path, slowdown: float = 1.0) -> Artifact:
    """The script as a bundle in the store; a slower one is another binary."""
    made = rig.script_bundle(folder)
    runner = made.path / "bin" / "melt-runner"
    runner.write_text(runner.read_text().replace("slowdown = 0, 0, 0.0, 1.0", f"slowdown = 0, 0, 0.0, {slowdown}"))
    pack_tree(made.path, folder / "tar", prefix="bundle")
    digest = store.put_file(folder / "tar", move=True)
    return replace(made, digest=digest, file=store.path(digest), path=store.unpack(digest) / "bundle")


def setup_with(bundle: Artifact, store: Store, folder: Path, repetitions: int = DECLARED.maximum) -> Setup:
    setup = rig.make_setup(folder, spec(repetitions), bundle=bundle)
    model = next(artifact for artifact in setup.artifacts.values() if artifact.kind == "model")
    digest = store.put_file(model.path)
    return replace(setup, artifacts={**setup.artifacts, model.id: replace(model, digest=digest)})


@pytest.fixture
def recorded(store: Store, tmp_path: Path) -> CampaignRecord:
    """A campaign of five trials."""
    setup = setup_with(stored_bundle(store, tmp_path / "first"), store, tmp_path, 5)
    return read_campaign(rig.run_setup(tmp_path, setup).campaign.folder)


def replayed(recorded: CampaignRecord, setup: Setup, store: Store, folder: Path) -> Replayed:
    setup = replace(setup, requests=recorded_requests(recorded))
    return replay(recorded, with_controls(setup, recorded, store, DECLARED), DECLARED, rig.settings(folder), silent)


def test_names_of_twins() -> None:
    assert twin_of("m/q/f/t/w") == "m/q/f.recorded/t/w"
    assert is_twin(twin_of(CELL))
    assert not is_twin(CELL)


def calibration(setup: Setup, *levels: float) -> Calibration:
    """A calibration of the rig's device: sessions of four trials at these levels."""
    sessions = [
        CalibrationSession(
            campaign=f"c{number}",
            started_wall_ns=number + 1,
            sampled=True,
            values={name: [level * noise for noise in (0.995, 1.0, 1.005, 1.001)] for name in STEADY},
            times_s=[0.0, 1.0, 2.0, 3.0],
        )
        for number, level in enumerate(levels)
    ]
    return Calibration(device=setup.devices["host"].id, work="0" * 64, cell="c", sessions=sessions)


@pytest.mark.slow
def test_the_same_artifacts_run_beside_themselves_where_sessions_may_differ(
    recorded: CampaignRecord, store: Store, tmp_path: Path
) -> None:
    setup = setup_with(stored_bundle(store, tmp_path / "again"), store, tmp_path)
    answer = replayed(recorded, setup, store, tmp_path)
    (cell,) = answer.comparison.cells
    assert cell.tokens is not None and cell.tokens.exact
    assert cell.proven and answer.verdict is ReplayVerdict.reproduced and not answer.reasons
    generation = next(metric for metric in cell.metrics if metric.metric == "generation_tps")
    assert generation.control is not None and generation.session is not None
    assert generation.session.usual is None and not generation.session.unusual
    assert "of the recorded one" in session_in_words(generation)
    assert generation.decision is not None and generation.decision.verdict is ReplayVerdict.reproduced


@pytest.mark.slow
def test_recorded_values_are_taken_where_the_manifest_says_so(
    recorded: CampaignRecord, store: Store, tmp_path: Path
) -> None:
    setup = setup_with(stored_bundle(store, tmp_path / "again"), store, tmp_path)
    alone = DECLARED.model_copy(update={"reference": "recorded"})
    assert with_controls(setup, recorded, store, alone) == setup
    setup = replace(setup, requests=recorded_requests(recorded))
    answer = replay(recorded, setup, alone, rig.settings(tmp_path), silent)
    (cell,) = answer.comparison.cells
    assert all(metric.control is None for metric in cell.metrics) and not cell.controlled


def test_a_calibration_says_whether_recorded_values_will_do(
    recorded: CampaignRecord, store: Store, tmp_path: Path
) -> None:
    setup = setup_with(stored_bundle(store, tmp_path / "again"), store, tmp_path)

    def arms(reference: Reference = "auto", *levels: float, device: str = "") -> list[str]:
        known = {"host": calibration(setup, *levels)} if levels else {}
        facts = {"host": replace(setup.devices["host"], id=device or setup.devices["host"].id)}
        declared = DECLARED.model_copy(update={"reference": reference})
        there = replace(setup, calibrations=known, devices=facts)
        return [cell.id for cell in with_controls(there, recorded, store, declared).plan.cells]

    alone, beside = [CELL], [CELL, twin_of(CELL)]
    steady, unsteady = (1.0, 1.002, 0.998, 1.001, 0.999, 1.0), (1.0, 1.4, 0.7, 1.1, 0.9, 1.2)
    assert arms() == beside, "nothing is known"
    assert arms("auto", *steady) == alone
    assert arms("control", *steady) == beside
    assert arms("auto", *unsteady) == beside
    assert arms("recorded", *unsteady) == alone
    assert arms("auto", 1.0) == beside, "one session says nothing"
    assert arms("auto", device="another") == alone, "what another device makes of it is the question"


@pytest.mark.slow
def test_a_slower_rebuild_is_judged_beside_the_recorded_one(
    recorded: CampaignRecord, store: Store, tmp_path: Path
) -> None:
    setup = setup_with(stored_bundle(store, tmp_path / "slow", slowdown=2), store, tmp_path)
    answer = replayed(recorded, setup, store, tmp_path)
    campaign = read_campaign(answer.folder)
    assert [cell.id for cell in campaign.cells] == [CELL, twin_of(CELL)]
    assert campaign.cells[1].entry.bundle_digest == recorded.cells[0].entry.bundle_digest
    assert len(campaign.cells[0].repetitions) == len(campaign.cells[1].repetitions)
    (cell,) = answer.comparison.cells
    generation = next(metric for metric in cell.metrics if metric.metric == "generation_tps")
    assert generation.control is not None and generation.control > 1.5 * generation.second
    assert generation.decision is not None and generation.decision.verdict is ReplayVerdict.differs
    assert answer.verdict is ReplayVerdict.differs
    assert not answer.comparison.only_second
    assert any("generation_tps: DIFFERS" in reason for reason in answer.reasons)


def test_without_the_recorded_artifact_there_is_no_control(
    recorded: CampaignRecord, store: Store, tmp_path: Path
) -> None:
    setup = setup_with(stored_bundle(store, tmp_path / "slow", slowdown=2), store, tmp_path)
    assert with_controls(setup, recorded, Store(tmp_path / "elsewhere"), DECLARED) == setup


def test_a_recorded_artifact_that_was_changed_is_no_control(
    recorded: CampaignRecord, store: Store, tmp_path: Path
) -> None:
    setup = setup_with(stored_bundle(store, tmp_path / "slow", slowdown=2), store, tmp_path)
    path = store.path(recorded.cells[0].entry.bundle_digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CorruptStore):
        with_controls(setup, recorded, store, DECLARED)


def test_the_design_interleaves_both_arms(recorded: CampaignRecord, store: Store, tmp_path: Path) -> None:
    from meltrepro.campaign.conduct import schedule

    setup = setup_with(stored_bundle(store, tmp_path / "slow", slowdown=2), store, tmp_path)
    cells = [cell.id for cell in with_controls(setup, recorded, store, DECLARED).plan.cells]
    protocol = Protocol(repetitions=4, warmups=0, order=Order.interleaved, seed=1)
    order = [trial.cell_id for trial in schedule(cells, protocol)]
    assert all({*order[i : i + 2]} == {CELL, twin_of(CELL)} for i in range(0, 8, 2))


def test_cells_without_a_figure_to_compare_with_are_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that failed, one that was skipped; and where limits are stricter, every one, as INVALID."""
    monkeypatch.setitem(FRAMEWORKS.loaded, "f", Fake("f", (rig.VARIANT,), {}))
    orders = {"chat": "pace-on-paper 10", "broken": "exit 3"}
    setup = rig.make_setup(tmp_path, rig.Spec(orders, {"repetitions": 1, "warmups": 0, "retries": 0}))
    skip = SkippedCell("m/as-is/f/host/long", SkipKind.context, "needs a context of 9 tokens")
    setup = replace(setup, plan=replace(setup.plan, skipped=(skip,)))
    campaign = read_campaign(rig.run_setup(tmp_path, setup).campaign.folder)
    found = undecidable(campaign, lambda cell: True)
    assert found.keys() == {skip.cell_id, "m/as-is/f/host/broken"}
    assert found[skip.cell_id] == f"it was skipped: {skip.reason}"
    assert found["m/as-is/f/host/broken"].startswith("no repetition of it is believed: INVALID(")
    assert undecidable(campaign, lambda cell: cell == CELL) == {}
    intent = intend(campaign, rig.settings(tmp_path))
    assert [cell.id for cell in intent.recorded.cells] == [CELL] and intent.left_out == found
    with pytest.raises(PlanError, match="nothing in .* can be compared with") as caught:
        intend(campaign, rig.settings(tmp_path), only=["*/broken"])
    assert "--all-cells" in (caught.value.hint or "")
    with pytest.raises(UsageError, match=r"no cell matches '\*/chatt'"):
        intend(campaign, rig.settings(tmp_path), only=[CELL, "*/chatt"])
    strict = Measure(limits=Limits(min_tokens=4))
    setup = rig.with_manifest(setup, setup.plan.manifest.model_copy(update={"measure": strict, "name": "strict"}))
    invalid = read_campaign(rig.run_setup(tmp_path, setup).campaign.folder)
    assert "INVALID(too-few-tokens" in undecidable(invalid, lambda cell: cell == CELL)[CELL]


@pytest.mark.slow
def test_the_trials_of_all_rounds_are_counted(recorded: CampaignRecord, store: Store, tmp_path: Path) -> None:
    setup = setup_with(stored_bundle(store, tmp_path / "again"), store, tmp_path)
    setup = replace(setup, requests=recorded_requests(recorded))
    steps: list[Step] = []
    answer = replay(recorded, setup, DECLARED, rig.settings(tmp_path), steps.append)
    (end,) = [step for step in steps if (step.name, step.phase) == ("campaign", "end")]
    (cell,) = read_campaign(answer.folder).cells
    assert (end.detail["ok"], end.detail["earlier"], end.detail["left"]) == (len(cell.repetitions), 0, 0)
    begun = [step for step in steps if (step.name, step.phase) == ("trial", "begin")]
    assert [step.done for step in begun] == list(range(len(cell.repetitions)))
    assert {step.total for step in begun} == {DECLARED.maximum}, "so many at most, whatever round it is"
    assert len(cell.repetitions) > 1
