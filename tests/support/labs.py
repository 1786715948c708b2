"""Devices of labs of many hosts that are nowhere."""

from __future__ import annotations

from meltrepro.hosts.wire import Offer, OfferedDevice
from meltrepro.targets.base import DeviceFacts


def offer(node: str, device: str, kind: str = "android", model: str = "Phone", **facts: str) -> Offer:
    """What a node says of a device."""
    known = DeviceFacts(device, kind, model, "aarch64", frozenset(), 8, 8 << 30, 1 << 40, facts=facts)
    entry = {"kind": kind, "serial": device} if kind == "android" else {"kind": kind}
    return Offer(node, entry, known, device)


def offered(node: str, device: str, *, there: bool = True, **how: str) -> OfferedDevice:
    """The same as a head knows it."""
    return OfferedDevice(offer(node, device, **how), there, 0.0)
