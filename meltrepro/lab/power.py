"""How a virtual device draws power and warms up: simple, deterministic, and known to whoever measures it.

Power follows the CPU time that its programs use; the case is one thermal mass with one resistance to the air.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Body:
    idle_w: float = 0.8
    core_w: float = 2.2
    """What a busy core adds."""
    voltage_v: float = 4.0
    capacity_mah: float = 5000
    ambient_c: float = 24.0
    resistance_c_per_w: float = 4.0
    """How much warmer than the air it stays for every watt."""
    constant_s: float = 90.0
    """Time in which 63 % of a change of temperature have happened."""


@dataclass
class Power:
    body: Body = Body()
    charge_mah: float = 4000.0
    skin_c: float = 26.0
    power_w: float = 0.0
    energy_j: float = 0.0
    """Drawn since it was made: the truth that measurements are held against."""
    charging: bool = False

    def advance(self, seconds: float, busy_cores: float) -> None:
        body = self.body
        self.power_w = body.idle_w + body.core_w * busy_cores
        self.energy_j += self.power_w * seconds
        if not self.charging:
            self.charge_mah = max(0.0, self.charge_mah - self.current_ma * seconds / 3600)
        settles_c = body.ambient_c + body.resistance_c_per_w * self.power_w
        self.skin_c = settles_c + (self.skin_c - settles_c) * math.exp(-seconds / body.constant_s)

    @property
    def current_ma(self) -> float:
        return self.power_w / self.body.voltage_v * 1000

    @property
    def percent(self) -> float:
        return 100 * self.charge_mah / self.body.capacity_mah
