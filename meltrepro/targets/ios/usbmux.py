"""iPhones behind usbmuxd, by pymobiledevice3: the one module, with `dvt.py`, that knows it. It is imported late.

The library reads USBMUXD_SOCKET_ADDRESS in places where it forgets the address that it was given (when it saves a new
pairing), so the variable holds ours while it connects; it keeps pairings in the user's home unless told otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from meltrepro.errors import TargetError
from meltrepro.targets.ios import errors as ios_errors
from meltrepro.targets.ios.link import Afc, Instruments, Tunnel
from meltrepro.untrusted import whole_number

ADDRESS = "USBMUXD_SOCKET_ADDRESS"
_ASSERTION = "PreventUserIdleSystemSleep"
_NEEDS_TUNNEL = 17
_MOUNT_S = 300.0
_CLOSE_S = 5.0
_APP_FIELDS = (
    "CFBundleIdentifier",
    "CFBundleExecutable",
    "CFBundleName",
    "CFBundleShortVersionString",
    "CFBundleVersion",
)


def plain_address(text: str | None) -> str | None:
    """An address of usbmuxd in the only two forms that the library understands: a path, or HOST:PORT.

    Others write `UNIX:/path` and `unix:///path`. Raises `TargetError` for anything else.
    """
    if not text:
        return None
    path = re.fullmatch(r"(?i)unix:(?://)?(/.*)", text)
    text = path[1] if path else text
    if re.fullmatch(r"/[^:]+", text) or re.fullmatch(r"[^:/\s]+:[0-9]{1,5}", text):
        return text
    raise TargetError(
        f"{ADDRESS}: expected HOST:PORT or the path of a socket, got {text!r}", hint="127.0.0.1:27015, say"
    )


async def attached(address: str | None) -> Sequence[str]:
    """UDIDs of the phones that usbmuxd shows."""
    usbmux = _library("usbmux")
    devices = await usbmux.list_devices(usbmux_address=plain_address(address or os.environ.get(ADDRESS)))
    return list(dict.fromkeys(device.serial for device in devices))  # one that is also on the network is shown twice


class UsbmuxServices:
    """One phone. Files always go by lockdownd's services, from iOS 17 on too: tunnels are slow where models go."""

    def __init__(self, udid: str, records: Path, address: str | None = None, tunnel: Tunnel | None = None) -> None:
        """`records` is where pairings are kept; `tunnel` leads to developer services from iOS 17 on."""
        self.udid = udid
        self.version: int | None = None
        self._records = records
        self._address = plain_address(address or os.environ.get(ADDRESS))
        self._tunnel = tunnel
        self._lockdown: Any = None
        self._instruments: Any = None
        self._awake: Any = None
        """What keeps the phone awake as long as its connection lives."""
        self._connecting = asyncio.Lock()
        """Two threads may ask at once, of which one would leave a session behind."""
        self._open: list[Any] = []
        """Service objects whose connections may be open."""

    # -- lockdownd ------------------------------------------------------------------------------------------------

    async def values(self, domain: str | None = None) -> Mapping[str, Any]:
        lockdown = await self._paired()
        if domain is None:
            found = await lockdown.get_value()
        else:
            found = await lockdown.get_value(domain=domain)
        return found if isinstance(found, dict) else {}

    async def pair(self, timeout_s: float) -> None:
        async with self._connecting:
            self.abort()
            await self._connect(pair_s=timeout_s)

    async def apps(self) -> Mapping[str, Mapping[str, Any]]:
        module = _library("services.installation_proxy")
        service = module.InstallationProxyService(await self._paired())
        async with self._using(service):
            found = await service.lookup({"ApplicationType": "User", "ReturnAttributes": list(_APP_FIELDS)})
            return found or {}

    async def install(self, package: str) -> None:
        """By our own words: the library's would read the package into memory and draw a bar on the terminal."""
        module = _library("services.installation_proxy")
        service = module.InstallationProxyService(await self._paired())
        async with self._using(service):
            await service.service.send_plist(
                {"Command": "Install", "PackagePath": package, "ClientOptions": {"PackageType": "Developer"}}
            )
            while True:
                said = await service.service.recv_plist()
                if error := said.get("Error"):
                    raise RuntimeError(f"{error}: {said.get('ErrorDescription', '')}")
                if said.get("Status") == "Complete":
                    return

    async def battery(self) -> Mapping[str, Any]:
        module = _library("services.diagnostics")
        service = module.DiagnosticsService(await self._paired())
        async with self._using(service):
            found = await service.get_battery()
            return found if isinstance(found, dict) else {}

    async def documents(self, app: str) -> Afc:
        """The whole container where the app is signed for development, else the documents that it shares."""
        house = _library("services.house_arrest").HouseArrestService
        errors = _library("exceptions")
        lockdown = await self._paired()
        try:
            service = await house.create(lockdown, app, documents_only=False)
        except errors.AppNotInstalledError:
            raise
        except errors.PyMobileDevice3Exception as error:
            if "InstallationLookupFailed" not in str(error):
                raise
            service = await house.create(lockdown, app, documents_only=True)  # on a new connection
        return self._keep(service)

    async def media(self) -> Afc:
        return await self._afc(None)

    async def crash_files(self) -> Afc:
        """The phone first moves what it has gathered to where hosts may look."""
        lockdown = await self._paired()
        with contextlib.suppress(asyncio.TimeoutError):
            mover = await lockdown.start_lockdown_service("com.apple.crashreportmover")
            try:
                await asyncio.wait_for(mover.recvall(5), 5)
            finally:
                _sever(mover)
        return await self._afc("com.apple.crashreportcopymobile")

    async def keep_awake(self, seconds: float) -> None:
        service = _library("services.power_assertion").PowerAssertionService(await self._paired())
        # The library lets go of it when its block ends; it is kept for as long as the connection lives.
        await service.service.send_recv_plist(
            {
                "CommandKey": "CommandCreateAssertion",
                "AssertionTypeKey": _ASSERTION,
                "AssertionNameKey": "meltrepro",
                "AssertionTimeoutKey": seconds,
            }
        )
        former, self._awake = self._awake, self._keep(service)
        if former is not None:
            self.close(former)

    # -- developer services ---------------------------------------------------------------------------------------

    async def instruments(self) -> Instruments:
        lockdown = await self._paired()
        async with self._connecting:
            return await self._opened(lockdown)

    async def _opened(self, lockdown: Any) -> Instruments:
        if self._instruments is not None and self._instruments.alive:
            return self._instruments  # type: ignore[no-any-return]
        from meltrepro.targets.ios.dvt import DvtInstruments

        if (self.version or 0) < _NEEDS_TUNNEL:
            self._instruments = await self._classic(DvtInstruments, lockdown)
        elif self._tunnel is None:
            raise TargetError(f"iOS {self.version}: no way to its developer services", hint=ios_errors.TUNNEL)
        else:
            self._instruments = await DvtInstruments.open(await self._tunnel.provider(self.udid))
        return self._instruments  # type: ignore[no-any-return]

    async def _classic(self, opener: Any, lockdown: Any) -> Any:
        """Open them through lockdownd; where the phone lacks the developer disk image it is put there first."""
        errors = _library("exceptions")
        try:
            return await opener.open(lockdown)
        except errors.InvalidServiceError:
            if (self.version or 0) >= 16 and not await lockdown.get_developer_mode_status():
                raise TargetError("Developer Mode is off", hint=ios_errors.MODE) from None
            mounter = _library("services.mobile_image_mounter")
            with contextlib.suppress(errors.AlreadyMountedError):
                await asyncio.wait_for(mounter.auto_mount(lockdown), _MOUNT_S)
            return await opener.open(lockdown)

    # -- connections ----------------------------------------------------------------------------------------------

    async def _paired(self) -> Any:
        """The session with lockdownd; raises where the phone does not trust this computer."""
        async with self._connecting:
            if self._lockdown is None:
                await self._connect(pair_s=None)
            return self._lockdown

    async def _connect(self, pair_s: float | None) -> None:
        """`pair_s`: how long to wait for the user, `None` not to ask at all; the library itself would wait for ever."""
        lockdown = _library("lockdown")
        self._records.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with _environment(self._address):
            client = await lockdown.create_using_usbmux(
                serial=self.udid,
                autopair=pair_s is not None,
                pair_timeout=0.0 if pair_s is None else pair_s,
                pairing_records_cache_folder=self._records,
                usbmux_address=self._address,
            )
        self.version = _major(client.product_version)
        if not client.paired:  # a pairing that the phone has forgotten is no error to the library
            _sever(client)
            raise _library("exceptions").NotPairedError
        self._lockdown = client

    async def _afc(self, name: str | None) -> Afc:
        service = _library("services.afc").AfcService(await self._paired(), service_name=name)
        await service.connect()
        return self._keep(service)

    def _keep(self, service: Any) -> Afc:
        self._open.append(service)
        kept: Afc = service
        return kept

    @contextlib.asynccontextmanager
    async def _using(self, service: Any) -> AsyncIterator[None]:
        self._keep(service)
        try:
            yield
        finally:
            self.close(service)

    def close(self, afc: Any) -> None:
        if afc in self._open:
            self._open.remove(afc)
        _sever(afc)

    def abort(self) -> None:
        for each in (*self._open, self._lockdown):
            if each is not None:
                _sever(each)
        self._open.clear()
        self._lockdown = self._awake = None
        if self._instruments is not None:
            self._instruments.abort()
            self._instruments = None
        if self._tunnel is not None:
            self._tunnel.abort()


