"""The virtual iPhone against three clients that share no code: libimobiledevice, pymobiledevice3, go-ios."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import plistlib
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from meltrepro import settings
from meltrepro.lab.iphone.device import RUNNER, VirtualIphone
from meltrepro.lab.power import Power
from tests.support.iphones import (
    client,
    go_ios,
    installer,
    ios_package,
    launch,
    point_at,
    process_control,
    with_lockdown,
)

APP = """
echo "run $MELT_RUN with $*"
echo "$MELT_RUN" > Documents/out
case "$1" in
    sleep) sleep "$2";;
    eat) exec python3 -c 'import time; kept = bytearray(64 << 20); print("full", flush=True); time.sleep(60)';;
    work) exec timeout "${2:-1.2}" sh -c 'while :; do :; done';;
esac
exit "${CODE:-0}"
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualIphone]:
    phone = VirtualIphone(tmp_path / "phone", power=Power(charge_mah=3500, skin_c=31.5))
    phone.install(["/bin/sh", "-c", APP, "app"])
    phone.start()
    point_at(phone, tmp_path / "host", monkeypatch)
    yield phone
    phone.erase()


@pytest.fixture(scope="session")
def ios() -> Path:
    return go_ios(settings.load().cache)


# -- libimobiledevice ---------------------------------------------------------------------------------------------------


def test_libimobiledevice_finds_it_and_pairs(phone: VirtualIphone) -> None:
    assert client("idevice_id", "-l").split() == [phone.udid]
    assert phone.hosts == ()
    assert "SUCCESS" in client("idevicepair", "pair")
    assert len(phone.hosts) == 1
    assert "SUCCESS: Validated pairing" in client("idevicepair", "validate")
    assert "SUCCESS" in client("idevicepair", "unpair")
    assert phone.hosts == ()


def test_it_says_that_it_is_virtual(phone: VirtualIphone) -> None:
    told = dict(line.split(": ", 1) for line in client("ideviceinfo").splitlines() if ": " in line)
    assert told["MeltreproVirtual"] == "true"
    assert told["ProductName"] == "Virtual iPhone"
    assert told["UniqueDeviceID"] == phone.udid
    assert client("idevicename").startswith("Virtual iPhone")


def test_a_stranger_is_told_little(phone: VirtualIphone) -> None:
    said = client("ideviceinfo", "--simple")
    assert "UniqueDeviceID" in said and "SerialNumber" not in said
    said = client("ideviceinfo", "--simple", "-q", "com.apple.mobile.battery", expect=None)
    assert "BatteryCurrentCapacity" not in said
    assert phone.hosts == ()


def test_libimobiledevice_lists_installs_and_removes_apps(phone: VirtualIphone, tmp_path: Path) -> None:
    ipa = ios_package(tmp_path / "toy.ipa", "org.example.toy", "toy", {"toy": b"#!/bin/sh\nexit 3\n"})
    assert f'{RUNNER}, "1' in installer("list")
    assert "Complete" in installer("install", str(ipa))
    assert 'org.example.toy, "1.0' in installer("list")
    assert "Complete" in installer("uninstall", "org.example.toy")
    assert "org.example.toy" not in installer("list")


def test_a_package_that_nobody_signed_is_not_taken(phone: VirtualIphone, tmp_path: Path) -> None:
    ipa = tmp_path / "toy.ipa"
    info = {"CFBundleIdentifier": "org.example.toy", "CFBundleExecutable": "toy", "CFBundleName": "toy"}
    with zipfile.ZipFile(ipa, "w") as archive:
        archive.writestr("Payload/Toy.app/Info.plist", plistlib.dumps(info))
        archive.writestr("Payload/Toy.app/toy", "#!/bin/sh\n")
    assert "ApplicationVerificationFailed" in installer("install", str(ipa), expect=None)
    assert "org.example.toy" not in installer("list")


def test_libimobiledevice_reads_the_battery(phone: VirtualIphone) -> None:
    told = plistlib.loads(client("idevicediagnostics", "ioregentry", "AppleSmartBattery").encode())["IORegistry"]
    assert told["CurrentCapacity"] == 70
    assert told["AppleRawCurrentCapacity"] == pytest.approx(3500, abs=2)
    assert told["Temperature"] == pytest.approx(3150, abs=60)
    assert told["InstantAmperage"] < 0, "it discharges"
    assert told["MeltreproVirtual"] is True


