"""Developer services: start apps and hear how they end, see what runs and how much memory it takes."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from meltrepro.lab.iphone import dtx
from meltrepro.lab.iphone.archive import Error, TapMessage
from meltrepro.lab.iphone.identity import PRODUCT, VERSION
from meltrepro.lab.iphone.processes import LaunchRefused, Processes, usage
from meltrepro.lab.iphone.state import State
from meltrepro.lab.iphone.stream import Ended, Stream

_PREFIX = "com.apple.instruments.server.services."
_LAUNCH = "launchSuspendedProcessWithDevicePath:bundleIdentifier:environment:arguments:options:"
_LEAST_S = 0.05
PROCESS_ATTRIBUTES = ("pid", "name", "cpuUsage", "physFootprint", "memResidentSize", "memVirtualSize", "threadCount")
SYSTEM_ATTRIBUTES = ("physMemSize", "netPacketsIn", "netPacketsOut")


class Connection:
    """One conversation with one host, with any number of channels."""

    def __init__(self, state: State, stream: Stream) -> None:
        self.state = state
        self._stream = stream
        self._numbers = itertools.count(1)
        self._channels: dict[int, Channel] = {}
        self.order = threading.RLock()
        """Held while a call is carried out and answered: nothing that the call brings about is told before the answer."""

    def serve(self) -> None:
        """Answer until the host leaves; raises `Ended`, `Malformed`."""
        parts = dtx.Assembly()
        try:
            while True:
                fragment, more = dtx.read_fragment(self._stream.read(dtx.FRAGMENT.size))
                self._stream.read(more)
                message = parts.add(fragment, self._stream.read(fragment.body))
                if message is not None and message.turn % 2 == 0:
                    with self.order:
                        self._handle(message)
        finally:
            for channel in self._channels.values():
                channel.close()

    def tell(self, channel: int, message: dtx.Message) -> None:
        """Say something of one's own accord on a channel that the host has opened."""
        with self.order, contextlib.suppress(Ended):
            # The number of a channel is negative where the side that did not open it begins.
            told = dtx.Message(
                message.kind, -channel, message.value, message.arguments, next(self._numbers), asks=message.asks
            )
            self._stream.send(dtx.write_message(told))

    def _handle(self, message: dtx.Message) -> None:
        answer: Any = None
        if message.kind is dtx.Kind.call:
            name, arguments = str(message.value), message.arguments
            try:
                if message.channel == 0:
                    answer = self._control(name, arguments)
                elif message.channel in self._channels:
                    answer = self._channels[message.channel].call(name, *arguments)
                else:
                    answer = Error("DTXMessage", 1, f"there is no channel {message.channel}")
            except (TypeError, ValueError) as error:
                answer = Error("DTXMessage", 1, f"{name} cannot be called so: {error}")
        if message.asks:
            self._stream.send(dtx.write_message(message.answer(answer)))

    def _control(self, name: str, arguments: tuple[Any, ...]) -> Any:
        match name, arguments:
            case "_notifyOfPublishedCapabilities:", (dict(),):
                known = {"com.apple.private.DTXConnection": 1, "com.apple.private.DTXBlockCompression": 0}
                known |= dict.fromkeys(CHANNELS, 1)
                self.tell(0, dtx.Message(dtx.Kind.call, 0, "_notifyOfPublishedCapabilities:", (known,)))
            case "_requestChannelWithCode:identifier:", (int(code), str(identifier)):
                make = CHANNELS.get(identifier)
                if make is None:
                    return Error("DTXMessage", 1, f"there is no service {identifier}")
                self._channels[code] = make(self, code)
            case "_channelCanceled:", (int(code),):
                gone = self._channels.pop(code, None)
                if gone is not None:
                    gone.close()
            case _:
                return Error("DTXMessage", 1, f"Unable to invoke {name!r} - it does not respond to the selector")
        return None


class Channel(ABC):
    """One service that a host has opened."""

    def __init__(self, connection: Connection, code: int) -> None:
        self.connection = connection
        self.state = connection.state
        self.code = code

    def call(self, name: str, *arguments: Any) -> Any:
        """Carry out a call; returns what answers it, `None` for nothing."""
        method = self.methods().get(name)
        if method is None:
            return Error("DTXMessage", 1, f"Unable to invoke {name!r} - it does not respond to the selector")
        return method(*arguments)

    @abstractmethod
    def methods(self) -> dict[str, Callable[..., Any]]:
        """What may be called, by its name on the wire."""

    @abstractmethod
    def close(self) -> None:
        """The host has left, or wants this no more."""


