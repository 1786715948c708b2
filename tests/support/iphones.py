"""Clients of iPhones that know nothing of each other, for tests against the virtual one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import plistlib
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import pytest

from meltrepro.lab.iphone.device import RUNNER, VirtualIphone
from meltrepro.workflow.machine import TOOLS

_GO_IOS = Path(__file__).parents[1] / "integration" / "go-ios"
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_CLIENT_S = 30.0
T = TypeVar("T")


def client(name: str, *arguments: str, expect: int | None = 0) -> str:
    """Run a program against the phone that the environment names; returns what it said. It must be installed."""
    where = shutil.which(name)
    if where is None:
        package = next((tool.package for tool in TOOLS if tool.name == name), "libimobiledevice-utils")
        pytest.fail(f"{name} is not here: apt-get install {package}, or meltrepro doctor --fix --tests")
    done = subprocess.run(
        [where, *arguments], capture_output=True, text=True, timeout=_CLIENT_S, check=False, stdin=subprocess.DEVNULL
    )
    said = done.stdout + done.stderr
    assert expect is None or done.returncode == expect, f"{name} {' '.join(arguments)}: {done.returncode}\n{said}"
    return said


def installer(command: str, *arguments: str, expect: int | None = 0) -> str:
    """Run ideviceinstaller, whose commands were options until version 1.2."""
    options = {"list": "-l", "install": "-i", "uninstall": "-U"}
    modern = re.search(r"^\s+list\b", client("ideviceinstaller", "--help", expect=None), re.MULTILINE)
    return client("ideviceinstaller", command if modern else options[command], *arguments, expect=expect)


def go_ios(cache: Path) -> Path:
    """The program of go-ios, fetched by npm as its lock says where it is not there yet."""
    lock = (_GO_IOS / "package-lock.json").read_bytes()
    folder = cache / "go-ios" / hashlib.sha256(lock).hexdigest()[:16]
    machine = f"go-ios-linux-{_MACHINES[platform.machine()]}"
    program = Path("node_modules/go-ios/dist", f"{machine}_linux_{_MACHINES[platform.machine()]}", "ios")
    if not folder.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.fail("npm is not here: apt-get install npm, or meltrepro doctor --fix --tests")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:  # never half of it where it is looked for
            made = Path(name) / "made"
            shutil.copytree(_GO_IOS, made)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0 and (made / program).exists(), done.stdout + done.stderr
            (made / program).chmod(0o755)
            made.rename(folder)
    return folder / program


def require_pymobiledevice3() -> None:
    """See to it that the library is here."""
    if find_spec("pymobiledevice3") is None:
        pytest.fail("pymobiledevice3 is not here: make ios, or pip install 'meltrepro[ios]'")


def with_lockdown(home: Path, body: Callable[[Any], Awaitable[T]], *, autopair: bool = True) -> T:
    """Do something with pymobiledevice3's client of lockdownd, paired unless told otherwise."""
    require_pymobiledevice3()
    from pymobiledevice3.lockdown import create_using_usbmux

    async def main() -> T:
        records = home / "records"
        records.mkdir(parents=True, exist_ok=True)
        lockdown = await create_using_usbmux(autopair=autopair, pair_timeout=0, pairing_records_cache_folder=records)
        try:
            return await body(lockdown)
        finally:
            await lockdown.close()

    return asyncio.run(asyncio.wait_for(main(), _CLIENT_S))


async def process_control(dvt: Any) -> tuple[Any, asyncio.Queue[tuple[Any, ...]]]:
    """A channel for launches, and where its news of exits arrive."""
    from pymobiledevice3.dtx import dtx_on_invoke
    from pymobiledevice3.services.dvt.instruments.process_control import ProcessControlService

    exits: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    class Control(ProcessControlService):  # type: ignore[misc]
        @dtx_on_invoke("processWithPID:terminatedWithExitCode:orCrashingSignal:")  # type: ignore[untyped-decorator]
        async def _on_process_terminated(self, *told: Any) -> None:
            await exits.put(told)

    return await dvt.dtx.open_channel(ProcessControlService.IDENTIFIER, Control), exits


async def launch(control: Any, *arguments: str, kill_existing: bool = True, **environment: str) -> int:
    """Start the runner; returns its process id."""
    start = control.launch_suspended_process_with_device_path_bundle_identifier_environment_arguments_options_
    pid: int = await start("", RUNNER, environment, list(arguments), {"KillExisting": kill_existing})
    return pid


def point_at(phone: VirtualIphone, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every client of this test find the phone, and leave its records in a folder of the test."""
    home.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("USBMUXD_SOCKET_ADDRESS", phone.address)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ENABLE_GO_IOS_AGENT", "no")
    for name in ("PYMOBILEDEVICE3_UDID", "PYMOBILEDEVICE3_USBMUX"):
        monkeypatch.delenv(name, raising=False)
    assert os.environ["USBMUXD_SOCKET_ADDRESS"] == phone.address


def ios_package(ipa: Path, identifier: str, executable: str, files: dict[str, bytes]) -> Path:
    """An `.ipa` at a path with these files of the bundle, as a development build would be signed."""
    info = {
        "CFBundleExecutable": executable,
        "CFBundleIdentifier": identifier,
        "CFBundleName": identifier.rpartition(".")[2],
        "CFBundlePackageType": "APPL",
        "CFBundleShortVersionString": "1.0",
        "CFBundleVersion": "1.0",
        "UIFileSharingEnabled": True,
    }
    everything = {"Info.plist": plistlib.dumps(info), "embedded.mobileprovision": b"virtual", **files}
    with zipfile.ZipFile(ipa, "w") as archive:
        for name, data in everything.items():
            archive.writestr(f"Payload/{identifier}.app/{name}", data)
    return ipa
