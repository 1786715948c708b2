"""Which tunnel is taken from iOS 17 on. The tunnels themselves are made up: nothing simulates a real one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meltrepro.targets.ios.usbmux import RsdTunnel

UDID = "00008110-001A2B3C4D5E6F70"


class Provider:
    closed = 0

    async def close(self) -> None:
        self.closed += 1


class Userspace:
    """A tunnel of this process."""

    made: list[Userspace]

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.closed = 0
        Userspace.made.append(self)

    async def aopen(self) -> str:
        return "own"

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    errors = pytest.importorskip("pymobiledevice3.exceptions")
    answers: dict[str, Any] = {"tunneld": errors.TunneldConnectionError()}

    async def by_udid(udid: str) -> Any:
        assert udid == UDID
        if isinstance(answers["tunneld"], Exception):
            raise answers["tunneld"]
        return answers["tunneld"]

    Userspace.made = []
    monkeypatch.setattr("pymobiledevice3.tunneld.api.get_tunneld_device_by_udid", by_udid)
    monkeypatch.setattr("pymobiledevice3.remote.userspace_tunnel.UserspaceRsdTunnel", Userspace)
    return answers


async def again(tunnel: RsdTunnel) -> Any:
    tunnel.abort()
    await asyncio.sleep(0.01)
    return await tunnel.provider(UDID)


def test_the_one_that_somebody_runs_comes_first(library: dict[str, Any]) -> None:
    library["tunneld"] = provider = Provider()

    async def twice() -> None:
        tunnel = RsdTunnel()
        assert await tunnel.provider(UDID) is provider
        assert await tunnel.provider(UDID) is provider
        library["tunneld"] = other = Provider()
        assert await again(tunnel) is other, "a new tunnel is elsewhere"
        assert (provider.closed, other.closed) == (1, 0)

    asyncio.run(twice())
    assert not Userspace.made


@pytest.mark.parametrize("absent", [None, "nobody runs one"])
def test_else_one_of_this_process_that_asks_nobody_for_trust(library: dict[str, Any], absent: str | None) -> None:
    if absent is None:
        library["tunneld"] = None

    async def twice() -> None:
        tunnel = RsdTunnel()
        assert await tunnel.provider(UDID) == "own"
        assert await again(tunnel) == "own"

    asyncio.run(twice())
    first, second = Userspace.made
    assert first.options == {"serial": UDID, "autopair": False, "remotepairing_fallback": False}
    assert (first.closed, second.closed) == (1, 0), "a process can have one at a time"
