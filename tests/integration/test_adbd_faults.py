"""What an adbd that breaks on purpose can do to trials: each ends as docs/devices/android.md says."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meltrepro.errors import MeltreproError, TargetError, TargetLost
from meltrepro.lab.server import AdbServer
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.base import AGENT, TrialResult
from meltrepro.targets.remote.deploy import DeviceCache
from tests.integration.adbd_rig import Rig, attached_adbd, native_bundle
from tests.support.adbd.device import Adbd
from tests.support.adbd.faults import Fault, Way
from tests.support.adbd.packets import AUTH, CLSE, CNXN, OKAY, OPEN, WRTE

pytestmark = [pytest.mark.integration, pytest.mark.fault]
WORK = "sleep 1.5"
MANY = 10**6
SHELL_HEADER = 5
"""Bytes in front of what a command writes."""


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Adbd, AdbServer]]:
    with attached_adbd(tmp_path_factory.mktemp("adbd")) as lab:
        yield lab


@pytest.fixture
def rig(devices: tuple[Adbd, AdbServer], runner_bundles: Mapping[str, Path], tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(*devices, tmp_path, native_bundle(runner_bundles))
    rig.forget()
    rig.device.arm()
    yield rig
    rig.device.arm()
    rig.reattach()
    good(rig.attempt(20))
    assert rig.left() == set()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adb server that says nothing is waited for a moment only."""
    monkeypatch.setattr("meltrepro.targets.android.adb._ANSWER_S", 1.0)


def good(result: TrialResult | MeltreproError) -> TrialResult:
    assert isinstance(result, TrialResult), repr(result)
    assert (result.exit_code, result.timed_out) == (0, False)
    return result


def bad(result: TrialResult | MeltreproError) -> MeltreproError:
    assert isinstance(result, MeltreproError), repr(result)
    return result


def running(rig: Rig) -> None:
    """Wait until a trial has begun."""
    until = time.monotonic() + 20
    while not rig.runs() and time.monotonic() < until:
        time.sleep(0.01)
    assert rig.runs()


# -- the link -----------------------------------------------------------------------------------------------------


def test_a_device_that_vanishes_and_comes_back_under_another_transport(rig: Rig) -> None:
    before = rig.adb.server.ask("host:devices-l")
    with ThreadPoolExecutor(1) as pool:
        trial = pool.submit(rig.attempt, 20, WORK)
        running(rig)
        rig.device.vanish()
        time.sleep(0.3)
        rig.device.listen(rig.device.port)
        rig.reattach()
        good(trial.result())
    assert rig.runs() == 1
    after = rig.adb.server.ask("host:devices-l")
    assert before.partition("transport_id:")[2] != after.partition("transport_id:")[2]


def test_a_device_that_comes_back_under_another_serial_is_the_same_device(rig: Rig) -> None:
    known, port = rig.bench(0).target.identify(), rig.device.port
    with ThreadPoolExecutor(1) as pool:
        trial = pool.submit(rig.attempt, 1.0, "sleep 77.5")
        running(rig)
        rig.device.vanish()
        assert isinstance(bad(trial.result()), TargetLost), "nothing came back in time"
    rig.device.listen()
    assert rig.device.port != port
    rig.adb.server.ask(f"host:disconnect:127.0.0.1:{port}")
    rig.adb.attach(rig.device.address)
    target = rig.bench(5).target
    assert target.identify().id == known.id, "so that one lock guards it, whatever it is called"
    assert target.stop_strays() == 1


KINDS: list[tuple[Way, bytes, int]] = [
    *(("in", OPEN, spared) for spared in (0, 60)),
    *(("in", WRTE, spared) for spared in (0, SHELL_HEADER)),
    *(("out", WRTE, spared) for spared in (0, SHELL_HEADER)),
]


@pytest.mark.parametrize("at", [0, 4, 13])
@pytest.mark.parametrize(("way", "command", "spared"), KINDS)
def test_garbled_packets(rig: Rig, impatient: None, way: Way, command: bytes, spared: int, at: int) -> None:
    rig.device.arm(Fault("garble", at=at, way=way, command=command, spared=spared))
    result = rig.attempt(2)
    assert len(rig.device.gate.seen) > at
    if isinstance(result, TrialResult):
        good(result)
        assert rig.runs() == 1
    else:
        assert isinstance(result, TargetError)
        assert rig.runs() <= 1
    rig.device.arm()


