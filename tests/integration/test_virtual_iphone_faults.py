"""What goes wrong with a virtual iPhone, as its clients see it, and that it is well again afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import plistlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meltrepro.lab.iphone.device import RUNNER, VirtualIphone
from meltrepro.lab.iphone.faults import Break, Faults, How, PairingAnswer
from tests.support.iphones import client, installer, ios_package, launch, point_at, process_control, with_lockdown

DVT = "com.apple.instruments.remoteserver.DVTSecureSocketProxy"
HOUSE = "com.apple.mobile.house_arrest"
APP = """
case "$1" in
    sleep) exec sleep "$2";;
    eat) exec python3 -c 'import time; kept = bytearray(96 << 20); time.sleep(60)';;
    abort) kill -ABRT $$;;
esac
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualIphone]:
    phone = VirtualIphone(tmp_path / "phone")
    phone.install(["/bin/sh", "-c", APP, "app"])
    phone.start()
    point_at(phone, tmp_path / "host", monkeypatch)
    yield phone
    phone.erase()


@pytest.fixture
def paired(phone: VirtualIphone, tmp_path: Path) -> VirtualIphone:
    with_lockdown(tmp_path, _nothing)
    return phone


async def _nothing(lockdown: Any) -> bool:
    return bool(lockdown.paired)


def _files(home: Path, *steps: Any) -> None:
    """Do something with the files of the runner."""

    async def body(lockdown: Any) -> None:
        from pymobiledevice3.services.house_arrest import HouseArrestService

        async with await HouseArrestService.create(lockdown, RUNNER) as files:
            for step in steps:
                await step(files)

    with_lockdown(home, body, autopair=False)


def _push(path: Path, name: str = "/Documents/model") -> Any:
    return lambda files: files.push(str(path), name, progress_bar=False)


def _is_well(phone: VirtualIphone, home: Path) -> None:
    """It does what it should when nothing is wrong with it."""
    phone.heal()
    small = home / "small"
    small.write_bytes(b"small")
    _files(home, _push(small, "/Documents/small"))
    assert (phone.documents() / "small").read_bytes() == b"small"


# -- trust --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairing", "error", "said"),
    [
        (PairingAnswer.denied, "UserDeniedPairingError", "user denied the trust dialog"),
        (PairingAnswer.pending, "PairingDialogResponsePendingError", "accept the trust dialog"),
        (PairingAnswer.locked, "PasswordRequiredError", "passcode is set"),
    ],
)
def test_a_phone_that_does_not_pair(
    phone: VirtualIphone, tmp_path: Path, pairing: PairingAnswer, error: str, said: str
) -> None:
    from pymobiledevice3 import exceptions

    phone.faults = Faults(pairing=pairing)
    with pytest.raises(getattr(exceptions, error)):
        with_lockdown(tmp_path, _nothing)
    assert phone.hosts == ()
    assert said in client("idevicepair", "pair", expect=None)
    assert phone.hosts == ()
    phone.heal()
    assert with_lockdown(tmp_path, _nothing)


def test_a_host_that_is_trusted_no_longer(paired: VirtualIphone, tmp_path: Path) -> None:
    paired.forget()
    assert not with_lockdown(tmp_path, _nothing, autopair=False)
    assert with_lockdown(tmp_path, _nothing)


def test_a_host_that_only_says_that_it_is_trusted_gets_nowhere(paired: VirtualIphone, tmp_path: Path) -> None:
    """The id of a trusted host with the key of another."""
    (record,) = (paired.folder / "host").glob("*.plist")
    theirs = plistlib.loads(record.read_bytes())
    paired.forget()
    record.unlink()
    with_lockdown(tmp_path / "other", _nothing)
    ours = plistlib.loads(record.read_bytes())
    for folder in (tmp_path, tmp_path / "other"):
        for kept in (folder / "records").glob("*.plist"):
            kept.unlink()
    for name in ("HostCertificate", "HostPrivateKey"):
        ours[name] = theirs[name]
    record.write_bytes(plistlib.dumps(ours))
    assert not with_lockdown(tmp_path, _nothing, autopair=False)
    assert len(paired.hosts) == 1, "it is not the host that is unknown"