def test_libimobiledevice_fetches_crash_reports(phone: VirtualIphone, tmp_path: Path) -> None:
    (phone.crashes / "Runner-2026.ips").write_text("{}\n")
    folder = tmp_path / "reports"
    folder.mkdir()
    client("idevicecrashreport", "--keep", str(folder))
    assert (folder / "Runner-2026.ips").read_text() == "{}\n"
    assert (phone.crashes / "Runner-2026.ips").exists()


# -- go-ios -------------------------------------------------------------------------------------------------------------


def _go(ios: Path, *arguments: str) -> list[Any]:
    """What go-ios said: one document of JSON a line."""
    done = subprocess.run([ios, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("{", "["))]


def test_go_ios_lists_pairs_and_reads_values(phone: VirtualIphone, ios: Path) -> None:
    assert {"deviceList": [phone.udid]} in _go(ios, "list")
    _go(ios, "pair")
    (told,) = [each for each in _go(ios, "info") if "UniqueDeviceID" in each]
    assert told["UniqueDeviceID"] == phone.udid and told["MeltreproVirtual"] is True
    (battery,) = [each for each in _go(ios, "batteryregistry") if "Voltage" in each]
    assert (battery["Voltage"], battery["CurrentCapacity"]) == (4000, 70)
    assert {"DeveloperModeEnabled": True} in _go(ios, "devmode", "get")


def test_go_ios_moves_files_and_starts_the_app(phone: VirtualIphone, ios: Path, tmp_path: Path) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(os.urandom(3 << 20))
    _go(ios, "pair")
    _go(ios, "fsync", f"--app={RUNNER}", "push", f"--srcPath={sent}", "--dstPath=/Documents/sent")
    assert (phone.documents() / "sent").read_bytes() == sent.read_bytes()
    _go(ios, "launch", RUNNER, "--env=MELT_RUN=seven")
    _wait_for(phone.documents() / "out", "seven\n")


