"""What tells devices apart and brings them into an order."""

from __future__ import annotations

import math
import re

from meltrepro.report.results import Device

DeviceKey = tuple[bool, str, float, str, str]
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*w", re.IGNORECASE)


def device_key(device: Device) -> DeviceKey:
    """The same for the same device in the same power mode; real devices and small budgets come first."""
    mode = device.power_mode or ""
    return device.virtual, device.name, budget_w(mode), mode, device.id or device.model


def budget_w(mode: str) -> float:
    """Watts in a power mode's name; infinite for one without, such as MAXN."""
    found = _BUDGET.search(mode)
    return float(found[1]) if found else math.inf
