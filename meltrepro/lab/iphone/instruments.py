"""Developer services, which the developer image brings."""

from __future__ import annotations

from collections.abc import Callable

from meltrepro.lab.iphone.channels import Channel, Connection
from meltrepro.lab.iphone.control import ProcessControl
from meltrepro.lab.iphone.monitor import DeviceInfo, SystemMonitor
from meltrepro.lab.iphone.state import State
from meltrepro.lab.iphone.stream import Stream

_PREFIX = "com.apple.instruments.server.services."
CHANNELS: dict[str, Callable[[Connection, int], Channel]] = {
    f"{_PREFIX}processcontrol": ProcessControl,
    f"{_PREFIX}deviceinfo": DeviceInfo,
    f"{_PREFIX}sysmontap": SystemMonitor,
}
"""Services by the name that a channel is opened with."""


def serve(state: State, stream: Stream) -> None:
    """Developer services on one connection; raises `Ended`, `Malformed`."""
    Connection(state, stream, CHANNELS).serve()
