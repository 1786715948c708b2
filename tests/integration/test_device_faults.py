"""What can happen to a phone while it is measured, done to a virtual one: each ends as docs/devices/android.md says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.lab.phone import VirtualPhone
from meltrepro.lab.relay import Relay
from meltrepro.lab.server import AdbServer
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.android.target import Android
from meltrepro.targets.base import AGENT, TrialJob, TrialResult
from meltrepro.targets.remote.deploy import DeviceCache
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro.testing.targets import Bench
from tests.integration.conftest import attached_phone

pytestmark = [pytest.mark.integration, pytest.mark.fault]
ROOT = "/data/local/tmp/meltrepro"
COUNT = "/data/local/tmp/count"


@dataclass(frozen=True, kw_only=True)
class Rig(Bench):
    """A phone that things happen to."""

    phone: VirtualPhone
    adb: AdbServer
    shell: Shell
    elsewhere: Relay
    """Another address of the phone."""

    def run_while(self, order: str, happen: list[tuple[str, float]]) -> TrialResult:
        """Run a trial, and while it runs do what is said, each after so many seconds."""
        job = self.job(order)
        # Here and not there: a device dies with the thread that switched it on.
        with ThreadPoolExecutor(1) as pool:
            trial = pool.submit(self.target.run_trial, job)
            self.wait_until_running()
            for what, after_s in happen:
                time.sleep(after_s)
                getattr(self, what)()
            return trial.result()

    def wait_until_running(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if _working(self.phone):
                return
            time.sleep(0.05)
        pytest.fail("the trial does not run")

    def cut(self) -> None:
        self.phone.relay.cut()

    def mend(self) -> None:
        self.phone.relay.mend()

    def move(self) -> None:
        """Away, and back under another serial, as a phone on wireless adb that found another network."""
        assert self.phone.inside is not None
        self.phone.relay.cut()
        self.adb.detach(self.phone.address)
        self.elsewhere.lead_to(self.phone.inside, VirtualPhone.port)
        self.adb.attach(f"127.0.0.1:{self.elsewhere.port}")

    def move_back(self) -> None:
        self.elsewhere.cut()
        self.adb.detach(f"127.0.0.1:{self.elsewhere.port}")
        self.phone.relay.mend()
        self.adb.attach(self.phone.address)

    def kill_adb(self) -> None:
        self.adb.stop()

    def start_adb(self) -> None:
        self.adb.start(self.adb.server.port)
        self.adb.attach(self.phone.address)

    def reboot(self) -> None:
        self.phone.reboot()

    def stop_all(self) -> None:
        assert self.target.stop_strays() == 1

    def kill_runner(self) -> None:
        for pid in _working(self.phone):
            os.kill(pid, signal.SIGKILL)

    def kill_supervisor(self) -> None:
        self.on_device('kill -9 "$(cat /data/local/tmp/meltrepro/jobs/trial-*/supervisor)"')

    def on_device(self, script: str) -> str:
        return self.shell.script(script).text

    @property
    def runs(self) -> int:
        return len(self.on_device(f"cat {COUNT} 2>/dev/null").splitlines())


def _working(phone: VirtualPhone) -> list[int]:
    """What the trials of these tests run on a phone, seen from here."""
    found = []
    there = os.readlink(f"/proc/{phone.inside}/ns/pid")
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            mine = process.name.isdigit() and os.readlink(process / "ns/pid") == there
            if mine and re.search(rb"sleep\0(77|3)\.5\0", (process / "cmdline").read_bytes()):
                found.append(int(process.name))
    return found


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VirtualPhone, AdbServer]]:
    with attached_phone(tmp_path_factory.mktemp("faults"), name="fragile", storage="96m") as lab:
        yield lab


@pytest.fixture
def rig(devices: tuple[VirtualPhone, AdbServer], native_bundle: Path, tmp_path: Path) -> Iterator[Rig]:
    phone, adb = devices
    shell = Shell(AdbLink(adb.server, phone.address))
    shell.run(["rm", "-rf", ROOT, COUNT])
    target = RemoteTarget(shell, Android(), ROOT, reconnect_s=30)
    elsewhere = Relay()
    rig = Rig(target, tmp_path, native_bundle / AGENT, phone=phone, adb=adb, shell=shell, elsewhere=elsewhere)
    yield rig
    rig.target.stop_strays()
    assert rig.on_device(f'cat /proc/[0-9]*/environ 2>/dev/null | grep -c "MELTREPRO_JOB={ROOT}"') == "0", (
        "something lives on"
    )
    elsewhere.close()


WORK = f"echo ran >> {COUNT}; sleep 3.5"


@pytest.mark.parametrize(
    "happen",
    [
        [("cut", 0.2), ("mend", 1.0)],
        [("cut", 0.2), ("mend", 5.0)],
        [("kill_adb", 0.2), ("start_adb", 1.0)],
    ],
    ids=["a short loss of the link", "a loss longer than the trial", "adb's server killed"],
)
def test_a_trial_outlives_its_link(rig: Rig, happen: list[tuple[str, float]]) -> None:
    result = rig.run_while(WORK, happen)
    assert (result.exit_code, result.timed_out) == (0, False)
    assert rig.runs == 1, "never started a second time"


def test_a_phone_that_comes_back_under_another_serial(rig: Rig) -> None:
    result = rig.run_while(WORK, [("move", 0.2)])
    assert (result.exit_code, result.timed_out) == (0, False)
    assert rig.runs == 1, "never started a second time"
    rig.move_back()
    assert rig.runs == 1, "and known again where it was before"


def test_a_link_that_is_lost_for_good(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.target, "_reconnect_s", 1.0)
    with pytest.raises(TargetLost):
        rig.run_while("sleep 77.5", [("cut", 0.2)])
    rig.mend()
    rig.adb.attach(rig.phone.address)
    assert rig.target.stop_strays() == 1, "the next campaign finds what it left"


def test_a_device_that_is_rebooted(rig: Rig) -> None:
    with pytest.raises(TargetLost, match="rebooted in the middle of a trial"):
        rig.run_while("sleep 77.5", [("reboot", 0.2)])


def test_a_trial_that_is_stopped_from_elsewhere_keeps_what_it_wrote(rig: Rig) -> None:
    """As the watchdog does it where a device gets too hot."""
    result = rig.run_while("echo so far; sleep 77.5", [("stop_all", 0.2)])
    assert result.exit_code > 128
    assert (rig.folder / "record" / "events.jsonl").exists()
    assert (rig.folder / "record" / "stdout.log").read_text() == "said\nso far\n"


def test_a_runner_that_is_killed(rig: Rig) -> None:
    result = rig.run_while("sleep 77.5", [("kill_runner", 0.2)])
    assert result.exit_code == 137
    assert not result.timed_out


def test_a_supervisor_that_is_killed(rig: Rig) -> None:
    with pytest.raises(TargetLost, match="vanished"):
        rig.run_while("sleep 77.5", [("kill_supervisor", 0.2)])
    assert _working(rig.phone) == [], "what it ran is killed too"


def test_storage_that_is_full(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"\1" * (128 << 20))
    cache = DeviceCache(rig.shell, ROOT)
    with pytest.raises(TargetError, match=r"bytes free; big needs 134,217,728"):
        cache.deploy(big, "0" * 64)
    monkeypatch.setattr("meltrepro.targets.remote.deploy._ROOM", 0.1)  # as if it had become full meanwhile
    with pytest.raises(TargetError, match="No space left on device"):
        cache.deploy(big, "0" * 64)
    cache.forget("0" * 64)


def test_storage_that_cannot_be_written(rig: Rig, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"x")
    with pytest.raises(TargetError, match="cannot use /sys/here"):
        DeviceCache(rig.shell, "/sys/here").deploy(small, "0" * 64)


def test_bytes_that_change_on_the_device(rig: Rig) -> None:
    job: TrialJob = rig.job("exit 0")
    rig.on_device(f"echo broken > {ROOT}/cas/{job.model.digest}")
    job = rig.job("exit 0")
    assert rig.target.run_trial(job).exit_code == 0, "it was noticed and sent again"
