"""The way to developer services from iOS 17 on: a tunnel, and behind it a directory of services (RSD).

NOT YET RUN ON APPLE HARDWARE: nothing simulates the tunnel itself.
"""

from __future__ import annotations

import contextlib
from typing import Any

_CLOSE_S = 5.0


class RsdTunnel:
    """First the tunnel of a `tunneld` that somebody runs, then one of this process, which needs no root.

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
        import asyncio

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
    import asyncio

    with contextlib.suppress(Exception):
        await asyncio.wait_for(closing, _CLOSE_S)
