"""Developer services of an iPhone (DVT), by pymobiledevice3: programs, how they end, the clock, memory.

The library hears how a process ended, and only logs it; here that is kept for whoever waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.ios.link import ProcessExit

_FOOTPRINT, _MEMORY = "physFootprint", "physMemSize"
_SAMPLE_MS = 200
_ROWS = 20
"""A system monitor that has not told something by then will not."""


class DvtInstruments:
    """One connection with the channels that we need."""

    def __init__(self, provider: Any, control: Any, info: Any) -> None:
        self._provider = provider
        self._control = control
        self._info = info
        self._watched: set[int] = set()

    @classmethod
    async def open(cls, services: Any) -> DvtInstruments:
        """Open them where `services` starts services: a lockdown session, or what a tunnel leads to."""
        from pymobiledevice3.services.dvt.instruments.device_info import DeviceInfo
        from pymobiledevice3.services.dvt.instruments.dvt_provider import DvtProvider

        provider = DvtProvider(services)
        await provider.connect()
        _hurry(provider)
        try:
            control, info = _control_class()(provider), DeviceInfo(provider)
            await control.connect()
            await info.connect()
        except BaseException:
            _sever(provider)
            raise
        return cls(provider, control, info)

    @property
    def alive(self) -> bool:
        """Whether the connection is still there, as far as is known."""
        return not self._control.service.ends.lost

    async def launch(self, app: str, environment: Mapping[str, str]) -> int:
        """Never ends one that runs: asked again after a lost link, it finds what the first call started."""
        try:
            pid = await self._control.launch(app, kill_existing=False, environment=dict(environment))
        except AssertionError as error:
            raise TargetError(f"{app} was not started: the phone gave no process id") from error
        await self.watch(pid)
        return int(pid)

    async def pid(self, app: str) -> int:
        return int(await self._control.process_identifier_for_bundle_identifier(app) or 0)

    async def watch(self, pid: int) -> bool:
        if pid in self._watched:
            return False
        await self._control.service.startObservingPid_(pid)
        self._watched.add(pid)
        return True

    async def ended(self, pid: int) -> ProcessExit:
        return await self._control.service.ends.of(pid)  # type: ignore[no-any-return]

    async def kill(self, pid: int) -> None:
        await self._control.kill(pid)

    async def clock_ns(self) -> int:
        told = await self._info.mach_time_info()
        ticks, numerator, denominator = (int(getattr(told[place], "value", told[place])) for place in range(3))
        if numerator <= 0 or denominator <= 0:
            raise TargetError(f"a garbled time: {told!r}"[:200])
        return ticks * numerator // denominator

    async def hardware(self) -> Mapping[str, Any]:
        found = await self._info.hardware_information()
        return found if isinstance(found, dict) else {}

    async def memory_bytes(self) -> int | None:
        names, row = await self._sample("System")
        told = dict(zip(names, row or (), strict=False)).get(_MEMORY)
        return _number(told)

    async def footprint(self, pid: int) -> int | None:
        names, processes = await self._sample("Processes")
        values = (processes or {}).get(pid)
        return None if values is None else _number(dict(zip(names, values, strict=False)).get(_FOOTPRINT))

    async def _sample(self, part: str) -> tuple[list[str], Any]:
        """One sample of the system monitor: the names of the values, and the values; `None` where there are none."""
        from pymobiledevice3.services.dvt.instruments.sysmontap import Sysmontap

        processes = list(await self._info.service.sysmon_process_attributes())
        system = list(await self._info.service.sysmon_system_attributes())
        tap = Sysmontap(self._provider, processes, system, interval_ms=_SAMPLE_MS)
        async with tap:
            seen = 0
            async for row in tap:
                if part in row:
                    return (system if part == "System" else processes), row[part]
                seen += 1
                if seen > _ROWS:
                    break
        return [], None

    def abort(self) -> None:
        self._control.service.ends.lose()
        _sever(self._provider)


class Ends:
    """How processes ended, for those who wait and those who come later."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[ProcessExit]] = {}
        self.lost = False

    def put(self, pid: int, end: ProcessExit) -> None:
        """A process has ended."""
        future = self._future(pid)
        if not future.done():
            future.set_result(end)

    def lose(self) -> None:
        """Nobody will tell any more."""
        self.lost = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(TargetLost("the link to the phone's developer services broke"))
                future.exception()  # somebody may ask for it, nobody has to

    async def of(self, pid: int) -> ProcessExit:
        """Wait for the end of one; raises `TargetLost`."""
        return await asyncio.shield(self._future(pid))

    def _future(self, pid: int) -> asyncio.Future[ProcessExit]:
        if pid not in self._waiting:
            self._waiting[pid] = asyncio.get_running_loop().create_future()
            if self.lost:
                self.lose()
        return self._waiting[pid]


@lru_cache
def _control_class() -> Any:
    """The library's process control, with ears."""
    from pymobiledevice3.dtx import dtx_on_invoke
    from pymobiledevice3.dtx_service import DtxService
    from pymobiledevice3.services.dvt.instruments.process_control import ProcessControl, ProcessControlService

    class Service(ProcessControlService):  # type: ignore[misc]
        def __init__(self, context: Any) -> None:
            super().__init__(context)
            self.ends = Ends()

        def on_closed(self, reason: str = "") -> None:
            self.ends.lose()
            super().on_closed(reason)

        @dtx_on_invoke("outputReceived:fromProcess:atTime:")  # type: ignore[untyped-decorator]
        async def _on_output_received(self, message: str, pid: int, timestamp: Any) -> None:
            """What apps print is in their files; kept here it would only grow."""

        @dtx_on_invoke("processWithPID:terminatedWithExitCode:orCrashingSignal:")  # type: ignore[untyped-decorator]
        async def _on_process_terminated(self, pid: Any, code: Any, number: Any) -> None:
            self.ends.put(_number(pid) or 0, ProcessExit(_number(code), _number(number)))

    class Control(ProcessControl, DtxService[Service]):  # type: ignore[misc]
        pass

    return Control


def _number(value: Any) -> int | None:
    value = getattr(value, "value", value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _hurry(provider: Any) -> None:
    """Send small messages at once: else the clock is read 40 ms late where usbmuxd is behind TCP."""
    writer = _writer(provider)
    link = writer.get_extra_info("socket") if writer is not None else None
    if link is not None and link.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _writer(provider: Any) -> Any:
    return getattr(getattr(provider, "_dtx", None), "_writer", None)


def _sever(provider: Any) -> None:
    """Close the connection at once, without waiting for the phone."""
    writer = _writer(provider)
    if writer is not None:
        with contextlib.suppress(Exception):
            writer.transport.abort()
