"""A phone in the state that a campaign asks for: settings, CPUs, gates, heat, a charger, a battery nobody knows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from meltrepro.campaign import gates
from meltrepro.errors import TargetError
from meltrepro.lab.phone import VirtualPhone
from meltrepro.lab.server import AdbServer
from meltrepro.manifest.protocol import Gates
from meltrepro.measure.calibration import calibrate, calibrated
from meltrepro.measure.energy import supply_of
from meltrepro.measure.integrals import NoValue
from meltrepro.measure.sensor_plan import sensor_plan
from meltrepro.record.capabilities import BatteryReport
from meltrepro.record.samples import read_samples
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.android.battery import _busy, discharge
from meltrepro.targets.android.controls import wanted
from meltrepro.targets.android.options import AndroidSettings
from meltrepro.targets.android.target import Android
from meltrepro.targets.base import AGENT, SAMPLER
from meltrepro.targets.remote.remote import RemoteTarget, Requested
from meltrepro.targets.remote.shell import Shell
from meltrepro.testing.targets import Bench
from tests.integration.conftest import attached_phone

pytestmark = [pytest.mark.integration, pytest.mark.fault]
ROOT = "/data/local/tmp/meltrepro"
QUIET = AndroidSettings(screen="off", brightness=10, airplane_mode=True, stay_awake=True, battery_saver=True)


@dataclass(frozen=True, kw_only=True)
class Desk(Bench):
    """A phone whose hardware can be changed."""

    phone: VirtualPhone
    shell: Shell
    sampler: Path | None = None

    def requesting(self, requested: Requested) -> Desk:
        return replace(self, target=RemoteTarget(self.shell, Android(), ROOT, reconnect_s=20, requested=requested))

    @property
    def remote(self) -> RemoteTarget:
        assert isinstance(self.target, RemoteTarget)
        return self.target

    def settings(self) -> dict[str, str]:
        """All that can be set, as it is now."""
        asked = [("settings", "get", *key.split("/")) for key in KEYS]
        asked += [("cmd", "connectivity", "airplane-mode"), ("sh", "-c", "dumpsys power | grep mWakefulness=")]
        asked += [("sh", "-c", "dumpsys power | grep Enabled=")]
        return {" ".join(argv): self.shell.run(argv).text for argv in asked}


KNOWN = BatteryReport(calibrated=True, current_a=-1e-6, voltage_v=1e-6)
KEYS = (
    "global/stay_on_while_plugged_in",
    "system/screen_brightness",
    "system/screen_brightness_mode",
    "system/screen_off_timeout",
)


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VirtualPhone, AdbServer]]:
    with attached_phone(tmp_path_factory.mktemp("states"), name="moody") as lab:
        yield lab


@pytest.fixture
def desk(devices: tuple[VirtualPhone, AdbServer], native_bundle: Path, tmp_path: Path) -> Iterator[Desk]:
    phone, adb = devices
    shell = Shell(AdbLink(adb.server, phone.address))
    target = RemoteTarget(shell, Android(), ROOT, reconnect_s=20)
    yield Desk(target, tmp_path, native_bundle / AGENT, phone=phone, shell=shell, sampler=native_bundle / SAMPLER)
    assert target.stop_strays() == 0, "a trial leaves nothing behind"
    assert target.restore() == {}, "settings were put back"


@contextmanager
def changed(phone: VirtualPhone, change: Callable[[VirtualPhone], object]) -> Iterator[None]:
    """The phone's hardware in another state while the block runs."""
    before = replace(phone.power)
    change(phone)
    phone.show()
    try:
        yield
    finally:
        phone.power = before
        phone.show()


def test_settings_hold_and_are_put_back(desk: Desk) -> None:
    before = desk.settings()
    there = desk.requesting(Requested(wanted(QUIET), {"background_apps": ("am", "kill-all")}))
    done = there.remote.adjust()
    assert done["background_apps"] == "done"
    assert done["screen"] == "off"
    now = desk.settings()
    assert now["sh -c dumpsys power | grep mWakefulness="].endswith("Asleep")
    assert now["cmd connectivity airplane-mode"] == "enabled"
    assert now["settings get system screen_brightness"] == "10"
    assert there.remote.adjust() == done, "the same again changes nothing"
    assert set(desk.remote.restore()) == {
        "stay_awake",
        "battery_saver",
        "airplane_mode",
        "brightness_mode",
        "brightness",
        "screen",
    }
    assert desk.settings() == before


def test_a_campaign_that_is_killed_leaves_settings_that_the_next_one_puts_back(desk: Desk, tmp_path: Path) -> None:
    before = desk.settings()
    program = (
        "import sys; from tests.integration.test_device_state import adjust_and_wait; adjust_and_wait(*sys.argv[1:])"
    )
    link = desk.shell.link
    assert isinstance(link, AdbLink)
    command = [sys.executable, "-c", program, str(link._server.port), link.name]
    for seconds in (0.5, 1.3, 3.0):
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begin\n"
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        desk.remote.restore()
        assert desk.settings() == before, seconds