@pytest.mark.parametrize("at", [7])
@pytest.mark.parametrize(
    ("way", "command"),
    [("out", OKAY), ("out", WRTE), ("out", CLSE), ("in", OPEN), ("in", OKAY), ("in", WRTE), ("in", CLSE)],
)
def test_noise_where_a_packet_should_be(rig: Rig, way: Way, command: bytes, at: int) -> None:
    """The connection is of no use after that; adb's server makes a new one."""
    rig.device.arm(Fault("noise", at=at, way=way, command=command))
    good(rig.attempt(20))
    assert rig.runs() == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("silence", way="in", command=OPEN),
        Fault("silence", way="out", command=OKAY),
        Fault("silence", way="out", command=WRTE),
        Fault("silence", way="in", command=WRTE, service="cat >>"),
        Fault("silence", way="in", command=OPEN, service="supervise"),
        Fault("silence", way="out", command=WRTE, service="agent wait"),
    ],
    ids=lambda fault: f"{fault.command.decode()} {fault.way} {fault.service}",
)
def test_a_device_that_says_nothing_any_more(
    rig: Rig, impatient: None, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr("meltrepro.targets.remote.jobs._HEARTBEAT_S", 0.5)
    hasty = dataclasses.replace(rig, silence_s=0.5)
    rig.device.arm(fault)
    error = bad(hasty.attempt(0))
    assert isinstance(error, TargetLost)
    assert "nothing was heard" in error.message or "does not answer" in error.message
    assert rig.runs() <= 1


@pytest.mark.parametrize("service", ["shell", "cat >>", "boot_id", "supervise", "agent wait", "rm -rf"])
def test_a_device_that_refuses_a_service(rig: Rig, service: str) -> None:
    """Once it is asked again; where it always refuses, that is told."""
    rig.device.arm(Fault("refuse", command=OPEN, service=service))
    good(rig.attempt(5))
    assert rig.runs() == 1
    rig.forget()
    rig.device.arm(Fault("refuse", command=OPEN, service=service, times=MANY))
    result = rig.attempt(0.3, name="b")
    if service == "rm -rf":
        good(result)
        rig.device.arm()
        rig.bench(0).target.stop_strays()
    else:
        assert isinstance(bad(result), TargetLost)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut", at=1, way="out", command=WRTE, service="ln -sf"),
        Fault("cut", way="out", command=WRTE, service="supervise"),
        Fault("cut", way="in", command=OPEN, service="rm -rf"),
        Fault("garble", way="in", command=WRTE, service="cat > ", spared=40),
    ],
    ids=["a folder was made", "a trial was started", "a folder is to be removed", "a request is damaged"],
)
def test_what_happens_only_once_though_it_is_asked_for_twice(rig: Rig, fault: Fault) -> None:
    rig.device.arm(fault)
    good(rig.attempt(20))
    assert rig.runs() == 1
    assert rig.left() == set()


def test_a_stray_is_ended_though_the_first_try_is_lost(rig: Rig) -> None:
    rig.device.arm(Fault("cut", command=OPEN, service="agent wait"))
    assert isinstance(bad(rig.attempt(0, "sleep 77.5")), TargetLost)
    rig.reattach()
    running(rig)
    rig.device.arm(Fault("refuse", command=OPEN, service="agent stop"))
    assert rig.bench(5).target.stop_strays() == 1
    assert rig.left() == set()


def test_a_slow_link(rig: Rig) -> None:
    rig.device.arm(Fault("delay", delay_s=0.01, times=MANY))
    good(rig.attempt(0))


