"""What can happen to a board behind SSH while it is measured: each ends as docs/devices/jetson.md says."""

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
from meltrepro.lab.jetson import VirtualJetson
from meltrepro.targets.base import AGENT, TrialResult
from meltrepro.targets.jetson.target import Jetson
from meltrepro.targets.remote.deploy import DeviceCache
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.ssh.link import SshLink
from meltrepro.testing.targets import Bench
from tests.integration.conftest import attached_board

pytestmark = [pytest.mark.integration, pytest.mark.fault]
ROOT = "/var/tmp/meltrepro"
COUNT = "/var/tmp/count"
WORK = f"echo ran >> {COUNT}; sleep 4.5"


@dataclass(frozen=True, kw_only=True)
class Rig(Bench):
    """A board that things happen to."""

    board: VirtualJetson
    shell: Shell

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
            if self.processes(rb"sleep\0(77|4)\.5\0"):
                return
            time.sleep(0.05)
        pytest.fail("the trial does not run")

    def processes(self, pattern: bytes) -> list[int]:
        """Processes of the board by their command lines, seen from here."""
        found = []
        there = os.readlink(f"/proc/{self.board.inside}/ns/pid")
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                mine = process.name.isdigit() and os.readlink(process / "ns/pid") == there
                if mine and re.search(pattern, (process / "cmdline").read_bytes()):
                    found.append(int(process.name))
        return found

    def kill(self, pattern: bytes) -> None:
        for pid in self.processes(pattern):
            if pid != self.board.inside:
                os.kill(pid, signal.SIGKILL)

    def cut(self) -> None:
        self.board.relay.cut()

    def mend(self) -> None:
        self.board.relay.mend()

    def kill_sessions(self) -> None:
        self.kill(rb"sshd-session")

    def reboot(self) -> None:
        self.board.reboot()

    def kill_runner(self) -> None:
        self.kill(rb"sleep\x0077\.5\0")

    def kill_supervisor(self) -> None:
        self.shell.script('kill -9 "$(cat "$1"/jobs/trial-*/supervisor)"', ROOT)

    @property
    def runs(self) -> int:
        return len(self.shell.script('cat "$1" 2>/dev/null', COUNT).text.splitlines())


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VirtualJetson, SshLink]]:
    with attached_board(tmp_path_factory.mktemp("faults"), name="fragile", storage="96m") as lab:
        yield lab


@pytest.fixture
def rig(devices: tuple[VirtualJetson, SshLink], native_bundle: Path, tmp_path: Path) -> Iterator[Rig]:
    board, link = devices
    shell = Shell(link)
    shell.run(["rm", "-rf", ROOT, COUNT])
    target = RemoteTarget(shell, Jetson(), ROOT, reconnect_s=30)
    rig = Rig(target, tmp_path, native_bundle / AGENT, board=board, shell=shell)
    yield rig
    board.relay.mend()
    rig.target.stop_strays()
    assert rig.processes(rb"sleep\0(77|4)\.5\0") == [], "something lives on"


@pytest.mark.parametrize(
    "happen",
    [
        [("cut", 0.2), ("mend", 1.0)],
        [("cut", 0.2), ("mend", 6.0)],
        [("kill_sessions", 0.2)],
    ],
    ids=["a short loss of the link", "a loss longer than the trial", "the server's sessions killed"],
)
def test_a_trial_outlives_its_link(rig: Rig, happen: list[tuple[str, float]]) -> None:
    result = rig.run_while(WORK, happen)
    assert (result.exit_code, result.timed_out) == (0, False)
    assert rig.runs == 1, "never started a second time"


def test_a_link_that_is_lost_for_good(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.target, "_reconnect_s", 1.0)
    with pytest.raises(TargetLost):
        rig.run_while("sleep 77.5", [("cut", 0.2)])
    rig.mend()
    assert rig.target.stop_strays() == 1, "the next campaign finds what it left"


def test_a_board_that_is_rebooted(rig: Rig) -> None:
    with pytest.raises(TargetLost, match="rebooted in the middle of a trial"):
        rig.run_while("sleep 77.5", [("reboot", 0.2)])


def test_a_runner_that_is_killed(rig: Rig) -> None:
    result = rig.run_while("sleep 77.5", [("kill_runner", 0.2)])
    assert result.exit_code == 137
    assert not result.timed_out


def test_a_supervisor_that_is_killed(rig: Rig) -> None:
    with pytest.raises(TargetLost, match="vanished"):
        rig.run_while("sleep 77.5", [("kill_supervisor", 0.2)])


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


def test_bytes_that_change_on_the_board(rig: Rig) -> None:
    job = rig.job("exit 0")
    rig.shell.script('echo broken > "$1"', f"{ROOT}/cas/{job.model.digest}")
    job = rig.job("exit 0")
    assert rig.target.run_trial(job).exit_code == 0, "it was noticed and sent again"


def test_a_board_that_was_set_up_anew(rig: Rig) -> None:
    """Its host key is another one: nobody goes on as if nothing had happened."""
    keys = rig.board.folder / "keys"
    saved = {name: (keys / name).read_bytes() for name in ("host", "host.pub")}
    known = rig.board.known_hosts.read_text()
    try:
        for name in saved:
            (keys / name).unlink()
        rig.board.reboot()
        rig.board.known_hosts.write_text(known)
        with pytest.raises(TargetError, match="host key has changed") as failure:
            rig.target.identify()
        assert not isinstance(failure.value, TargetLost)
    finally:
        for name, data in saved.items():
            (keys / name).write_bytes(data)
            (keys / name).chmod(0o600)
        rig.board.reboot()
    assert rig.target.identify().virtual
