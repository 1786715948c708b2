"""A campaign on a device is killed at any moment: a rerun finishes it, nothing is lost, doubled or left running there."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from meltrepro.campaign.conduct import CampaignResult
from meltrepro.errors import DeviceBusy
from meltrepro.manifest.protocol import Limits
from meltrepro.measure.records import read_campaign
from meltrepro.record.reader import campaign_folders
from meltrepro.targets.base import AGENT
from tests.fault import rig as host_rig
from tests.fault.test_interruptions import check_complete, is_finished, wait_for
from tests.integration import adbd_campaign
from tests.integration.adbd_rig import Rig, attached_adbd, native_bundle
from tests.support.forks import Fork

pytestmark = [pytest.mark.integration, pytest.mark.fault]
SPEC = host_rig.Spec({"a": "leave-children"}, {"repetitions": 1, "warmups": 1, "timeout_s": 60})
TRIALS = 2
KILLS = 50
PAUSES_S = (0.0, 0.003, 0.008, 0.02, 0.05)
"""After a packet the host goes on for so long before it is killed: what it does between packets is met too."""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Campaigns(Rig):
    """Campaigns on a device that breaks where it is told to."""

    def _arguments(self) -> tuple[str, str, Path]:
        return self.device.address, self.device.root, self.bundle / AGENT

    def start(self, folder: Path, spec: host_rig.Spec = SPEC) -> Fork:
        """The campaign as a process of its own."""
        port = str(self.adb.server.port)
        return Fork(adbd_campaign.main, folder, spec.text(), port, *self._arguments())

    def run(self, folder: Path, spec: host_rig.Spec = SPEC) -> CampaignResult:
        """The campaign in this process."""
        return adbd_campaign.run(folder, spec, self.adb.server, *self._arguments())


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, runner_bundles: Mapping[str, Path]) -> Iterator[Campaigns]:
    folder = tmp_path_factory.mktemp("adbd")
    with attached_adbd(folder) as lab:
        yield Campaigns(*lab, folder, native_bundle(runner_bundles))


@pytest.fixture(scope="module")
def packets(rig: Campaigns, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many packets an undisturbed campaign takes, from a device that knows nothing yet."""
    rig.device.arm()
    campaign = rig.start(tmp_path_factory.mktemp("undisturbed"))
    out, err = campaign.communicate(timeout=60)
    assert campaign.returncode == 0, out + err
    assert rig.runs() == TRIALS
    assert rig.left() == set()
    return len(rig.device.gate.seen)


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_any_moment(rig: Campaigns, packets: int, tmp_path: Path, number: int) -> None:
    """SIGKILL at the packets that part an undisturbed campaign evenly, some of them a moment later."""
    rig.forget()
    rig.device.arm()
    campaign = rig.start(tmp_path)
    moment, pause_s = packets * number // KILLS, PAUSES_S[number % len(PAUSES_S)]

    def watch(at: int) -> None:
        if at == moment:
            threading.Timer(pause_s, campaign.kill).start()

    rig.device.gate.watcher = watch
    try:
        _, err = campaign.communicate(timeout=60)
    finally:
        rig.device.gate.watcher = None
    assert campaign.returncode in (-signal.SIGKILL, 0), err
    if campaign.returncode != 0 and not is_finished(tmp_path):
        assert rig.run(tmp_path).tally.left == 0
    check_complete(tmp_path, SPEC)
    assert TRIALS <= rig.runs() <= TRIALS + 1, "only the trial that was killed was begun again"
    assert rig.left() == set()


def test_two_campaigns_at_once(rig: Campaigns, tmp_path: Path) -> None:
    rig.forget()
    first = rig.start(tmp_path, host_rig.Spec({"slow": "sleep 77"}, {"repetitions": 1, "warmups": 0}))
    try:
        wait_for(first, "trial begin")
        with pytest.raises(DeviceBusy) as caught:
            rig.run(tmp_path)
        assert f"rig (process {first.pid}" in caught.value.message
        assert first.poll() is None, "the first one is not disturbed"
        first.send_signal(signal.SIGINT)
        out, _ = first.communicate(timeout=30)
        assert first.returncode == 130, out
    finally:
        first.kill()
        first.communicate()
    assert rig.run(tmp_path).tally.ok == TRIALS, "the lock went with its holder"
    assert rig.left() == set()


LYING_AGENT = """#!/bin/sh
# The real agent, but for one of its clocks: that is an hour ahead from when a file is there.
[ "$1" = clock ] || exec "{agent}" "$@"
while [ -n "$(dd bs=1 count=1 2>/dev/null)" ]; do
    read -r up rest < /proc/uptime
    up=$(echo "$up" | tr -d .)0000000
    wall=$(date +%s%N)
    [ -e "{flag}" ] && {clock}=$(({clock} + 3600000000000))
    echo "$up $up $wall"
done
"""


@pytest.mark.parametrize(("clock", "valid"), [("up", False), ("wall", True)], ids=["monotonic", "wall"])
def test_a_clock_that_jumps_in_a_trial(rig: Campaigns, tmp_path: Path, clock: str, valid: bool) -> None:
    """No time is taken from the device's wall clock; where its monotonic one cannot be trusted a trial is INVALID."""
    rig.forget()
    flag = tmp_path / "flag"
    agent = tmp_path / "lying" / AGENT
    agent.parent.mkdir(parents=True)
    agent.write_text(LYING_AGENT.format(agent=rig.bundle / AGENT, flag=flag, clock=clock))
    agent.chmod(0o755)
    liar = replace(rig, bundle=tmp_path / "lying")
    campaign = liar.start(tmp_path, host_rig.Spec({"a": "sleep 3"}, {"repetitions": 1, "warmups": 0}))
    try:
        wait_for(campaign, "trial begin")
        time.sleep(2)
        flag.touch()
        out, err = campaign.communicate(timeout=60)
    finally:
        campaign.kill()
    assert campaign.returncode == 0, err
    assert json.loads(out.strip().splitlines()[-1])["ok"] == 1
    (folder,) = campaign_folders(tmp_path / "home/records")
    (trial,) = read_campaign(folder).cells[0].repetitions
    verdict = str(trial.validity(Limits()))
    assert ("two clocks moved apart by 3.6e+03 s" not in verdict) is valid, verdict
    assert rig.left() == set()
