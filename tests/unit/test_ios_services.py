"""How developer services are reached by version of iOS, and who hears of the ends of processes; no library, no phone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.ios import dvt as ios_dvt
from meltrepro.targets.ios.dvt import DvtInstruments, Ends
from meltrepro.targets.ios.link import ProcessExit
from meltrepro.targets.ios.loop import Loop
from meltrepro.targets.ios.phone import Phone
from meltrepro.targets.ios.usbmux import UsbmuxServices

UDID = "00008110-001A2B3C4D5E6F70"


class FakeTunnel:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.forgotten = 0

    async def provider(self, udid: str) -> str:
        self.asked.append(udid)
        return f"tunnel {len(self.asked)}"

    def abort(self) -> None:
        self.forgotten += 1


class Opened:
    """What `DvtInstruments.open` gives."""

    def __init__(self, services: object) -> None:
        self.services = services
        self.alive = True

    def abort(self) -> None:
        self.alive = False


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    found: list[object] = []

    async def open_(cls: type, services: object) -> Opened:
        found.append(services)
        return Opened(services)

    monkeypatch.setattr(DvtInstruments, "open", classmethod(open_))
    return found


def services(version: int, tmp_path: Path, tunnel: Any = None) -> UsbmuxServices:
    there = UsbmuxServices(UDID, tmp_path, "127.0.0.1:1", tunnel)
    there.version = version

    async def paired() -> str:
        return "lockdown"

    there._paired = paired  # type: ignore[method-assign]
    return there


def test_from_ios_17_on_developer_services_are_behind_the_tunnel(tmp_path: Path, opened: list[object]) -> None:
    tunnel = FakeTunnel()
    there = services(17, tmp_path, tunnel)

    async def twice() -> None:
        first = await there.instruments()
        assert await there.instruments() is first, "it stays open"
        there.abort()
        assert await there.instruments() is not first

    asyncio.run(twice())
    assert opened == ["tunnel 1", "tunnel 2"], "a tunnel that was lost comes back elsewhere, so it is asked for anew"
    assert (tunnel.asked, tunnel.forgotten) == ([UDID, UDID], 1)


def test_without_a_tunnel_that_is_said(tmp_path: Path, opened: list[object]) -> None:
    with pytest.raises(TargetError, match="iOS 18") as caught:
        asyncio.run(services(18, tmp_path).instruments())
    assert "Tunnels" in str(caught.value.hint)
    assert not opened


def test_up_to_ios_16_there_is_none(tmp_path: Path, opened: list[object]) -> None:
    pytest.importorskip("pymobiledevice3")
    tunnel = FakeTunnel()
    asyncio.run(services(16, tmp_path, tunnel).instruments())
    assert opened == ["lockdown"]
    assert not tunnel.asked


@pytest.mark.parametrize(("mode", "says", "mounted"), [(False, "Developer Mode is off", 0), (True, "", 1)])
def test_a_phone_without_its_developer_disk_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: bool, says: str, mounted: int
) -> None:
    errors = pytest.importorskip("pymobiledevice3.exceptions")
    mounts: list[Any] = []

    class Lockdown:
        async def get_developer_mode_status(self) -> bool:
            return mode

    async def mount(lockdown: object) -> None:
        mounts.append(lockdown)

    async def open_(cls: type, there: object) -> Opened:
        if not mounts:
            raise errors.InvalidServiceError("no", None, "16.7")
        return Opened(there)

    monkeypatch.setattr(DvtInstruments, "open", classmethod(open_))
    monkeypatch.setattr("pymobiledevice3.services.mobile_image_mounter.auto_mount", mount)
    there = services(16, tmp_path)

    async def paired() -> Lockdown:
        return Lockdown()

    there._paired = paired  # type: ignore[method-assign]
    if says:
        with pytest.raises(TargetError, match=says):
            asyncio.run(there.instruments())
    else:
        assert asyncio.run(there.instruments()).alive  # type: ignore[attr-defined]
    assert len(mounts) == mounted


def test_ends_reach_those_who_wait_and_those_who_come_later() -> None:
    async def both() -> tuple[ProcessExit, ProcessExit]:
        ends = Ends()
        waiting = asyncio.create_task(ends.of(7))
        await asyncio.sleep(0)
        ends.put(7, ProcessExit(code=4))
        ends.put(8, ProcessExit(signal=9))
        return await waiting, await ends.of(8)

    assert asyncio.run(both()) == (ProcessExit(code=4), ProcessExit(signal=9))


def test_a_wait_that_is_given_up_loses_no_end() -> None:
    async def twice() -> ProcessExit:
        ends = Ends()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ends.of(7), 0.01)
        ends.put(7, ProcessExit(code=4))
        return await ends.of(7)

    assert asyncio.run(twice()) == ProcessExit(code=4)


def test_when_the_link_is_lost_everybody_learns_it() -> None:
    async def both() -> None:
        ends = Ends()
        waiting = asyncio.create_task(ends.of(7))
        ends.put(8, ProcessExit(code=0))
        await asyncio.sleep(0)
        ends.lose()
        with pytest.raises(TargetLost):
            await waiting
        with pytest.raises(TargetLost):
            await ends.of(9)
        assert await ends.of(8) == ProcessExit(code=0), "what is known stays known"

    asyncio.run(both())


class Answers:
    """What the library's channels answer."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.service = self
        self.ends = Ends()

    def __getattr__(self, name: str) -> Any:
        answer = self._answers[name]

        async def call(*arguments: Any, **options: Any) -> Any:
            self.asked.append((name, arguments, options))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def test_a_launch_ends_no_app_that_runs() -> None:
    """Asked again after a lost link, it has to find what the first call started."""
    control = Answers(launch=7, startObservingPid_=None)
    tools = DvtInstruments(None, control, Answers())
    assert asyncio.run(tools.launch("app", {"A": "b"})) == 7
    assert control.asked[0] == ("launch", ("app",), {"kill_existing": False, "environment": {"A": "b"}})
    assert asyncio.run(tools.watch(7)) is False, "it was asked to tell of its end already"


