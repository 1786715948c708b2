"""The fault-injecting adbd where nothing goes wrong: adb's own client, adbutils and the target contract are served."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from meltrepro.lab.server import AdbServer
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.android.adb_server import program
from meltrepro.targets.android.target import Android
from meltrepro.targets.base import AGENT
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro.testing import targets as suite
from meltrepro.testing.targets import Bench
from tests.integration.adbd_rig import attached_adbd, native_bundle
from tests.integration.scorer_rig import scores_there_as_here
from tests.support.adbd.device import Adbd

pytestmark = [pytest.mark.integration, pytest.mark.contract]


class TestContract(suite.AnyProgramContract):
    """With the `bench` below."""


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Adbd, AdbServer]]:
    with attached_adbd(tmp_path_factory.mktemp("adbd")) as lab:
        yield lab


@pytest.fixture
def bench(devices: tuple[Adbd, AdbServer], runner_bundles: Mapping[str, Path], tmp_path: Path) -> Iterator[Bench]:
    device, adb = devices
    shell = Shell(AdbLink(adb.server, device.address))
    target = RemoteTarget(shell, Android(), device.root, reconnect_s=20)
    yield Bench(target, tmp_path, native_bundle(runner_bundles) / AGENT)
    assert target.stop_strays() == 0, "a trial leaves nothing behind"
    shell.expect(shell.run(["rm", "-rf", device.root]), "clean up")


def test_the_bundles_scorer_comes_to_the_same_there(
    bench: Bench, runner_bundles: Mapping[str, Path], tmp_path: Path
) -> None:
    scores_there_as_here(bench.target, native_bundle(runner_bundles), tmp_path)


def test_it_says_that_it_is_virtual(bench: Bench) -> None:
    facts = bench.target.identify()
    assert facts.virtual
    assert (facts.kind, facts.model) == ("android", "Fault Injector")


@dataclass(frozen=True)
class Client:
    """adb's own client, with a server of the same release."""

    program: str
    device: Adbd
    adb: AdbServer
    home: Path

    def __call__(self, *arguments: str | Path, told: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, "-P", str(self.adb.server.port), "-s", self.device.address, *map(str, arguments)],
            env={**os.environ, "HOME": str(self.home)},
            input=told,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture(scope="module", params=["adb on the path", "adb of adbutils"])
def client(
    request: pytest.FixtureRequest, devices: tuple[Adbd, AdbServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """Two releases of adb, years apart, where both are installed."""
    import adbutils

    own = str(Path(adbutils.__file__).parent / "binaries/adb")
    found = shutil.which("adb") if request.param == "adb on the path" else own
    if found is None:
        pytest.skip("no adb is on the path")
    device, home = devices[0], tmp_path_factory.mktemp("client")
    server = AdbServer(home / "adb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADBUTILS_ADB_PATH", found)
        assert program() == found
        server.start()
    try:
        server.attach(device.address)
        yield Client(found, device, server, home)
    finally:
        server.stop()


def test_adb_runs_commands(client: Client) -> None:
    done = client("shell", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert client("shell", "cat", told="a line\n").stdout == "a line\n"
    assert client("shell", "kill -TERM $$").returncode == 143
    assert client("exec-out", "echo as one; echo err >&2").stdout == "as one\nerr\n"
    assert client("shell", "getprop", "ro.product.model").stdout == "Fault Injector\n"
    assert "level: 77" in client("shell", "dumpsys", "battery").stdout
    assert (
        client("shell", "cat /proc/sys/kernel/random/boot_id").stdout
        != Path("/proc/sys/kernel/random/boot_id").read_text()
    ), "it is not this machine"


def test_adb_moves_files(client: Client, tmp_path: Path) -> None:
    local, back = tmp_path / "local", tmp_path / "back"
    data = hashlib.sha256(b"file").digest() * 40_000
    local.write_bytes(data)
    remote = f"{client.device.root}/a folder/file"
    assert client("push", local, remote).returncode == 0
    assert client("pull", remote, back).returncode == 0
    assert back.read_bytes() == data
    listed = client("ls", f"{client.device.root}/a folder").stdout
    assert f"{len(data):08x}" in listed
    assert listed.endswith(" file\n")
    (tmp_path / "folder/below").mkdir(parents=True)
    (tmp_path / "folder/below/it").write_text("deep")
    assert client("push", tmp_path / "folder", f"{client.device.root}/folder").returncode == 0
    assert client("pull", f"{client.device.root}/folder", tmp_path / "again").returncode == 0
    assert (tmp_path / "again/below/it").read_text() == "deep"


def test_adb_says_why_a_file_cannot_be_moved(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(200_000))
    refused = client("push", tmp_path / "file", "/proc/file")
    assert refused.returncode == 1
    assert "couldn't create file" in refused.stdout + refused.stderr
    missing = client("pull", "/no/such/file", tmp_path / "missing")
    assert missing.returncode == 1
    assert "No such file or directory" in missing.stdout + missing.stderr


def test_adbutils_works_with_it(client: Client, tmp_path: Path) -> None:
    import adbutils

    known = adbutils.AdbClient(port=client.adb.server.port)
    (listed,) = known.list(extended=True)
    assert (listed.serial, listed.state, listed.tags["model"]) == (client.device.address, "device", "Fault_Injector")
    device = known.device(client.device.address)
    said = device.shell2("echo out; echo err >&2; exit 4", v2=True)
    assert (said.returncode, said.stdout, said.stderr) == (4, "out\n", "err\n")
    assert device.shell("echo plain; echo err >&2") == "plain\nerr"
    assert device.shell2("(exit 3)").returncode == 3
    local = tmp_path / "local"
    local.write_bytes(bytes(range(256)) * 1000)
    remote = f"{client.device.root}/by adbutils"
    assert device.sync.push(local, remote, check=True) == local.stat().st_size
    assert device.sync.exists(remote)
    assert remote.rpartition("/")[2] in {entry.path for entry in device.sync.list(client.device.root)}
    device.sync.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == local.read_bytes()
    assert device.battery().level == 77