def test_go_ios_sees_what_runs_and_how_much_it_works(phone: VirtualIphone, ios: Path) -> None:
    """A second codec for what developer services tell of their own accord."""
    _go(ios, "pair")
    _go(ios, "launch", RUNNER, "--arg=work", "--arg=20")
    (listed,) = [each for each in _go(ios, "ps", "--apps") if isinstance(each, list)]
    assert [(each["Name"], each["Pid"]) for each in listed] == [(RUNNER, *phone.running)]
    watching = subprocess.Popen(
        [ios, "sysmontap"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        assert watching.stdout is not None
        told = (json.loads(line) for line in watching.stdout if line.startswith("{"))
        loads = (each["cpu_total_load"] for each in told if "cpu_total_load" in each)
        assert max(next(loads) for _ in range(2)) > 20
    finally:
        os.killpg(watching.pid, signal.SIGKILL)
        watching.communicate()


def test_many_connections_at_once(phone: VirtualIphone, tmp_path: Path) -> None:
    def program(name: str) -> None:
        async def push(lockdown: Any) -> None:
            await asyncio.gather(*(one(lockdown, number) for number in range(16)))

        async def one(lockdown: Any, number: int) -> None:
            from pymobiledevice3.services.house_arrest import HouseArrestService

            async with await HouseArrestService.create(lockdown, RUNNER) as files:
                data = bytes([number]) * (1 << 20)
                await files.set_file_contents(f"/Documents/{name}{number}", data)
                assert await files.get_file_contents(f"/Documents/{name}{number}") == data

        with_lockdown(tmp_path, push, autopair=False)

    client("idevicepair", "pair")  # programs of one computer are one host, and share its pairing
    with ThreadPoolExecutor(3) as programs:
        list(programs.map(program, "abc"))
    assert [path.stat().st_size for path in phone.documents().iterdir()] == [1 << 20] * 48


# -- pymobiledevice3 ----------------------------------------------------------------------------------------------------


def test_pymobiledevice3_pairs_and_is_known_again(phone: VirtualIphone, tmp_path: Path) -> None:
    async def look(lockdown: Any) -> tuple[bool, str, bool]:
        return lockdown.paired, lockdown.udid, await lockdown.get_developer_mode_status()

    assert with_lockdown(tmp_path, look) == (True, phone.udid, True)
    (host,) = phone.hosts
    assert with_lockdown(tmp_path, look, autopair=False) == (True, phone.udid, True)
    assert phone.hosts == (host,), "the same host, not a second one"


def test_what_it_stores_and_whom_it_trusts_survives_being_switched_off(phone: VirtualIphone, tmp_path: Path) -> None:
    async def paired(lockdown: Any) -> bool:
        return bool(lockdown.paired)

    assert with_lockdown(tmp_path, paired)
    (phone.documents() / "kept").write_text("it")
    phone.stop()
    phone.start()
    assert with_lockdown(tmp_path, paired, autopair=False)
    assert (phone.documents() / "kept").read_text() == "it"


def test_pymobiledevice3_moves_files(phone: VirtualIphone, tmp_path: Path) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(9 << 20))

    async def move(lockdown: Any) -> dict[str, Any]:
        from pymobiledevice3.exceptions import AfcException, AfcFileNotFoundError
        from pymobiledevice3.services.house_arrest import HouseArrestService

        async with await HouseArrestService.create(lockdown, RUNNER) as files:
            assert set(await files.listdir("/")) == {"Documents", "Library", "tmp"}
            await files.makedirs("/Documents/models/deep")
            await files.push(str(sent), "/Documents/models/x.part", progress_bar=False)
            await files.rename("/Documents/models/x.part", "/Documents/models/x")
            await files.pull("/Documents/models/x", str(back), progress_bar=False)
            found: dict[str, Any] = await files.stat("/Documents/models/x")
            with pytest.raises(AfcFileNotFoundError):
                await files.stat("/Documents/models/x.part")
            with pytest.raises(AfcException):
                await files.rm_single("/Documents/models")  # it is not empty
            assert set(await files.listdir("/../../..")) == {"Documents", "Library", "tmp"}, "there is no way out"
            await files.rm("/Documents/models/deep")
        return found

    found = with_lockdown(tmp_path, move)
    assert back.read_bytes() == sent.read_bytes()
    assert (found["st_size"], found["st_ifmt"]) == (9 << 20, "S_IFREG")
    assert [path.name for path in (phone.documents() / "models").iterdir()] == ["x"]


def test_documents_alone_are_the_documents_alone(phone: VirtualIphone, tmp_path: Path) -> None:
    async def look(lockdown: Any) -> bytes:
        from pymobiledevice3.exceptions import AfcException
        from pymobiledevice3.services.house_arrest import HouseArrestService

        async with await HouseArrestService.create(lockdown, RUNNER, documents_only=True) as files:
            with pytest.raises(AfcException):
                await files.listdir("/Library")
            read: bytes = await files.get_file_contents("/Documents/hello")
            return read

    (phone.documents() / "hello").write_text("here")
    assert with_lockdown(tmp_path, look) == b"here"


@pytest.mark.parametrize(("development", "sharing", "opens"), [(False, True, "documents"), (False, False, "nothing")])
def test_what_opens_depends_on_how_the_app_was_signed(
    phone: VirtualIphone, tmp_path: Path, development: bool, sharing: bool, opens: str
) -> None:
    phone.install(["/bin/true"], development=development, sharing=sharing)

    async def look(lockdown: Any) -> list[bool]:
        from pymobiledevice3.exceptions import PyMobileDevice3Exception
        from pymobiledevice3.services.house_arrest import HouseArrestService

        found = []
        for documents_only in (False, True):
            try:
                await (await HouseArrestService.create(lockdown, RUNNER, documents_only=documents_only)).aclose()
                found.append(True)
            except PyMobileDevice3Exception:
                found.append(False)
        return found

    assert with_lockdown(tmp_path, look) == [False, opens == "documents"]


def test_pymobiledevice3_starts_the_app_and_hears_how_it_ends(phone: VirtualIphone, tmp_path: Path) -> None:
    async def run(lockdown: Any) -> None:
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider

        async with DvtProvider(lockdown) as dvt:
            control, exits = await process_control(dvt)
            pid = await launch(control, "a", "b", MELT_RUN="r1", CODE="4")
            assert (await control.output_events.get())[:2] == ["run r1 with a b\n", pid]
            assert await exits.get() == (pid, 4, None)
            pid = await launch(control, "sleep", "60")
            assert phone.running == {pid: RUNNER}
            assert await control.process_identifier_for_bundle_identifier_(RUNNER) == pid
            await control.send_signal_to_pid_(int(signal.SIGKILL), pid)
            assert await exits.get() == (pid, None, signal.SIGKILL)
            assert await control.process_identifier_for_bundle_identifier_(RUNNER) == 0

    with_lockdown(tmp_path, run)
    assert phone.running == {}


def test_an_end_that_comes_at_once_is_heard_of(phone: VirtualIphone, tmp_path: Path) -> None:
    """The news of it must neither be lost nor overtake the process id."""
    phone.install(["/bin/true"])

    async def run(lockdown: Any) -> None:
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider

        async with DvtProvider(lockdown) as dvt:
            control, exits = await process_control(dvt)
            for _ in range(30):
                pid = await launch(control)
                assert await asyncio.wait_for(exits.get(), 5) == (pid, 0, None)

    with_lockdown(tmp_path, run)


def test_an_app_goes_on_when_the_host_leaves_and_only_one_of_it_runs(phone: VirtualIphone, tmp_path: Path) -> None:
    def start(kill_existing: bool) -> int:
        async def body(lockdown: Any) -> int:
            from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider

            async with DvtProvider(lockdown) as dvt:
                control, _ = await process_control(dvt)
                return await launch(control, "sleep", "60", kill_existing=kill_existing)

        return with_lockdown(tmp_path, body)

    first = start(True)
    assert phone.running == {first: RUNNER}
    assert start(False) == first
    second = start(True)
    assert phone.running == {second: RUNNER} and first != second


def test_its_clock_is_the_one_that_apps_have(phone: VirtualIphone, tmp_path: Path) -> None:
    async def ask(lockdown: Any) -> Any:
        from pymobiledevice3.services.dvt.instruments.device_info import DeviceInfo
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider

        async with DvtProvider(lockdown) as dvt, DeviceInfo(dvt) as info:
            return await info.mach_time_info()

    before = time.monotonic_ns()
    ticks, numerator, denominator = with_lockdown(tmp_path, ask)
    assert before < ticks * numerator // denominator < time.monotonic_ns()


def test_memory_and_processor_are_those_of_the_process(phone: VirtualIphone, tmp_path: Path) -> None:
    async def watch(lockdown: Any) -> tuple[int, dict[str, Any]]:
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider
        from pymobiledevice3.services.dvt.instruments.sysmontap import Sysmontap

        async with DvtProvider(lockdown) as dvt:
            control, _ = await process_control(dvt)
            pid = await launch(control, "eat")
            while "full" not in (await control.output_events.get())[0]:
                pass
            async with await Sysmontap.create(dvt, 100) as tap:
                async for rows in tap.iter_processes():
                    (row,) = [row for row in rows if row["pid"] == pid]
                    return pid, row
        raise AssertionError("no samples")

    pid, row = with_lockdown(tmp_path, watch)
    status = Path(f"/proc/{pid}/status").read_text()
    (own,) = [int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon")]
    assert row["physFootprint"] == pytest.approx(own, rel=0.05)
    assert row["physFootprint"] >= 64 << 20


def test_an_app_that_works_draws_power_and_warms_the_phone(phone: VirtualIphone, tmp_path: Path) -> None:

    async def work(lockdown: Any) -> None:
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider

        async with DvtProvider(lockdown) as dvt:
            control, exits = await process_control(dvt)
            pid = await launch(control, "work")
            assert (await exits.get())[0] == pid

    with_lockdown(tmp_path, work)
    time.sleep(0.7)  # so that the model has seen all of it
    phone.stop()
    with phone.truth.open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    body = phone.power.body
    lengths = [(row["end_ns"] - row["begin_ns"]) / 1e9 for row in rows]
    drawn = sum(length * row["power_w"] for length, row in zip(lengths, rows, strict=True))
    assert phone.power.energy_j == pytest.approx(drawn, rel=1e-6)
    cpu_s = (drawn - body.idle_w * sum(lengths)) / body.core_w
    assert 0.3 < cpu_s < 1.5, "one core worked for 1.2 s, as far as this machine let it"


def test_developer_services_need_their_image(phone: VirtualIphone, tmp_path: Path) -> None:
    phone.stop()
    phone.start(developer_image=False)

    async def mount(lockdown: Any) -> None:
        from pymobiledevice3.exceptions import InvalidServiceError
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider
        from pymobiledevice3.services.mobile_image_mounter import MobileImageMounterService

        with pytest.raises(InvalidServiceError):
            async with DvtProvider(lockdown):
                pass
        async with MobileImageMounterService(lockdown) as mounter:
            assert not await mounter.is_image_mounted("Developer")
            await mounter.upload_image("Developer", b"image" * 1000, b"signature")
            await mounter.mount_image("Developer", b"signature")
            assert await mounter.is_image_mounted("Developer")
        async with DvtProvider(lockdown):
            pass

    with_lockdown(tmp_path, mount)


def _wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < deadline, f"{path} never said {text!r}"
        time.sleep(0.05)
