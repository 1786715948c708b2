"""What the toolkit needs of an iPhone's services, whoever speaks their protocols: asynchronous, without deadlines.

`usbmux.py` implements them by pymobiledevice3 for every version of iOS; `phone.py` gives them deadlines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class ProcessExit:
    """How a process ended: one of the two, or neither where nobody knows."""

    code: int | None = None
    signal: int | None = None


class Afc(Protocol):
    """One connection to a file service; paths are below what it shows."""

    async def fopen(self, filename: str, mode: str = "r") -> int: ...

    async def fclose(self, handle: int) -> object: ...

    async def fread(self, handle: int, sz: int) -> bytes: ...

    async def fwrite(self, handle: int, data: bytes) -> None: ...

    async def stat(self, filename: str) -> dict[str, Any]: ...

    async def listdir(self, filename: str) -> list[str]: ...

    async def makedirs(self, filename: str) -> object: ...

    async def rename(self, source: str, target: str) -> None: ...

    async def rm_single(self, filename: str, force: bool = False) -> bool: ...

    async def get_device_info(self) -> Mapping[str, str]: ...


class Instruments(Protocol):
    """Developer services: programs, clock and memory."""

    async def launch(self, app: str, environment: Mapping[str, str]) -> int:
        """Start an app, or find the one that runs; returns its process id."""
        ...

    async def pid(self, app: str) -> int:
        """The process of an app; 0 where it does not run."""
        ...

    async def watch(self, pid: int) -> bool:
        """Have the phone tell when a process ends; returns whether it was not yet asked to."""
        ...

    async def ended(self, pid: int) -> ProcessExit:
        """Wait until a process that is watched has ended."""
        ...

    async def kill(self, pid: int) -> None: ...

    async def clock_ns(self) -> int:
        """The phone's uptime clock (`CLOCK_UPTIME_RAW`, that is `mach_absolute_time`)."""
        ...

    async def hardware(self) -> Mapping[str, Any]: ...

    async def memory_bytes(self) -> int | None:
        """The phone's memory; `None` where it does not say."""
        ...

    async def footprint(self, pid: int) -> int | None:
        """Bytes that a process is charged for; `None` where it is not seen."""
        ...

    def abort(self) -> None:
        """Close everything at once, in the loop's thread."""
        ...


class Services(Protocol):
    """One phone and how its services are reached. What one of them raises may be any exception."""

    @property
    def udid(self) -> str: ...

    @property
    def version(self) -> int | None:
        """Major version of iOS, once it is known."""
        ...

    async def values(self, domain: str | None = None) -> Mapping[str, Any]:
        """What lockdownd tells, in one domain or in none."""
        ...

    async def pair(self, timeout_s: float) -> None: ...

    async def apps(self) -> Mapping[str, Mapping[str, Any]]:
        """Apps of the user by bundle id."""
        ...

    async def install(self, package: str) -> None:
        """Install a package that lies in the media folder."""
        ...

    async def battery(self) -> Mapping[str, Any]: ...

    async def documents(self, app: str) -> Afc:
        """The container of an app; its documents are in the folder `Documents`."""
        ...

    async def media(self) -> Afc: ...

    async def crash_files(self) -> Afc:
        """Crash reports, those that the phone has not put there yet included."""
        ...

    async def instruments(self) -> Instruments:
        """Developer services, kept open; from iOS 17 on through a tunnel."""
        ...

    async def keep_awake(self, seconds: float) -> None:
        """Ask the phone not to sleep by itself for so long, or until the connection ends."""
        ...

    def close(self, afc: Afc) -> None:
        """Close one connection to files, in the loop's thread, without waiting for the phone."""
        ...

    def abort(self) -> None:
        """Close all connections at once, in the loop's thread; what is asked next opens new ones."""
        ...


class Tunnel(Protocol):
    """The way to developer services from iOS 17 on."""

    async def provider(self, udid: str) -> Any:
        """What starts services through the tunnel; opens it where it is not open."""
        ...

    def abort(self) -> None:
        """Forget the tunnel; what is asked next opens it anew, since its address changes when it is lost."""
        ...