def test_a_phone_behind_its_passcode(paired: VirtualIphone, tmp_path: Path) -> None:
    async def body(lockdown: Any) -> None:
        from pymobiledevice3.dtx import DTXNsError
        from pymobiledevice3.exceptions import PasswordRequiredError
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider
        from pymobiledevice3.services.house_arrest import HouseArrestService

        async with DvtProvider(lockdown) as dvt:
            control, _ = await process_control(dvt)
            paired.faults = Faults(locked=True)
            with pytest.raises(DTXNsError, match="unlocked"):
                await launch(control)
        with pytest.raises(PasswordRequiredError):
            await HouseArrestService.create(lockdown, RUNNER)

    with_lockdown(tmp_path, body)
    assert paired.running == {}
    _is_well(paired, tmp_path)


# -- connections --------------------------------------------------------------------------------------------------------


def test_a_link_that_is_cut_leaves_what_had_arrived(paired: VirtualIphone, tmp_path: Path) -> None:
    from pymobiledevice3.exceptions import ConnectionTerminatedError

    model = tmp_path / "model"
    model.write_bytes(os.urandom(24 << 20))
    paired.faults = Faults(breaks=(Break(HOUSE, How.cut, message=6),))
    with pytest.raises(ConnectionTerminatedError):
        _files(tmp_path, _push(model))
    left = (paired.documents() / "model").stat().st_size
    assert 0 < left < 24 << 20, "a client that trusts the name alone would take it for the whole"
    _files(tmp_path, _push(model))  # it happens once
    assert (paired.documents() / "model").read_bytes() == model.read_bytes()


@pytest.mark.parametrize("service", ["usbmuxd", "lockdownd"])
def test_a_client_says_so_when_its_first_answer_is_cut(paired: VirtualIphone, service: str) -> None:
    paired.faults = Faults(breaks=(Break(service, How.cut, message=1, times=100),))
    said = client("ideviceinfo", "-k", "UniqueDeviceID", expect=None)
    assert paired.udid not in said
    paired.heal()
    assert paired.udid in client("ideviceinfo", "-k", "UniqueDeviceID")


@pytest.mark.parametrize("service", ["lockdownd", HOUSE])
def test_garbage_is_taken_for_nothing_else(paired: VirtualIphone, tmp_path: Path, service: str) -> None:
    from pymobiledevice3.exceptions import PyMobileDevice3Exception

    paired.faults = Faults(breaks=(Break(service, How.garbage, message=1, times=100),))
    with pytest.raises(PyMobileDevice3Exception):
        _files(tmp_path)
    _is_well(paired, tmp_path)


def test_a_link_that_stalls_is_no_error_and_never_ends(paired: VirtualIphone, tmp_path: Path) -> None:
    async def body(lockdown: Any) -> None:
        from pymobiledevice3.services.house_arrest import HouseArrestService

        files = await HouseArrestService.create(lockdown, RUNNER)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(files.listdir("/"), 1)
        await files.aclose()

    paired.faults = Faults(breaks=(Break(HOUSE, How.hang, message=2),))
    with_lockdown(tmp_path, body)
    _is_well(paired, tmp_path)


def test_a_host_that_hears_nothing_keeps_nothing_from_others(paired: VirtualIphone, tmp_path: Path) -> None:
    """The news of an end stalls on one connection; on another it comes."""

    async def body(lockdown: Any) -> None:
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider

        async with DvtProvider(lockdown) as deaf:
            control, unheard = await process_control(deaf)
            async with DvtProvider(lockdown) as other:
                watching, heard = await process_control(other)
                for _ in range(4):  # so that the fourth message of this connection is behind it
                    await watching.process_identifier_for_bundle_identifier_(RUNNER)
                # The other one has had two; then come the answer to the launch, and the news.
                paired.faults = Faults(breaks=(Break(DVT, How.hang, message=4),))
                pid = await launch(control, "sleep", "1")
                await watching.startObservingPid_(pid)
                assert await asyncio.wait_for(heard.get(), 10) == (pid, 0, None)
                assert unheard.empty()

    with_lockdown(tmp_path, body)