def test_a_launch_that_ends_in_a_bare_assertion() -> None:
    tools = DvtInstruments(None, Answers(launch=AssertionError()), Answers())
    with pytest.raises(TargetError, match="was not started"):
        asyncio.run(tools.launch("app", {}))


@pytest.mark.parametrize(("told", "ns"), [([24_000, 125, 3], 1_000_000), ([7, 1, 1, 0, 0], 7)])
def test_the_clock(told: list[int], ns: int) -> None:
    assert asyncio.run(DvtInstruments(None, Answers(), Answers(mach_time_info=told)).clock_ns()) == ns


@pytest.mark.parametrize("told", [[], [1, 1], [1, 0, 0], ["x", 1, 1], None])
def test_a_clock_that_means_nothing(told: Any) -> None:
    there = DvtInstruments(None, Answers(), Answers(mach_time_info=told))

    class Services:
        udid, version = UDID, 16

        async def instruments(self) -> DvtInstruments:
            return there

        def abort(self) -> None:
            pass

    loop = Loop()
    try:
        with pytest.raises(TargetError) as caught:
            Phone(Services(), loop).clock_ns()  # type: ignore[arg-type]
        assert not caught.value.transient
    finally:
        loop.close()


def test_keeping_it_awake_is_a_wish() -> None:
    """A phone that knows no such service is measured all the same."""

    class Services:
        udid, version, asked = UDID, 16, 0

        async def keep_awake(self, seconds: float) -> None:
            self.asked += 1
            raise type("InvalidServiceError", (Exception,), {})

        def abort(self) -> None:
            pass

    loop, there = Loop(), Services()
    try:
        Phone(there, loop).keep_awake(60)  # type: ignore[arg-type]
    finally:
        loop.close()
    assert there.asked == 1


def test_our_ears_have_the_names_that_the_library_calls() -> None:
    module = pytest.importorskip("pymobiledevice3.services.dvt.instruments.process_control")
    control = ios_dvt._control_class()
    assert issubclass(control, module.ProcessControl)
    assert control._inferred_service_class is not module.ProcessControlService
    assert issubclass(control._inferred_service_class, module.ProcessControlService)
    handlers: Mapping[str, Any] = vars(control._inferred_service_class)
    assert {"_on_process_terminated", "_on_output_received"} <= set(handlers)
    assert all(
        hasattr(module.ProcessControlService, name) for name in ("_on_process_terminated", "_on_output_received")
    )
