"""A virtual iPhone: a usbmuxd with one device behind it, whose protocols are real and whose hardware is made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from meltrepro.atomic import remove
from meltrepro.errors import StoreError
from meltrepro.lab.iphone import lockdown, mux
from meltrepro.lab.iphone.apps import App
from meltrepro.lab.iphone.faults import NONE, Faults
from meltrepro.lab.iphone.services import SERVICES
from meltrepro.lab.iphone.state import State
from meltrepro.lab.iphone.stream import Stream
from meltrepro.lab.power import Power

RUNNER = "org.meltrepro.runner"
"""The app that measures."""
ARM = {"machine": "aarch64", "features": ["asimd", "asimddp", "asimdhp"]}
"""Programs of Linux that a phone may say it runs: those of the other virtual devices, emulated where it must be."""


class VirtualIphone:
    """One phone; its folder holds what it stores, whom it trusts, and the truth about what it draws."""

    def __init__(
        self,
        folder: Path,
        name: str = "iphone",
        power: Power | None = None,
        programs: Mapping[str, Any] | None = None,
    ) -> None:
        """`programs` is what it says of the programs of Linux that it runs; without, it is taken for a phone of Apple's."""
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.folder = folder
        self.power = power or Power()
        self._state = State(folder, name, self.power, programs)
        self._doors = lockdown.Doors()
        self._mux = mux.Mux(folder / "host", self.udid, self._state.mishaps, self._door)

    # -- how it is reached ------------------------------------------------------------------------------------------

    @property
    def udid(self) -> str:
        return self._state.identity.udid

    @property
    def address(self) -> str:
        """What USBMUXD_SOCKET_ADDRESS has to be, in the one form that every client reads."""
        return f"127.0.0.1:{self._mux.port}"

    # -- life -------------------------------------------------------------------------------------------------------

    def start(self, *, developer_image: bool = True) -> None:
        """Switch it on and plug it in; the image with the developer services is mounted, unless told otherwise."""
        self._state.image = developer_image
        self._state.processes.start()
        self._mux.attach()
        self._mux.start()

    def stop(self) -> None:
        """Switch it off at once: apps end, connections end; what it stored stays."""
        self._mux.stop()
        self._state.processes.stop()

    def erase(self) -> None:
        self.stop()
        with suppress(StoreError):
            remove(self.folder)

    def unplug(self) -> None:
        """Pull the cable: apps go on, connections end, and it is not listed."""
        self._mux.detach()

    def plug(self) -> None:
        self._mux.attach()

    def stop_usbmuxd(self) -> None:
        """Kill what hosts reach the phone by: every connection ends, the phone and its apps go on."""
        self._mux.stop()

    def start_usbmuxd(self) -> None:
        self._mux.start()

    # -- faults -----------------------------------------------------------------------------------------------------

    @property
    def faults(self) -> Faults:
        """What is wrong with it; may be set at any time."""
        return self._state.mishaps.now

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._state.mishaps.set(faults)

    def heal(self) -> None:
        self.faults = NONE

    # -- what is on it ----------------------------------------------------------------------------------------------

    def install(
        self, program: Sequence[str], identifier: str = RUNNER, *, sharing: bool = True, development: bool = True
    ) -> App:
        """Install an app that runs a program of this machine when it is launched."""
        return self._state.apps.put(identifier, program, sharing=sharing, development=development)

    def documents(self, identifier: str = RUNNER) -> Path:
        """The folder that an app shares; raises `KeyError` where it is not installed."""
        app = self._state.apps.get(identifier)
        if app is None:
            raise KeyError(identifier)
        return app.documents

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(self._state.hosts())

    def forget(self) -> None:
        """Trust nobody any more; hosts keep their records of the pairing."""
        for host in self.hosts:
            self._state.distrust(host)

    @property
    def running(self) -> dict[int, str]:
        return {each.pid: each.app.identifier for each in self._state.processes.all()}

    @property
    def crashes(self) -> Path:
        return self._state.crashes

    @property
    def truth(self) -> Path:
        """What it drew: a CSV file of intervals of CLOCK_MONOTONIC and their power."""
        return self._state.processes.truth

    @property
    def meter(self) -> Path:
        """A meter's CSV file: `unix_s`, and `energy_j` drawn since it was switched on."""
        return self._state.processes.meter

    # -- connections ------------------------------------------------------------------------------------------------

    def _door(self, port: int) -> Callable[[Stream], None] | None:
        if port == lockdown.PORT:
            return self._to_lockdown
        started = self._doors.enter(port)
        if started is None:
            return None
        return lambda stream: self._to_service(started, stream)

    def _to_lockdown(self, stream: Stream) -> None:
        stream.become("lockdownd")
        lockdown.Lockdown(self._state, SERVICES, self._doors).serve(stream)

    def _to_service(self, started: lockdown.Started, stream: Stream) -> None:
        stream.become(started.name)
        stream.secure(self._state.tls(started.host))
        started.serve(self._state, stream)