class ProcessControl(Channel):
    """Starts apps, and tells what they write and how they end."""

    def __init__(self, connection: Connection, code: int) -> None:
        super().__init__(connection, code)
        self._observed: set[int] = set()
        self._unsubscribe = self._processes.subscribe(self._wrote, self._ended)

    @property
    def _processes(self) -> Processes:
        return self.state.processes

    def close(self) -> None:
        """Apps go on when the host leaves."""
        self._unsubscribe()

    def methods(self) -> dict[str, Callable[..., Any]]:
        """What may be called."""
        return {
            _LAUNCH: self._launch,
            "killPid:": lambda pid: self._signal(signal.SIGKILL, pid) and None,
            "sendSignal:toPid:": self._signal,
            "suspendPid:": lambda pid: self._signal(signal.SIGSTOP, pid),
            "resumePid:": lambda pid: self._signal(signal.SIGCONT, pid),
            "startObservingPid:": self._observed.add,
            "stopObservingPid:": self._observed.discard,
            "processIdentifierForBundleIdentifier:": self._pid_of,
            "isPidDebuggable:": lambda pid: self._processes.get(pid) is not None,
            "requestDisableMemoryLimitsForPid:": lambda pid: self._processes.get(pid) is not None,
        }

    def _launch(self, path: str, identifier: str, environment: Any, arguments: Any, options: Any) -> int | Error:
        app = self.state.apps.get(str(identifier))
        if app is None:
            return _not_launched(identifier, Error("FBSOpenApplicationServiceErrorDomain", 4, "there is no such app"))
        if self.state.mishaps.now.locked:
            locked = "Unable to launch because the device was not, or could not be, unlocked."
            return _not_launched(identifier, Error("FBSOpenApplicationErrorDomain", 7, f"{locked} (Locked)"))
        options = options if isinstance(options, dict) else {}
        try:
            pid = self._processes.launch(
                app,
                [str(each) for each in arguments or ()],
                {str(name): str(value) for name, value in (environment or {}).items()},
                kill_existing=bool(options.get("KillExisting", True)),
                suspended=bool(options.get("StartSuspendedKey", False)),
            )
        except LaunchRefused as refusal:
            return _not_launched(identifier, Error("FBSOpenApplicationErrorDomain", 3, str(refusal)))
        # Whoever starts an app hears of it; observing is for those that run already.
        self._observed.add(pid)
        return pid

    def _signal(self, number: int, pid: int) -> Error | None:
        if not self._processes.send_signal(pid, number):
            return Error("NSPOSIXErrorDomain", 3, f"No such process: {pid}")
        return None

    def _pid_of(self, identifier: str) -> int:
        return next((each.pid for each in self._processes.all() if each.app.identifier == identifier), 0)

    def _wrote(self, pid: int, text: str) -> None:
        with self.connection.order:
            if pid in self._observed:
                arguments = (text, pid, time.monotonic_ns())
                call = dtx.Message(dtx.Kind.call, 0, "outputReceived:fromProcess:atTime:", arguments)
                self.connection.tell(self.code, call)

    def _ended(self, pid: int, code: int | None, number: int | None) -> None:
        with self.connection.order:
            if pid in self._observed:
                self._observed.discard(pid)
                name = "processWithPID:terminatedWithExitCode:orCrashingSignal:"
                self.connection.tell(self.code, dtx.Message(dtx.Kind.call, 0, name, (pid, code, number)))


def _not_launched(identifier: str, cause: Error) -> Error:
    text = f"Failed to launch process with bundle identifier '{identifier}': {cause.text}"
    return Error("com.apple.dt.deviceprocesscontrolservice", 2, text, cause)