def adjust_and_wait(port: str, serial: str) -> None:
    """A campaign that does nothing but set its device, to be killed."""
    from meltrepro.targets.android.adb import Server

    shell = Shell(AdbLink(Server(int(port)), serial))
    print("begin", flush=True)
    while True:
        target = RemoteTarget(shell, Android(), ROOT, requested=Requested(wanted(QUIET)))
        target.adjust()
        target.restore()


def test_the_runner_runs_where_it_is_told_to(desk: Desk) -> None:
    there = desk.requesting(Requested(cores="1"))
    job = there.job("grep Cpus_allowed_list /proc/self/status; sleep 0.5")
    assert there.target.run_trial(job).exit_code == 0
    assert "Cpus_allowed_list:\t1" in (job.folder / "stdout.log").read_text()


def test_cpus_that_are_not_there(desk: Desk) -> None:
    too_many = f"0-{os.cpu_count()}"
    there = desk.requesting(Requested(cores=too_many))
    with pytest.raises(TargetError, match=rf"was to run on CPUs {too_many}, and runs on 0-"):
        there.target.run_trial(there.job("sleep 3"))


def test_a_battery_below_the_gate(desk: Desk) -> None:
    desk.job("exit 0")
    with changed(desk.phone, lambda phone: setattr(phone.power, "charge_mah", 500.0)):
        limit = Gates(battery_percent=50, timeout_s=1, poll_s=0.2)
        with pytest.raises(gates.GateClosed, match=r"the battery is at 10 %, at least 50 wanted"):
            gates.wait(limit, desk.target, 2, lambda reasons, first: None)
    gates.wait(limit, desk.target, 2, lambda reasons, first: None)


def test_a_phone_that_is_hot_before_a_trial(desk: Desk) -> None:
    desk.job("exit 0")
    with changed(desk.phone, lambda phone: setattr(phone.power, "skin_c", 44.0)):
        limit = Gates(thermal_status=1, timeout_s=1, poll_s=0.2)
        with pytest.raises(gates.GateClosed, match=r"the thermal status is 2, at most 1 wanted"):
            gates.wait(limit, desk.target, 2, lambda reasons, first: None)


def test_a_phone_that_gets_too_hot_in_a_trial(desk: Desk) -> None:
    job = desk.job("sleep 60")

    def heat() -> None:
        time.sleep(1)
        desk.phone.power.skin_c = 70.0
        desk.phone.show()

    with changed(desk.phone, lambda phone: None), gates.watchdog(desk.target, 55.0, every_s=0.3) as watch:
        threading.Thread(target=heat, daemon=True).start()
        result = desk.target.run_trial(job)
    assert result.exit_code > 128
    assert watch.reason is not None
    assert "more than 55" in watch.reason


def sampled(desk: Desk, seconds: float, meanwhile: Callable[[], object] = lambda: None, *, known: bool = True) -> Path:
    """Samples of a time in which something happens, with a calibrated battery where it is to be `known`."""
    job = desk.job("exit 0")
    assert desk.sampler is not None
    program = job.bundle.path / SAMPLER
    program.write_bytes(desk.sampler.read_bytes())
    program.chmod(0o755)
    desk.target.deploy(job.bundle, job.model)
    sources = calibrated(desk.target.sources(), KNOWN if known else None)
    with desk.target.sampling(job.bundle, sensor_plan(sources, 5), job.folder):
        time.sleep(seconds / 2)
        meanwhile()
        time.sleep(seconds / 2)
    return job.folder / "samples.jsonl"


def test_a_charger_that_is_plugged_in(desk: Desk) -> None:
    def plug() -> None:
        desk.phone.power.charging = True
        desk.phone.show()

    with changed(desk.phone, lambda phone: None):
        calm = supply_of(read_samples(sampled(desk, 4)))
        assert calm.power is not None
        with pytest.raises(NoValue, match="external power"):
            supply_of(read_samples(sampled(desk, 4, plug)))


def test_a_battery_that_was_never_calibrated(desk: Desk) -> None:
    with pytest.raises(NoValue, match="unknown unit"):
        supply_of(read_samples(sampled(desk, 3, known=False)))


def test_a_calibration_leaves_the_phone_at_rest(desk: Desk) -> None:
    """What keeps its CPUs busy ends with it, though nobody ever listened to it."""

    def loops() -> int:
        there = os.readlink(f"/proc/{desk.phone.inside}/ns/pid")
        found = 0
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                mine = process.name.isdigit() and os.readlink(process / "ns/pid") == there
                found += mine and b"while :; do" in (process / "cmdline").read_bytes()
        return found

    before = loops()
    with _busy(desk.shell):
        time.sleep(1)
        assert loops() > before
    deadline = time.monotonic() + 10
    while loops() > before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert loops() == before == 0


def test_no_calibration_on_a_charger(desk: Desk) -> None:
    with changed(desk.phone, lambda phone: setattr(phone.power, "charging", True)):
        report = calibrate(discharge(desk.shell, 30))
    assert not report.calibrated
    assert "external power" in report.why