_guard: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}


@contextlib.asynccontextmanager
async def _environment(address: str | None) -> AsyncIterator[None]:
    """Have the variable say where usbmuxd is while the library connects: one connects at a time."""
    lock = _guard.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with lock:
        before = os.environ.get(ADDRESS)
        if address is not None:
            os.environ[ADDRESS] = address
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(ADDRESS, None)
            else:
                os.environ[ADDRESS] = before


def _sever(thing: Any) -> None:
    """Close the connection of a client, service or connection at once: a polite goodbye would wait for the phone."""
    for name in ("_service", "service"):
        inner = getattr(thing, name, None)
        if inner is not None and hasattr(inner, "writer"):
            thing = inner
            break
    writer = getattr(thing, "writer", None)
    if writer is not None:
        with contextlib.suppress(Exception):
            writer.transport.abort()


def _major(version: str) -> int | None:
    return whole_number(version.partition(".")[0])


@lru_cache
def _library(name: str) -> Any:
    """A module of pymobiledevice3; raises `TargetError` where it is not installed."""
    from importlib import import_module

    # What it has to say is in its exceptions; its log would put tracebacks on the terminal as well.
    logging.getLogger("pymobiledevice3").addHandler(logging.NullHandler())
    try:
        return import_module(f"pymobiledevice3.{name}")
    except ModuleNotFoundError as error:
        raise ios_errors.missing() from error


