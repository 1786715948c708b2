"""What is known of a device's steadiness: in every record, behind `repetitions: auto`, and what happens where it is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from meltrepro import errors
from meltrepro.cli.app import main
from meltrepro.measure.records import read_campaign
from meltrepro.measure.spreads import drift_of, sampling_cost, spread_of, spreads
from meltrepro.record import calibrations
from meltrepro.record.calibrations import Calibration, CalibrationSession
from meltrepro.record.capabilities import system_of
from meltrepro.settings import load as load_settings
from meltrepro.stats.sessions import Spread
from meltrepro.targets import registry
from tests.fault.project import Project, Refuse, small

DAY_NS = 86_400 * 10**9


def calibration(levels: Sequence[float], within: float = 0.01, **changes: Any) -> Calibration:
    """Of this machine: sessions of five trials, every other one without sensors."""
    generator = np.random.default_rng(1)
    settings = load_settings()
    facts = registry.open_target(registry.named("host", None, settings), settings).identify()
    sessions = [
        CalibrationSession(
            campaign=f"c{number}",
            started_wall_ns=(number + 1) * 60 * 10**9,
            sampled=number % 2 == 0,
            values={"generation_tps": list(level * np.exp(generator.normal(0, within, 5)))},
            times_s=[0.0, 1.0, 2.0, 3.0, 4.0],
        )
        for number, level in enumerate(levels)
    ]
    known = {"device": facts.id, "system": system_of(facts.facts), "work": "0" * 64, "cell": "c", "sessions": sessions}
    return Calibration(**{**known, **changes})


def keep(project: Project, found: Calibration) -> Path:
    path = calibrations.path_of(project.folder / "home", found.device)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found.model_dump_json())
    return path


def spec(project: Project, **protocol: Any) -> None:
    how = {"repetitions": 2, "warmups": 0, "timeout_s": 30, **protocol}
    project.spec.write_text(yaml.safe_dump(small("calibrated", {"chat": "pace-on-paper 10"}, protocol=how)))


def ran(project: Project, *options: str) -> int:
    return main(["run", str(project.spec), "--no-track", "--quiet", *options])


def test_records_hold_what_was_known(equipped: Project) -> None:
    spec(equipped)
    assert ran(equipped) == 0
    campaign = read_campaign(equipped.campaign)
    assert campaign.calibration("host") is None
    assert campaign.cells[0].entry.params["device.calibration"] == "none"


def test_records_hold_a_copy_of_the_calibration(equipped: Project) -> None:
    spec(equipped)
    known = calibration([100, 101, 99, 100])
    keep(equipped, known)
    assert ran(equipped) == 0
    campaign = read_campaign(equipped.campaign)
    assert campaign.calibration("host") == known
    assert campaign.cells[0].entry.params["device.calibration"] == "4 sessions of 1 day, last 1970-01-01"
    place = equipped.campaign / "calibrations" / "host.json"
    place.chmod(0o644)
    place.write_text(known.model_copy(update={"work": "1" * 64}).model_dump_json())
    with pytest.raises(errors.RecordError, match="was changed after it was recorded"):
        campaign.calibration("host")


def test_a_calibration_of_another_system_is_not_used(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec(equipped)
    keep(equipped, calibration([100, 101, 99, 100], system="an older kernel"))
    assert main(["run", str(equipped.spec), "--no-track"]) == 0
    assert "its system was changed since it was calibrated" in capsys.readouterr().err
    assert read_campaign(equipped.campaign).calibration("host") is None


def test_repetitions_follow_from_the_calibration(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    known = calibration([100, 101, 99, 100], within=0.05)
    keep(equipped, known)
    spread = spread_of(known, "generation_tps")
    assert spread is not None
    expected = spread.repetitions(0.08)
    assert expected is not None and expected > 3
    spec(equipped, repetitions="auto", difference=0.08)
    assert ran(equipped) == 0
    campaign = read_campaign(equipped.campaign)
    assert len(campaign.cells[0].repetitions) == expected
    assert campaign.manifest.protocol.repetitions == expected, "a record says how many"
    assert main(["plan", str(equipped.spec), "--json"]) == 0
    capsys.readouterr()


def test_repetitions_that_nothing_is_known_of(equipped: Project, refuse: Refuse) -> None:
    spec(equipped, repetitions="auto")
    found = refuse(errors.PlanError, "run", equipped.spec)
    assert "how steady target host" in found.message
    assert f"meltrepro calibrate host --spec {equipped.spec}" in found.hint
    keep(equipped, calibration([100, 101, 99, 100], within=0.4))
    spec(equipped, repetitions="auto", difference=0.01)
    found = refuse(errors.PlanError, "run", equipped.spec)
    assert "200 repetitions show" in found.message and "protocol.difference" in found.hint
    spec(equipped, repetitions="many")
    assert ran(equipped) == errors.ManifestError.exit_code


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"v": 1}', b"\xff" * 100, b'{"v": 2, "device": "x"}'])
def test_a_damaged_calibration_is_told_with_its_path(equipped: Project, refuse: Refuse, content: bytes) -> None:
    spec(equipped)
    path = keep(equipped, calibration([100, 101, 99, 100]))
    path.write_bytes(content)
    found = refuse(errors.RecordError, "run", equipped.spec)
    assert f"{path} is damaged" in found.message and f"rm {path}" in found.hint


def test_what_a_calibration_says(equipped: Project) -> None:
    known = calibration([100, 90, 100, 90, 100, 90], within=0.001)
    ((metric, spread),) = spreads(known)
    assert metric == "generation_tps" and isinstance(spread, Spread)
    assert spread.between < 0.002, "ways of holding sessions may differ in level"
    cost = sampling_cost(known)
    assert cost is not None and cost.ratio == pytest.approx(100 / 90, rel=0.01)
    rising = calibration([100, 101, 102, 103, 104, 105], within=0.001)
    moved = drift_of(rising)
    assert moved is not None and moved.established and moved.change == pytest.approx(0.05, abs=0.01)
    later = rising.sessions[-1].model_copy(update={"started_wall_ns": 10 * DAY_NS})
    moved = drift_of(rising.model_copy(update={"sessions": [*rising.sessions, later]}))
    assert moved is not None and not moved.established, "of the newest day alone"
    assert sampling_cost(known.model_copy(update={"sessions": known.sessions[::2]})) is None
    assert json.loads(known.model_dump_json())["v"] == 1