class DeviceInfo(Channel):
    """What runs, and on what."""

    def methods(self) -> dict[str, Callable[..., Any]]:
        """What may be called."""
        processes = self.state.processes
        return {
            "runningProcesses": self._running,
            "isRunningPid:": lambda pid: processes.get(pid) is not None,
            "execnameForPid:": self._name,
            "sysmonProcessAttributes": lambda: list(PROCESS_ATTRIBUTES),
            "sysmonSystemAttributes": lambda: list(SYSTEM_ATTRIBUTES),
            "systemInformation": lambda: {"_deviceName": f"{PRODUCT} {self.state.identity.name}", "_version": VERSION},
            "hardwareInformation": lambda: {"numberOfCpus": os.cpu_count() or 1, "hwCPUtype": platform.machine()},
            "machKernelName": lambda: f"{PRODUCT} on {platform.system()}",
        }

    def close(self) -> None:
        """Nothing to end."""

    def _running(self) -> list[dict[str, Any]]:
        return [
            {
                "pid": each.pid,
                "name": each.app.name,
                "realAppName": each.app.program[0],
                "isApplication": True,
            }
            for each in self.state.processes.all()
        ]

    def _name(self, pid: int) -> str | Error:
        running = self.state.processes.get(pid)
        return running.app.program[0] if running else Error("NSPOSIXErrorDomain", 3, f"No such process: {pid}")


class SystemMonitor(Channel):
    """Tells at intervals what every app uses."""

    def __init__(self, connection: Connection, code: int) -> None:
        super().__init__(connection, code)
        self._interval_s = 1.0
        self._attributes: list[str] = []
        self._system: list[str] = []
        self._off = threading.Event()
        self._thread: threading.Thread | None = None

    def methods(self) -> dict[str, Callable[..., Any]]:
        """What may be called."""
        return {"setConfig:": self._configure, "start": self._start, "stop": self._stop}

    def close(self) -> None:
        """End the sampling."""
        self._off.set()  # its thread may wait for the very lock that is held here, so nobody waits for it

    def _configure(self, config: dict[str, Any]) -> None:
        wanted = [str(each) for each in config.get("procAttrs", ())]
        self._attributes = wanted
        self._system = [str(each) for each in config.get("sysAttrs", ())]
        self._interval_s = max(_LEAST_S, float(config.get("sampleInterval", 1e9)) / 1e9)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._sample, name="system monitor", daemon=True)
            self._thread.start()

    def _stop(self) -> None:
        self._off.set()

    def _sample(self) -> None:
        self._tell(TapMessage({"status": "started"}))  # what comes first is no sample, and clients skip it
        used: dict[int, float] = {}
        then = time.monotonic()
        while not self._off.wait(self._interval_s):
            now = time.monotonic()
            rows: dict[int, list[Any]] = {}
            load = 0.0
            for each in self.state.processes.all():
                use = usage(each.pid)
                if use is None:
                    continue
                values: dict[str, Any] = {
                    "pid": each.pid,
                    "name": each.app.name,
                    "cpuUsage": 100 * (use.cpu_s - used.get(each.pid, use.cpu_s)) / (now - then),
                    "physFootprint": use.footprint,
                    "memResidentSize": use.resident,
                    "memVirtualSize": use.virtual,
                    "threadCount": use.threads,
                }
                load += float(values["cpuUsage"])
                used[each.pid] = use.cpu_s
                rows[each.pid] = [values.get(name) for name in self._attributes]
            system = {"physMemSize": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}
            self._tell(
                [
                    {
                        "CPUCount": os.cpu_count() or 1,
                        "EnabledCPUs": os.cpu_count() or 1,
                        "SystemCPUUsage": {"CPU_TotalLoad": load},
                        "System": [system.get(name, 0) for name in self._system],
                        "StartMachAbsTime": int(then * 1e9),
                        "EndMachAbsTime": int(now * 1e9),
                        "Type": 33,
                    },
                    {
                        "Processes": rows,
                        "StartMachAbsTime": int(then * 1e9),
                        "EndMachAbsTime": int(now * 1e9),
                        "Type": 5,
                    },
                ]
            )
            then = now

    def _tell(self, value: Any) -> None:
        self.connection.tell(self.code, dtx.Message(dtx.Kind.value, 0, value))


CHANNELS: dict[str, Callable[[Connection, int], Channel]] = {
    f"{_PREFIX}processcontrol": ProcessControl,
    f"{_PREFIX}deviceinfo": DeviceInfo,
    f"{_PREFIX}sysmontap": SystemMonitor,
}
"""Services by the name that a channel is opened with."""


def serve(state: State, stream: Stream) -> None:
    """Developer services on one connection; raises `Ended`, `Malformed`."""
    Connection(state, stream).serve()