def test_the_cable_is_pulled(paired: VirtualIphone, tmp_path: Path) -> None:
    async def body(lockdown: Any) -> None:
        from pymobiledevice3.exceptions import ConnectionTerminatedError, DeviceNotFoundError, NoDeviceConnectedError
        from pymobiledevice3.lockdown import create_using_usbmux
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider
        from pymobiledevice3.usbmux import create_mux

        mux = await create_mux()
        await mux.listen()
        await mux.receive_device_state_update()
        assert [device.serial for device in mux.devices] == [paired.udid]
        async with DvtProvider(lockdown) as dvt:
            control, _ = await process_control(dvt)
            await launch(control, "sleep", "60")
            paired.unplug()
            await mux.receive_device_state_update()
            assert mux.devices == []
            with pytest.raises(ConnectionTerminatedError):
                await launch(control)
            with pytest.raises((ConnectionTerminatedError, DeviceNotFoundError, NoDeviceConnectedError)):
                await lockdown.get_value(key="DeviceName")
        with pytest.raises(DeviceNotFoundError):
            await create_using_usbmux(serial=paired.udid, autopair=False)
        paired.plug()
        await mux.receive_device_state_update()
        assert [device.serial for device in mux.devices] == [paired.udid]
        paired.unplug()
        await mux.close()

    with_lockdown(tmp_path, body)
    assert list(paired.running.values()) == [RUNNER], "it goes on without a host"
    assert client("idevice_id", "-l") == ""
    paired.plug()
    assert client("idevice_id", "-l").split() == [paired.udid]
    _is_well(paired, tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, b"\xff" * 64, os.urandom(4096)],
    ids=["nothing", "http", "zeros", "ones", "noise"],
)
def test_a_host_that_talks_nonsense_harms_nobody(phone: VirtualIphone, data: bytes) -> None:
    host, _, port = phone.address.partition(":")
    # It may hang up before it has heard all of it; that it hangs up at all is what matters.
    with socket.create_connection((host, int(port)), timeout=5) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert client("idevice_id", "-l").split() == [phone.udid]


def test_nothing_of_it_is_left_when_it_is_off(phone: VirtualIphone, tmp_path: Path) -> None:
    async def start(lockdown: Any) -> int:
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider

        async with DvtProvider(lockdown) as dvt:
            return await launch((await process_control(dvt))[0], "sleep", "60")

    pid = with_lockdown(tmp_path, start)
    phone.stop()
    assert not Path(f"/proc/{pid}").exists() and phone.running == {}
    deadline = time.monotonic() + 5
    names = {"usbmuxd", "battery", RUNNER, "system monitor"}
    while left := [each.name for each in threading.enumerate() if each.name in names]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(phone.address.partition(":")[2])), timeout=5)


# -- storage ------------------------------------------------------------------------------------------------------------


def test_a_phone_that_is_full(paired: VirtualIphone, tmp_path: Path) -> None:
    from pymobiledevice3.exceptions import AfcException
    from pymobiledevice3.services.afc import AfcError

    model = tmp_path / "model"
    model.write_bytes(bytes(12 << 20))
    paired.faults = Faults(free=5 << 20)
    with pytest.raises(AfcException) as refusal:
        _files(tmp_path, _push(model))
    assert refusal.value.status == AfcError.NO_SPACE_LEFT
    _is_well(paired, tmp_path)


