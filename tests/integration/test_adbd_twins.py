"""Two phones of one serial number, one phone twice, and an adb server elsewhere: real adb, real trials."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import DeviceBusy
from meltrepro.lab.server import AdbServer
from meltrepro.settings import Settings
from meltrepro.targets.android.adb import SOCKET
from meltrepro.targets.android.options import AndroidOptions
from meltrepro.targets.android.target import AndroidTarget, open_target
from meltrepro.targets.base import AGENT
from meltrepro.targets.device_lock import hold
from meltrepro.testing.targets import Bench
from tests.integration.adbd_rig import native_bundle
from tests.support.adbd.device import Adbd

pytestmark = pytest.mark.integration
SERIAL = "0123456789ABCDEF"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AdbServer, list[Adbd]]]:
    """An adb server with two phones that say the same serial number."""
    folder = tmp_path_factory.mktemp("twins")
    adb = AdbServer(folder / "adb")
    phones = [Adbd(folder / name, name=name, properties={"ro.serialno": SERIAL}) for name in ("one", "two")]
    try:
        adb.start()
        for phone, android_id in zip(phones, ("1111222233334444", "5555666677778888"), strict=True):
            phone.start()
            phone.machine.program("settings", f"echo {android_id}")
            adb.attach(phone.address)
        yield adb, phones
    finally:
        adb.stop()
        for phone in phones:
            phone.erase()


@pytest.fixture(autouse=True)
def elsewhere(lab: tuple[AdbServer, list[Adbd]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SOCKET, f"tcp:127.0.0.1:{lab[0].server.port}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "cache", tmp_path / "home", offline=True, mirrors=None, jobs=1)


def target(phone: Adbd, settings: Settings, name: str | None = None) -> AndroidTarget:
    return open_target(AndroidOptions(kind="android", serial=name or phone.address, root=phone.root), settings)


def meltrepro(*arguments: str, home: Path) -> Any:
    environment = {**os.environ, "MELTREPRO_HOME": str(home), "MELTREPRO_CACHE": str(home / "cache"), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "meltrepro", *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_each_of_two_phones_has_an_id_a_lock_and_trials_of_its_own(
    lab: tuple[AdbServer, list[Adbd]], settings: Settings, runner_bundles: Mapping[str, Path], tmp_path: Path
) -> None:
    targets = [target(phone, settings) for phone in lab[1]]
    ids = [each.identify().id for each in targets]
    assert len(set(ids)) == 2
    assert ids == [target(phone, settings).identify().id for phone in lab[1]]
    one, two = ids
    with hold(one, "first"), hold(two, "second"), pytest.raises(DeviceBusy), hold(one, "third"):
        pass
    for each, folder in zip(targets, ("one", "two"), strict=True):
        (tmp_path / folder).mkdir()
        bench = Bench(each, tmp_path / folder, native_bundle(runner_bundles) / AGENT)
        assert bench.target.run_trial(bench.job("exit 0")).exit_code == 0


def test_one_phone_by_two_ways_is_one_device(lab: tuple[AdbServer, list[Adbd]], settings: Settings) -> None:
    adb, (phone, _) = lab
    other = f"localhost:{phone.port}"
    adb.attach(other)
    try:
        assert target(phone, settings).identify().id == target(phone, settings, other).identify().id
    finally:
        adb.detach(other)


def test_a_server_elsewhere_is_asked_what_is_attached(lab: tuple[AdbServer, list[Adbd]], tmp_path: Path) -> None:
    rows = [row for row in meltrepro("devices", "--json", home=tmp_path) if row["kind"] == "android"]
    assert {row["serial"] for row in rows} == {phone.address for phone in lab[1]}
    assert len({row["device"] for row in rows}) == 2
    report = meltrepro("devices", "probe", lab[1][0].address, "--seconds", "0", "--json", home=tmp_path)
    assert (tmp_path / "devices" / f"{report['device']}.json").exists()