def test_a_broken_transfer_goes_on_where_it_ended(rig: Rig) -> None:
    rig.device.arm(Fault("cut", after_bytes=200_000, way="in", command=WRTE, service="cat >>"))
    good(rig.attempt(20))
    sent = [
        seen for seen in rig.device.gate.seen if (seen.way, seen.command) == ("in", WRTE) and "cat >>" in seen.service
    ]
    whole = -(-(rig.bundle / AGENT).stat().st_size // (64 << 10))
    assert len(sent) < 2 * whole + 2, "what had arrived was not sent again"


# -- who may use it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "state", "error"),
    [
        ([], "unauthorized", TargetError),
        ([Fault("silence", at=1, way="out", command=AUTH)], "authorizing", TargetLost),
        ([Fault("silence", way="in", command=CNXN)], "offline", TargetLost),
    ],
)
def test_a_device_that_does_not_let_us_in(
    rig: Rig, tmp_path: Path, faults: list[Fault], state: str, error: type[TargetError]
) -> None:
    device = Adbd(tmp_path / "shy", name="shy", authorised=False)
    device.arm(*faults)
    device.start()
    server = rig.adb.server
    try:
        with server.connect() as asking:
            request = f"host:connect:{device.address}"
            asking.sendall(f"{len(request):04x}{request}".encode())  # which is answered when it is over
            until = time.monotonic() + 10
            while state not in (found := {each.serial: each.state for each in server.devices()}).values():
                assert time.monotonic() < until, found
                time.sleep(0.02)
            with pytest.raises(TargetError, match=f"{device.address} is {state}") as caught:
                AdbLink(server, device.address).open("true")
        assert type(caught.value) is error
        assert caught.value.hint
        assert device.processes() == []
    finally:
        device.erase()
        server.ask(f"host:disconnect:{device.address}")


# -- the device ---------------------------------------------------------------------------------------------------


def test_a_reboot_in_the_middle_of_a_trial(rig: Rig) -> None:
    with ThreadPoolExecutor(1) as pool:
        trial = pool.submit(rig.attempt, 20, "sleep 77.5")
        running(rig)
        rig.device.reboot()
        assert "rebooted in the middle of a trial" in bad(trial.result()).message


def test_a_reboot_between_trials_is_none_of_our_business(rig: Rig) -> None:
    good(rig.attempt(5))
    rig.device.reboot()
    good(rig.attempt(20))
    assert rig.runs() == 2


def test_storage_that_turns_read_only(rig: Rig) -> None:
    rig.device.machine.remount("ro")
    assert "Read-only file system" in bad(rig.attempt(0)).message
    rig.device.machine.remount("rw")
    good(rig.attempt(0))
    rig.device.machine.remount("ro")
    error = bad(rig.attempt(0))
    assert type(error) is TargetError
    assert "Read-only file system" in error.message, "also where everything had been deployed before"
    rig.device.machine.remount("rw")
    assert rig.runs() == 1


@pytest.fixture
def small(tmp_path: Path, runner_bundles: Mapping[str, Path]) -> Iterator[Rig]:
    """A device with room for little more than the agent."""
    with attached_adbd(tmp_path, name="small", storage="2m") as lab:
        yield Rig(*lab, tmp_path, native_bundle(runner_bundles))


def test_storage_that_is_full(small: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"\1" * (3 << 20))
    cache = DeviceCache(small.shell, small.device.root)
    with pytest.raises(TargetError, match=r"bytes free; big needs 3,145,728"):
        cache.deploy(big, "0" * 64)
    monkeypatch.setattr("meltrepro.targets.remote.deploy._ROOM", 0.1)  # as if it had become full meanwhile
    with pytest.raises(TargetError, match="No space left on device"):
        cache.deploy(big, "0" * 64)
    cache.forget("0" * 64)
    monkeypatch.undo()
    good(small.attempt(0))
    # A runner that fills it has no room for its own status.
    result = small.attempt(0, "cat /dev/zero > $2; exit 6", name="b")
    if isinstance(result, TrialResult):
        assert result.exit_code == 6
    else:
        assert isinstance(result, TargetLost)
    good(small.attempt(0, name="c"))
    assert small.left() == set()


def test_a_device_that_lies_about_digests(rig: Rig) -> None:
    programs = ("openssl", "sha256sum")
    for program in programs:
        rig.device.machine.program(program, f'cat > /dev/null; echo "{"0" * 64} -"')
    try:
        error = bad(rig.attempt(0))
        assert type(error) is TargetError
        assert f"found {'0' * 64}" in error.message
        assert "expected sha256" in error.message
        assert rig.runs() == 0
    finally:
        for program in programs:
            (rig.device.machine.folder / "bin" / program).unlink()


def test_a_device_that_stores_other_bytes(rig: Rig) -> None:
    rig.device.machine.program("cat", '[ $# -eq 0 ] || exec /bin/cat "$@"; /bin/cat | tr "[:lower:]" "[:upper:]"')
    try:
        error = bad(rig.attempt(0))
        assert "stored other bytes than were sent" in error.message
        assert rig.runs() == 0
    finally:
        (rig.device.machine.folder / "bin/cat").unlink()