def test_writes_that_are_acknowledged_and_lost(paired: VirtualIphone, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(os.urandom(12 << 20))
    paired.faults = Faults(keeps=7 << 20)
    sizes: list[int] = []

    async def stat(files: Any) -> None:
        sizes.append((await files.stat("/Documents/model"))["st_size"])

    _files(tmp_path, _push(model), stat)
    assert sizes == [7 << 20]
    assert (paired.documents() / "model").read_bytes() == model.read_bytes()[: 7 << 20]


# -- apps ---------------------------------------------------------------------------------------------------------------


def _run(home: Path, *arguments: str) -> tuple[Any, ...]:
    """Start the app, wait for its end, and return what was told of it."""

    async def body(lockdown: Any) -> tuple[Any, ...]:
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider

        async with DvtProvider(lockdown) as dvt:
            control, exits = await process_control(dvt)
            pid = await launch(control, *arguments)
            told = await asyncio.wait_for(exits.get(), 20)
            assert told[0] == pid
            return told[1:]

    return with_lockdown(home, body, autopair=False)


def _reports(home: Path) -> dict[str, str]:
    """The crash reports that a host can fetch, by name."""

    async def body(lockdown: Any) -> dict[str, str]:
        from pymobiledevice3.services.crash_reports import CrashReportsManager

        async with CrashReportsManager(lockdown) as reports:
            await reports.flush()
            names = [name.lstrip("/") for name in await reports.ls("/")]
            return {name: (await reports.afc.get_file_contents(f"/{name}")).decode() for name in names}

    return with_lockdown(home, body, autopair=False)


@pytest.mark.parametrize(
    ("faults", "arguments", "reason"),
    [
        (Faults(jetsam_after_s=0.3), ("sleep", "60"), "vm-pageshortage"),
        (Faults(memory_limit=64 << 20), ("eat",), "per-process-limit"),
    ],
    ids=["by the clock", "by its footprint"],
)
def test_an_app_is_killed_for_want_of_memory(
    paired: VirtualIphone, tmp_path: Path, faults: Faults, arguments: tuple[str, ...], reason: str
) -> None:
    paired.faults = faults
    assert _run(tmp_path, *arguments) == (None, 9)
    ((name, text),) = _reports(tmp_path).items()
    assert name.startswith("JetsamEvent-") and name.endswith(".ips")
    head, body = text.split("\n", 1)
    assert json.loads(head)["bug_type"] == "298"
    (process,) = json.loads(body)["processes"]
    assert (process["name"], process["reason"]) == (RUNNER, reason)
    size = process["rpages"] * json.loads(body)["memoryStatus"]["pageSize"]
    assert size > (faults.memory_limit or 0)


def test_an_app_that_crashes_leaves_a_report(paired: VirtualIphone, tmp_path: Path) -> None:
    assert _run(tmp_path, "abort") == (None, 6)
    ((name, text),) = _reports(tmp_path).items()
    assert name.startswith(RUNNER)
    assert json.loads(text.split("\n", 1)[1])["termination"]["code"] == 6


@pytest.mark.parametrize(
    ("faults", "program", "text"),
    [
        (Faults(launch_refused="the developer is not trusted (Security)"), None, "not trusted"),
        (Faults(), ["/nowhere/runner"], "cannot be run"),
    ],
)
def test_an_app_that_is_not_started(
    paired: VirtualIphone, tmp_path: Path, faults: Faults, program: list[str] | None, text: str
) -> None:
    from pymobiledevice3.dtx import DTXNsError

    if program:
        paired.install(program)
    paired.faults = faults
    with pytest.raises(DTXNsError, match=text):
        _run(tmp_path)


def test_an_app_that_is_not_taken(paired: VirtualIphone, tmp_path: Path) -> None:
    ipa = ios_package(tmp_path / "toy.ipa", "org.example.toy", "toy", {"toy": b"#!/bin/sh\n"})
    paired.faults = Faults(install_refused="ApplicationVerificationFailed")
    assert "ApplicationVerificationFailed" in installer("install", str(ipa), expect=None)
    paired.heal()
    installer("install", str(ipa))
    assert "org.example.toy" in installer("list")


def test_a_phone_without_developer_mode(paired: VirtualIphone, tmp_path: Path) -> None:
    async def body(lockdown: Any) -> None:
        from pymobiledevice3.exceptions import DeveloperModeIsNotEnabledError, InvalidServiceError
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider
        from pymobiledevice3.services.mobile_image_mounter import MobileImageMounterService

        assert not await lockdown.get_developer_mode_status()
        with pytest.raises(InvalidServiceError):
            async with DvtProvider(lockdown):
                pass
        async with MobileImageMounterService(lockdown) as mounter:
            with pytest.raises(DeveloperModeIsNotEnabledError):
                await mounter.mount_image("Developer", b"signature")

    paired.stop()
    paired.start(developer_image=False)
    paired.faults = Faults(developer_mode=False)
    with_lockdown(tmp_path, body)
