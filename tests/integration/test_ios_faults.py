"""What can happen to an iPhone and its link, and how it ends; on a virtual one, with pymobiledevice3 as it is."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.lab.iphone.apps import package
from meltrepro.lab.iphone.device import VirtualIphone
from meltrepro.lab.iphone.faults import Break, Faults, How, Pairing
from meltrepro.targets.base import PACKAGE, RUNNER, TrialJob
from meltrepro.targets.ios import IosTarget
from meltrepro.targets.ios_phone import Phone
from tests.contract.test_targets import Bench
from tests.support.ios_targets import APP, paired, services, target, virtual_iphone

pytestmark = [pytest.mark.integration, pytest.mark.fault]
DVT = "com.apple.instruments.remoteserver.DVTSecureSocketProxy"
HOUSE = "com.apple.mobile.house_arrest"
COUNT = "echo x >> $HOME/Documents/count"
UNDONE = ": > events.jsonl"
"""The stand-in has said that it is done before it does anything."""


@dataclass(frozen=True)
class Lab:
    """A phone, and what a trial on it needs."""

    device: VirtualIphone
    phone: Phone
    bench: Bench

    @property
    def target(self) -> IosTarget:
        assert isinstance(self.bench.target, IosTarget)
        return self.bench.target

    @property
    def runs(self) -> int:
        """How often the runner was started in orders that count."""
        path = self.device.documents() / "count"
        return len(path.read_text().split()) if path.exists() else 0

    @property
    def cas(self) -> Path:
        return self.device.documents() / "meltrepro" / "cas"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with virtual_iphone(tmp_path / "phone", tmp_path / "bundle" / RUNNER) as device:
        phone = paired(device, tmp_path / "pairings", answer_s=4, piece_s=2)
        yield Lab(device, phone, Bench(target(phone, reconnect_s=8), tmp_path))


def later(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


# -- trust, locks, addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        (Faults(pairing=Pairing.pending), "still asks"),
        (Faults(pairing=Pairing.denied), "not to trust"),
        (Faults(pairing=Pairing.locked), "is locked"),
    ],
)
def test_pairing_that_does_not_succeed_ends_in_time(lab: Lab, tmp_path: Path, faults: Faults, says: str) -> None:
    lab.device.forget()
    lab.device.faults = faults
    began = time.monotonic()
    with pytest.raises(TargetError, match=says) as caught:
        Phone(services(lab.device, tmp_path / "others")).pair(1)
    assert time.monotonic() - began < 10
    assert caught.value.hint
    assert not caught.value.transient


def test_a_phone_that_has_forgotten_us(lab: Lab) -> None:
    """The library swallows that, and returns a session without trust."""
    lab.device.forget()
    lab.device.unplug()
    with pytest.raises(TargetLost):
        lab.phone.values()
    lab.device.plug()
    with pytest.raises(TargetError, match="does not know this computer") as caught:
        lab.phone.battery()
    assert "devices --pair" in str(caught.value.hint)


def test_pairing_saves_where_it_was_told_even_where_the_library_forgets_the_address(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", "127.0.0.1:1")
    lab.device.forget()
    phone = Phone(services(lab.device, tmp_path / "others"))
    phone.pair(5)
    assert phone.values()["UniqueDeviceID"] == lab.device.udid
    assert [path.suffix for path in (tmp_path / "others").iterdir()] == [".plist"]
    assert (tmp_path / "others").stat().st_mode & 0o077 == 0
    assert os.environ["USBMUXD_SOCKET_ADDRESS"] == "127.0.0.1:1"
    assert not (tmp_path / "home").exists() or not any(path.is_file() for path in (tmp_path / "home").rglob("*"))


def test_a_locked_phone(lab: Lab) -> None:
    lab.device.faults = Faults(locked=True)
    with pytest.raises(TargetError, match="is locked") as caught:
        lab.phone.battery()
    assert "Auto-Lock" in str(caught.value.hint)


def test_a_phone_that_is_not_there(lab: Lab) -> None:
    lab.device.unplug()
    with pytest.raises(TargetLost, match="not attached") as caught:
        lab.target.state()
    assert caught.value.transient


@pytest.mark.parametrize("how", list(How))
@pytest.mark.parametrize("service", ["usbmuxd", "lockdownd", DVT, HOUSE, "com.apple.mobile.diagnostics_relay"])
@pytest.mark.parametrize("message", [1, 2, 4])
def test_whatever_a_service_does_ends_in_time_and_in_our_words(lab: Lab, service: str, how: How, message: int) -> None:
    lab.device.unplug()
    lab.device.plug()
    lab.device.faults = Faults(breaks=(Break(service, how, message=message, times=99),))
    quick = Phone(lab.phone._services, answer_s=1.5, piece_s=1.5, open_s=2.5)

    def look() -> None:
        quick.battery()
        quick.clock_ns()
        with quick.documents(APP, "x") as files:
            files.make_folder("")
            files.read("none")

    began = time.monotonic()
    try:
        look()
    except TargetError as error:
        assert error.message.startswith("iPhone")
    assert time.monotonic() - began < 12
    lab.device.heal()
    lab.device.unplug()
    lab.device.plug()
    until = time.monotonic() + 5
    while True:
        try:
            look()
            return
        except TargetLost:
            assert time.monotonic() < until


def test_a_phone_without_developer_mode(lab: Lab) -> None:
    lab.device.stop()
    lab.device.start(developer_image=False)
    lab.device.faults = Faults(developer_mode=False)
    with pytest.raises(TargetError, match="Developer Mode is off"):
        lab.phone.clock_ns()


def test_a_disk_image_that_cannot_be_downloaded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library raises an error of `requests`, which is an `OSError` like that of a lost link."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    lab.device.stop()
    lab.device.start(developer_image=False)
    with pytest.raises(TargetError, match="cannot be downloaded") as caught:
        lab.phone.clock_ns()
    assert not caught.value.transient
    assert "internet" in str(caught.value.hint)


# -- files ----------------------------------------------------------------------------------------------------------


def big(lab: Lab, size: int = 9 << 20) -> tuple[Path, str]:
    import hashlib

    path = lab.bench.folder / "big"
    path.write_bytes(os.urandom(size))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("message", [3, 5, 8, 12, 16, 20, 24])
def test_a_link_that_is_cut_in_a_transfer(lab: Lab, message: int) -> None:
    path, digest = big(lab)
    lab.device.faults = Faults(breaks=(Break(HOUSE, How.cut, message=message),))
    with pytest.raises(TargetLost), lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        files.push(path, "file", digest)
    assert not (lab.device.documents() / "x" / "file").exists(), "half a file has no name"
    lab.device.heal()
    sent: list[int] = []
    with lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        files.push(path, "file", digest, lambda done, _: sent.append(done))
    assert (lab.device.documents() / "x" / "file").read_bytes() == path.read_bytes()
    if message >= 8:
        assert not sent or sent[0] > 1 << 20, "what had arrived is not sent again"


def test_a_file_service_that_falls_silent_ends_in_time(lab: Lab) -> None:
    """Its own time-out would wait for an answer to its goodbye."""
    path, digest = big(lab)
    lab.device.faults = Faults(breaks=(Break(HOUSE, How.hang, message=8),))
    began = time.monotonic()
    with pytest.raises(TargetLost, match="nothing for 2 s"), lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        files.push(path, "file", digest)
    assert time.monotonic() - began < 6
    lab.device.heal()
    with lab.phone.documents(APP, "x") as files:
        files.push(path, "file", digest)


def test_a_part_of_something_else(lab: Lab) -> None:
    path, digest = big(lab)
    folder = lab.device.documents() / "x"
    folder.mkdir()
    (folder / "file.part").write_bytes(b"something else")
    with lab.phone.documents(APP, "x") as files:
        files.push(path, "file", digest)
    assert (folder / "file").read_bytes() == path.read_bytes()
    assert not (folder / "file.part").exists()


def test_storage_that_loses_bytes(lab: Lab) -> None:
    path, digest = big(lab)
    lab.device.faults = Faults(keeps=5 << 20)
    with pytest.raises(TargetError, match="other bytes") as caught, lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        files.push(path, "file", digest)
    assert not caught.value.transient
    assert not list((lab.device.documents() / "x").iterdir())


@pytest.mark.parametrize("free", [4 << 20, 20 << 20])
def test_storage_that_is_full(lab: Lab, free: int) -> None:
    path, digest = big(lab, 12 << 20)
    lab.device.faults = Faults(free=free)
    files_needed = 1 if free < 12 << 20 else 2
    with pytest.raises(TargetError, match="bytes are free"), lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        for number in range(files_needed):
            files.push(path, f"file{number}", digest)


def test_what_was_deployed_can_be_removed(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    lab.target.deploy(job.bundle, job.model)
    assert lab.target.clean() >= job.model.size
    assert not list(lab.cas.iterdir())
    assert lab.target.clean() == 0
    assert lab.target.run_trial(lab.bench.job("exit 5")).exit_code == 5


def test_an_unchanged_model_is_not_sent_again(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    before = [(path.name, path.stat().st_mtime_ns) for path in sorted(lab.cas.iterdir())]
    began = time.monotonic()
    lab.target.deploy(job.bundle, job.model)
    assert time.monotonic() - began < 1
    assert [(path.name, path.stat().st_mtime_ns) for path in sorted(lab.cas.iterdir())] == before


def test_a_model_that_somebody_changed_is_sent_again(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    (lab.cas / job.model.digest).write_text("weighed\n")
    lab.target.deploy(job.bundle, job.model)
    assert (lab.cas / job.model.digest).read_text() == "weights\n"


def test_an_app_without_a_developers_signature_shares_its_documents(lab: Lab) -> None:
    lab.device.install(["/bin/true"], APP, development=False)
    with lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        files.write("small", b"data")
        assert files.read("small") == b"data"
    lab.device.install(["/bin/true"], APP, development=False, sharing=False)
    with pytest.raises(TargetError, match="does not share its files"), lab.phone.documents(APP, "x"):
        pass


# -- apps -----------------------------------------------------------------------------------------------------------


def test_the_app_of_a_bundle_is_installed_once(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    ipa = job.bundle.path / PACKAGE
    ipa.parent.mkdir()
    package(ipa, APP, "Runner", {"Runner": b"#!/bin/sh\nexit 7\n"})
    lab.target.deploy(job.bundle, job.model)
    assert (lab.cas / job.model.digest).exists(), "its documents stay"
    lab.device.faults = Faults(install_refused="it was not to be asked")
    lab.target.deploy(job.bundle, job.model)
    lab.device.heal()
    assert lab.target.run_trial(job).exit_code == 7
    assert not list((lab.device.folder / "media").rglob("*.ipa")), "the package does not stay in the phone's media"


def test_a_package_that_the_phone_refuses(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    ipa = job.bundle.path / PACKAGE
    ipa.parent.mkdir()
    package(ipa, APP, "Runner", {"Runner": b"#!/bin/sh\nexit 7\n"})
    lab.device.faults = Faults(install_refused="ApplicationVerificationFailed")
    with pytest.raises(TargetError, match="signature") as caught:
        lab.target.deploy(job.bundle, job.model)
    assert "profile" in str(caught.value.hint)


def test_an_app_that_is_not_there(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    other = IosTarget(lab.phone, "org.example.none")
    with pytest.raises(TargetError, match="not installed"):
        other.deploy(job.bundle, job.model)
    with pytest.raises(TargetError, match="not installed"):
        lab.phone.launch("org.example.none", {})


def test_a_launch_that_the_phone_refuses(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    lab.device.faults = Faults(launch_refused="the profile has run out")
    with pytest.raises(TargetError, match="does not trust") as caught:
        lab.target.run_trial(job)
    assert "VPN & Device Management" in str(caught.value.hint)


# -- trials ---------------------------------------------------------------------------------------------------------


def test_a_link_that_is_lost_while_a_trial_runs(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 3; exit 5")
    timers = [later(1, lab.device.unplug), later(2, lab.device.plug)]
    assert lab.target.run_trial(job).exit_code == 5
    assert lab.runs == 1
    assert all(not timer.is_alive() for timer in timers)


def test_a_link_that_is_lost_for_longer_than_a_trial_runs(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 1; exit 5")
    later(0.7, lab.device.unplug)
    later(4, lab.device.plug)
    assert lab.target.run_trial(job).exit_code == 5
    assert lab.runs == 1
    assert (job.folder / "stdout.log").read_text() == "said\n"


def test_a_link_that_is_lost_for_good(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 1000")
    later(1, lab.device.unplug)
    with pytest.raises(TargetLost):
        lab.target.run_trial(job)
    lab.device.plug()
    assert lab.target.stop_strays() == 1, "the app runs on until somebody comes"
    assert not lab.device.running


def test_usbmuxd_that_is_killed_and_comes_back(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 3; exit 5")
    timers = [later(1, lab.device.stop_usbmuxd), later(2, lab.device.start_usbmuxd)]
    assert lab.target.run_trial(job).exit_code == 5
    assert lab.runs == 1
    assert all(not timer.is_alive() for timer in timers)


def test_usbmuxd_that_stays_away(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 1000")
    later(1, lab.device.stop_usbmuxd)
    with pytest.raises(TargetLost, match="usbmuxd") as caught:
        lab.target.run_trial(job)
    assert caught.value.hint
    lab.device.start_usbmuxd()
    assert lab.target.stop_strays() == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [("forgotten", "does not know this computer"), ("locked", "is locked")],
    ids=["revoked", "locked"],
)
def test_trust_that_ends_in_a_trial(lab: Lab, wrong: str, says: str) -> None:
    """What runs goes on until its own deadline, or until somebody who is trusted comes."""
    job = lab.bench.job(f"{COUNT}; sleep 1000")

    def end() -> None:
        if wrong == "locked":
            lab.device.faults = Faults(locked=True)
        else:
            lab.device.forget()
        lab.device.unplug()
        lab.device.plug()

    later(1, end)
    with pytest.raises(TargetError, match=says) as caught:
        lab.target.run_trial(job)
    assert not caught.value.transient
    lab.device.heal()
    lab.phone.pair(5)
    assert lab.target.stop_strays() == 1
    assert lab.runs == 1


@pytest.mark.parametrize("rest", ["sleep 0.5", ":"])
@pytest.mark.parametrize("message", range(2, 12))
def test_developer_services_that_are_cut_at_any_message(lab: Lab, message: int, rest: str) -> None:
    """Also where the app has ended before anybody can ask again."""
    job = lab.bench.job(f"{COUNT}; {rest}; exit 5")
    lab.target.clock_ns()
    lab.device.unplug()
    lab.device.plug()
    lab.device.faults = Faults(breaks=(Break(DVT, How.cut, message=message),))
    assert lab.target.run_trial(job).exit_code == 5
    assert lab.runs == 1, "never launched twice"


def test_developer_services_that_fall_silent_in_a_trial(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; sleep 0.5; exit 5")
    lab.device.unplug()
    lab.device.plug()
    lab.device.faults = Faults(breaks=(Break(DVT, How.hang, message=9),))
    assert lab.target.run_trial(job).exit_code == 5
    assert lab.runs == 1


def test_an_app_that_needs_too_much_memory(lab: Lab) -> None:
    job = lab.bench.job(f"{UNDONE}; sleep 30")
    lab.device.faults = Faults(jetsam_after_s=0.5)
    result = lab.target.run_trial(job)
    assert (result.exit_code, result.out_of_memory) == (128 + 9, True)
    assert "jetsam: vm-pageshortage" in (job.folder / "stderr.log").read_text()
    assert (job.folder / "report.ips").read_text().startswith('{"bug_type": "298"')


def test_jetsam_while_nobody_listens(lab: Lab) -> None:
    job = lab.bench.job(f"{UNDONE}; sleep 30")
    lab.device.faults = Faults(jetsam_after_s=1.5)
    later(1, lab.device.unplug)
    later(3, lab.device.plug)
    result = lab.target.run_trial(job)
    assert (result.exit_code, result.out_of_memory) == (128 + 9, True)


def test_an_app_that_somebody_kills_while_nobody_listens_has_vanished(lab: Lab) -> None:
    job = lab.bench.job(f"{UNDONE}; sleep 30")

    def kill() -> None:
        (pid,) = lab.device.running
        os.killpg(pid, 9)

    later(0.7, lab.device.unplug)
    later(1.2, kill)
    later(2.5, lab.device.plug)
    with pytest.raises(TargetLost, match="vanished"):
        lab.target.run_trial(job)


def test_a_phone_that_is_restarted_in_a_trial(lab: Lab) -> None:
    job = lab.bench.job(f"{COUNT}; {UNDONE}; sleep 30")
    later(0.7, lab.device.stop)
    later(2, lab.device.start)
    with pytest.raises(TargetLost, match="vanished"):
        lab.target.run_trial(job)
    assert lab.runs == 1
    assert lab.target.run_trial(lab.bench.job("exit 5")).exit_code == 5


def test_two_threads_may_ask_at_once(lab: Lab) -> None:
    """A watchdog asks for the state while a trial runs."""
    job = lab.bench.job("sleep 2; exit 5")
    states: list[float] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            states.append(lab.target.state().temperatures_c["battery"])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        assert lab.target.run_trial(job).exit_code == 5
    finally:
        over.set()
        thread.join()
    assert len(states) > 10


def test_an_app_that_somebody_has_opened_is_ended_first(lab: Lab) -> None:
    job = lab.bench.job("exit 5")
    lab.phone.launch(APP, {})
    assert len(lab.device.running) == 1
    assert lab.target.run_trial(job).exit_code == 5


def test_a_killed_campaigns_trial_is_stopped_and_removed(lab: Lab) -> None:
    job = lab.bench.job("sleep 1000")
    other = target(lab.phone)
    thread = threading.Thread(target=_ignoring, args=(lab.target, job))
    thread.start()
    until = time.monotonic() + 10
    while not list(lab.device.documents().glob("meltrepro/jobs/*/started")) and time.monotonic() < until:
        time.sleep(0.1)
    assert other.stop_strays() == 1
    thread.join(20)
    assert not thread.is_alive()
    assert not list(lab.device.documents().glob("meltrepro/jobs/*"))


def _ignoring(there: IosTarget, job: TrialJob) -> None:
    with contextlib.suppress(TargetError):
        there.run_trial(job)


def test_samples_come_from_the_app(lab: Lab) -> None:
    from meltrepro.measure.samples import read_samples
    from meltrepro.measure.sampling import sampling_plan

    job = lab.bench.job("sleep 1; exit 0")
    with lab.target.sampling(job.bundle, sampling_plan(lab.target.sources(), 10), job.folder):
        assert lab.target.run_trial(job).exit_code == 0
    recording = read_samples(job.folder / "samples.jsonl")
    series = recording.named("process.footprint")
    assert series is not None
    assert len(series.t_ns) >= 5
    assert recording.end_ns is not None


def test_memory_by_the_phone(lab: Lab) -> None:
    pid = lab.phone.launch(APP, {})
    footprint = lab.phone.footprint(pid)
    assert footprint is not None
    assert footprint > 1 << 20
    assert lab.phone.footprint(1) is None


def test_the_clock_is_quick(lab: Lab) -> None:
    lab.target.clock_ns()
    trips = []
    for _ in range(10):
        sent = time.monotonic_ns()
        there = lab.target.clock_ns()
        trips.append(time.monotonic_ns() - sent)
        assert sent <= there <= time.monotonic_ns()
    assert min(trips) < 30e6


# -- the command line -----------------------------------------------------------------------------------------------


def test_devices_shows_a_phone_says_what_to_do_and_pairs(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from meltrepro.cli.app import main

    monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", f"{lab.device.address}")
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))

    def shown() -> dict[str, str | None]:
        rows: list[dict[str, str | None]] = json.loads(capsys.readouterr().out)
        (row,) = (row for row in rows if row["kind"] == "ios")
        return row

    lab.device.forget()
    # usbmuxd offers every program the pairing of the first; a phone that has forgotten it says so only now.
    assert main(["devices", "--json"]) == 0
    row = shown()
    assert (row["serial"], row["state"]) == (lab.device.udid, "not usable")
    assert "--pair" in str(row["todo"])
    assert main(["devices", "--json", "--pair", lab.device.udid]) == 0
    row = shown()
    assert (row["state"], row["todo"]) == ("device", None)
    assert "VirtualiPhone1,1, iOS 16.7" in str(row["device"])
    lab.device.forget()
    lab.device.faults = Faults(pairing=Pairing.denied)
    assert main(["devices", "--pair", lab.device.udid]) == TargetError.exit_code


def test_a_phone_of_the_lab_is_a_target(lab: Lab, tmp_path: Path) -> None:
    from meltrepro.settings import load
    from meltrepro.spec.targets import IosTarget as Entry
    from meltrepro.targets import registry

    settings = load({"MELTREPRO_CACHE": str(tmp_path / "cache"), "MELTREPRO_HOME": str(tmp_path / "own")})
    (settings.run / "lab").mkdir(parents=True)
    place = {"kind": "ios", "usbmux": lab.device.address, "udid": lab.device.udid}
    (settings.run / "lab" / "apple.json").write_text(json.dumps(place))
    facts = registry.open_target(Entry(kind="ios", lab="apple"), settings).identify()
    assert facts.virtual
    assert facts.kind == "ios"
