"""`meltrepro calibrate` on this machine, and what later campaigns make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meltrepro.measure.records import read_campaign
from meltrepro.measure.spreads import sampling_cost, spread_of
from meltrepro.record import calibrations
from tests.integration.conftest import ROOT, meltrepro

pytestmark = pytest.mark.machine


def test_this_machine_is_calibrated(engine: None, tmp_path: Path) -> None:
    quick = ("--sessions", "4", "--endurance", "5", "--wait", "--json")
    done = meltrepro("calibrate", "host", *quick, home=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    known = calibrations.load(tmp_path, found["device"])
    assert known is not None and len(known.sessions) == 4
    assert [session.sampled for session in known.sessions] == [True, False, True, False]
    assert all(len(session.values["generation_tps"]) == len(session.times_s) == 4 for session in known.sessions)
    spread = spread_of(known, "generation_tps")
    assert spread is not None and 0 < spread.within < 0.5 and spread.df == 2
    assert sampling_cost(known) is not None
    long = known.endurance
    assert long is not None and len(long.speeds_tps) >= 10
    assert 0.3 < long.steady_tps / long.burst_tps < 3
    again = meltrepro("calibrate", "host", *quick, home=tmp_path)
    assert again.returncode == 0, again.stderr
    both = calibrations.load(tmp_path, found["device"])
    assert both is not None and len(both.sessions) == 8, "sessions add up"
    assert both.sessions[:4] == known.sessions
    done = meltrepro("run", ROOT / "specs/quickstart.yaml", "--no-track", "--wait", "--only=*/q4_0/*", home=tmp_path)
    assert done.returncode == 0, done.stderr
    last = max((tmp_path / "records").iterdir())
    campaign = read_campaign(last)
    (target,) = campaign.manifest.targets
    assert campaign.calibration(target) == both
    assert str(both) in {cell.entry.params["device.calibration"] for cell in campaign.cells}
