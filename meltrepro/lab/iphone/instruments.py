"""Developer services, which the developer image brings: process control here, what watches programs in `monitor`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from meltrepro.lab.iphone import dtx
from meltrepro.lab.iphone.archive import Error
from meltrepro.lab.iphone.channels import ServiceChannel, ServiceConnection
from meltrepro.lab.iphone.monitor import DeviceInfo, SystemMonitor
from meltrepro.lab.iphone.processes import LaunchRefused, Processes
from meltrepro.lab.iphone.state import State
from meltrepro.lab.iphone.stream import Stream

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
