"""Developer services, which the developer image brings: process control, what runs and how much of the phone it takes."""

from __future__ import annotations

import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from meltrepro.lab.iphone import dtx
from meltrepro.lab.iphone.archive import Error, TapMessage
from meltrepro.lab.iphone.channels import ServiceChannel, ServiceConnection
from meltrepro.lab.iphone.identity import PRODUCT, VERSION
from meltrepro.lab.iphone.processes import LaunchRefused, Processes, usage
from meltrepro.lab.iphone.state import State
from meltrepro.lab.iphone.stream import Stream

_LEAST_S, _MOST_S = 0.05, 3600.0
_PROCESS_ATTRIBUTES = ("pid", "name", "cpuUsage", "physFootprint", "memResidentSize", "memVirtualSize", "threadCount")
_SYSTEM_ATTRIBUTES = ("physMemSize", "netPacketsIn", "netPacketsOut")
_LAUNCH = "launchSuspendedProcessWithDevicePath:bundleIdentifier:environment:arguments:options:"


class ProcessControl(ServiceChannel):
    def __init__(self, connection: ServiceConnection, code: int) -> None:
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
        environment, arguments, options = environment or {}, arguments or [], options or {}
        if not isinstance(environment, dict) or not isinstance(arguments, list) or not isinstance(options, dict):
            raise TypeError("the environment and options are dictionaries, the arguments a list")
        try:
            pid = self._processes.launch(
                app,
                [str(each) for each in arguments],
                {str(name): str(value) for name, value in environment.items()},
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


class DeviceInfo(ServiceChannel):
    """What runs, and on what."""

    def methods(self) -> dict[str, Callable[..., Any]]:
        processes = self.state.processes
        return {
            "runningProcesses": self._running,
            "isRunningPid:": lambda pid: processes.get(pid) is not None,
            "execnameForPid:": self._name,
            "sysmonProcessAttributes": lambda: list(_PROCESS_ATTRIBUTES),
            "sysmonSystemAttributes": lambda: list(_SYSTEM_ATTRIBUTES),
            "systemInformation": lambda: {"_deviceName": f"{PRODUCT} {self.state.identity.name}", "_version": VERSION},
            "hardwareInformation": lambda: {"numberOfCpus": os.cpu_count() or 1, "hwCPUtype": platform.machine()},
            # Ticks of the uptime clock and what to multiply and divide them by; apps here have this machine's clock.
            "machTimeInfo": lambda: [time.monotonic_ns(), 1, 1],
            "machKernelName": lambda: f"{PRODUCT} on {platform.system()}",
        }

    def _running(self) -> list[dict[str, Any]]:
        return [
            {"pid": each.pid, "name": each.app.name, "realAppName": each.app.program[0], "isApplication": True}
            for each in self.state.processes.all()
        ]

    def _name(self, pid: int) -> str | Error:
        running = self.state.processes.get(pid)
        return running.app.program[0] if running else Error("NSPOSIXErrorDomain", 3, f"No such process: {pid}")


class SystemMonitor(ServiceChannel):
    """Tells at intervals what every app uses."""

    def __init__(self, connection: ServiceConnection, code: int) -> None:
        super().__init__(connection, code)
        self._interval_s = 1.0
        self._attributes: list[str] = []
        self._system: list[str] = []
        self._off = threading.Event()

    def methods(self) -> dict[str, Callable[..., Any]]:
        return {"setConfig:": self._configure, "start": self._start, "stop": self.close}

    def close(self) -> None:
        self._off.set()  # its thread may wait for the very lock that is held here, so nobody waits for it

    def _configure(self, config: dict[str, Any]) -> None:
        if not isinstance(config, dict):
            raise TypeError("a configuration is a dictionary")
        self._attributes = [str(each) for each in config.get("procAttrs", ())]
        self._system = [str(each) for each in config.get("sysAttrs", ())]
        self._interval_s = min(max(_LEAST_S, float(config.get("sampleInterval", 1e9)) / 1e9), _MOST_S)

    def _start(self) -> None:
        self._off.set()
        self._off = threading.Event()
        threading.Thread(target=self._sample, args=(self._off,), name="system monitor", daemon=True).start()

    def _sample(self, off: threading.Event) -> None:
        self._tell(TapMessage({"status": "started"}))  # what comes first is no sample, and clients skip it
        used: dict[int, float] = {}
        then = time.monotonic()
        while not off.wait(self._interval_s):
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
            times = {"StartMachAbsTime": int(then * 1e9), "EndMachAbsTime": int(now * 1e9)}
            system = {"physMemSize": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}
            self._tell(
                [
                    {
                        "CPUCount": os.cpu_count() or 1,
                        "EnabledCPUs": os.cpu_count() or 1,
                        "SystemCPUUsage": {"CPU_TotalLoad": load},
                        "System": [system.get(name, 0) for name in self._system],
                        **times,
                        "Type": 33,
                    },
                    {"Processes": rows, **times, "Type": 5},
                ]
            )
            then = now

    def _tell(self, value: Any) -> None:
        self.connection.tell(self.code, dtx.Message(dtx.Kind.value, 0, value))


_PREFIX = "com.apple.instruments.server.services."
CHANNELS: dict[str, Callable[[ServiceConnection, int], ServiceChannel]] = {
    f"{_PREFIX}processcontrol": ProcessControl,
    f"{_PREFIX}deviceinfo": DeviceInfo,
    f"{_PREFIX}sysmontap": SystemMonitor,
}
"""Services by the name that a channel is opened with."""


def serve(state: State, stream: Stream) -> None:
    """Developer services on one connection; raises `StreamEnded`, `Malformed`."""
    ServiceConnection(state, stream, CHANNELS).serve()