class RsdTunnel:
    """The way to developer services from iOS 17 on. NOT YET RUN ON APPLE HARDWARE: nothing simulates the tunnel itself.

    First the tunnel of a `tunneld` that somebody runs, then one of this process, which needs no root.

    A process can have one tunnel of its own, so that several phones with iOS 17 or later need a `tunneld`.
    """

    def __init__(self) -> None:
        self._provider: Any = None
        self._own: Any = None

    async def provider(self, udid: str) -> Any:
        """What starts services through the tunnel; where it is asks each time, since a new tunnel is elsewhere."""
        if self._provider is None:
            self._provider = await self._tunneld(udid) or await self._userspace(udid)
        return self._provider

    def abort(self) -> None:
        """Forget the tunnel."""
        own, provider, self._own, self._provider = self._own, self._provider, None, None
        closing = own.aclose() if own is not None else provider.close() if provider is not None else None
        if closing is not None:
            task = asyncio.get_running_loop().create_task(_within(closing))
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    async def _tunneld(self, udid: str) -> Any:
        from pymobiledevice3.exceptions import TunneldConnectionError
        from pymobiledevice3.tunneld.api import get_tunneld_device_by_udid

        with contextlib.suppress(TunneldConnectionError):
            return await get_tunneld_device_by_udid(udid)
        return None

    async def _userspace(self, udid: str) -> Any:
        from pymobiledevice3.remote.userspace_tunnel import UserspaceRsdTunnel

        # Another kind of pairing would be asked for over the network, and kept in the user's home.
        own = UserspaceRsdTunnel(serial=udid, autopair=False, remotepairing_fallback=False)
        provider = await own.aopen()
        self._own = own
        return provider


_closing: set[Any] = set()
"""Held until they are done: the loop itself keeps no hold of its tasks."""


async def _within(closing: Any) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(closing, _CLOSE_S)
