"""Gates: a trial begins when the device is in the state that the manifest asks for, not after some time.

What is asked for and cannot be read fails at once: waiting would not help. A watchdog looks after the device while a
trial runs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from meltrepro.errors import MeltreproError, TargetError
from meltrepro.manifest.protocol import Gates
from meltrepro.measure.validity import BUSY
from meltrepro.record import temperature
from meltrepro.targets.base import DeviceState, Target
from meltrepro.targets.presence import driving

_T = TypeVar("_T")
Waiting = Callable[[Sequence[str], bool], None]
"""Hears which gates are closed, and whether it is for the first time; no gates when all have opened."""
_WATCH_EVERY_S = 1.0
_FEWEST_LOOKS = 3
"""Before a sensor that has not moved may be one that shows nothing."""


class GateClosed(MeltreproError):
    """A device did not get into the state that a trial asks for."""

    exit_code = TargetError.exit_code


def closed(gates: Gates, states: Sequence[DeviceState], cores: int) -> list[str]:
    """Which gates are closed, each with the value last seen; `states` are the looks so far, oldest first.

    Raises `GateClosed` where the device does not say what is asked for.
    """
    now = states[-1]
    reasons = []
    if gates.temperature_c is not None:
        looks = [state.temperatures_c for state in states]
        name, hottest = _hottest(now, temperature.parked(looks) if len(looks) >= _FEWEST_LOOKS else set())
        if hottest > gates.temperature_c:
            reasons.append(f"{name} has {hottest:.1f} degC, at most {gates.temperature_c:g} wanted")
    if gates.temperature_steady_c is not None:
        _hottest(now)
        reasons += _unsteady(gates.temperature_steady_c, gates.steady_s, states)
    if gates.busy_cores is not None:
        reasons += _busy(gates.busy_cores, states, cores)
    if gates.free_memory_mb is not None:
        free_mb = _known(now, "memory_available_bytes", now.memory_available_bytes) / 1e6
        if free_mb < gates.free_memory_mb:
            reasons.append(f"{free_mb:.0f} MB of memory are available, {gates.free_memory_mb:g} wanted")
    if gates.governor is not None:
        found = set(_known(now, "governors", now.governors or None).values())
        if found != {gates.governor}:
            reasons.append(f"the CPU frequency governor is {', '.join(sorted(found))}, {gates.governor} wanted")
    if gates.thermal_status is not None:
        status = _known(now, "thermal_status", now.thermal_status)
        if status > gates.thermal_status:
            reasons.append(f"the thermal status is {status}, at most {gates.thermal_status} wanted")
    return reasons + _battery(gates, now)


def wait(
    gates: Gates,
    target: Target,
    cores: int,
    tell: Waiting,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when every gate is open; `tell` hears which are closed after each look, and of none where it had to wait.

    Raises `GateClosed` after `timeout_s`, and what `closed` and the target raise.
    """
    began = clock()
    states: deque[DeviceState] = deque()
    first = True
    while True:
        states.append(target.state())
        while len(states) > 2 and _age_s(states[1], states[-1]) >= gates.steady_s:
            states.popleft()  # one look is kept that is older than the time over which things must be steady
        reasons = closed(gates, list(states), cores)
        if not reasons:
            if not first:
                tell(reasons, False)
            return
        if clock() - began >= gates.timeout_s:
            raise GateClosed(
                f"not ready after {gates.timeout_s:g} s: {'; '.join(reasons)}",
                hint="mend that, ask for less in protocol.gates, or wait longer (protocol.gates.timeout_s)",
            )
        tell(reasons, first)
        first = False
        sleep(gates.poll_s)


@dataclass
class Watch:
    """What a watchdog has seen."""

    reason: str | None = None
    """Why it stopped the trial."""
    _stop: threading.Event = field(default_factory=threading.Event)


@contextmanager
def watchdog(target: Target, abort_above_c: float | None, every_s: float = _WATCH_EVERY_S) -> Iterator[Watch]:
    """While the block runs, stop what runs on the device when any sensor is hotter than `abort_above_c`.

    Not by one that is parked there before the block and never leaves, where there are others. Raises what the target raises.
    """
    watch = Watch()
    if abort_above_c is None:
        yield watch
        return

    calm = target.state().temperatures_c

    def look() -> None:
        parked = temperature.parked([calm])
        while not watch._stop.wait(every_s):
            try:
                with driving("watchdog"):
                    state = target.state()
            except MeltreproError:
                continue  # the trial itself finds out whether the device is lost
            parked &= temperature.parked([calm, state.temperatures_c])
            if temperature.plausible(state.temperatures_c):
                name, hottest = _hottest(state, parked)
                if hottest > abort_above_c:
                    watch.reason = f"{name} had {hottest:.1f} degC, more than {abort_above_c:g}"
                    target.stop_strays()
                    return

    thread = threading.Thread(target=look, name="watchdog", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch._stop.set()
        thread.join()


def _hottest(state: DeviceState, parked: Set[str] = frozenset()) -> tuple[str, float]:
    """Of the sensors that show a temperature the hottest; of those that are parked only where there are no others."""
    found = temperature.plausible(state.temperatures_c)
    moving = {name: value for name, value in found.items() if name not in parked}
    temperatures = _known(state, "temperatures_c", moving or found or None)
    return max(temperatures.items(), key=lambda item: item[1])


def _known(state: DeviceState, name: str, value: _T | None) -> _T:
    if value is None:
        why = state.unavailable.get(name, "the device does not say")
        raise GateClosed(f"a gate needs {name}, but {why}", hint="take the gate out of protocol.gates")
    return value


def _unsteady(limit_c: float, over_s: float, states: Sequence[DeviceState]) -> list[str]:
    now = states[-1]
    seen_s = _age_s(states[0], now)
    if seen_s < over_s:
        return [f"temperatures have been watched for {seen_s:.0f} of {over_s:g} s"]
    reasons = []
    looks = [temperature.plausible(state.temperatures_c) for state in states]
    for name, value in looks[-1].items():
        others = [look[name] for look in looks if name in look]
        change = max(abs(value - other) for other in others)
        if change > limit_c:
            reasons.append(f"{name} has changed by {change:.1f} degC in {seen_s:.0f} s, at most {limit_c:g} wanted")
    return reasons


def busy_cores(before: DeviceState, now: DeviceState, cores: int) -> float | None:
    """CPU time that was used between two looks, in cores; `None` where the device does not tell."""
    passed = _age_s(before, now)
    if before.cpu_idle_s is None or now.cpu_idle_s is None or passed <= 0:
        return None
    return max(0.0, cores - (now.cpu_idle_s - before.cpu_idle_s) / passed)


def overfull(busy: float, threads: int, cores: int) -> bool:
    """Whether so many cores that others keep busy leave a trial too few, by the share that makes it INVALID."""
    return busy + min(threads, cores) > cores + BUSY


def _busy(limit: float, states: Sequence[DeviceState], cores: int) -> list[str]:
    _known(states[-1], "cpu_idle_s", states[-1].cpu_idle_s)
    if len(states) < 2:
        return ["how busy the CPUs are is being watched"]
    busy = busy_cores(states[-2], states[-1], cores) or 0.0
    return [f"{busy:.2f} cores are busy, at most {limit:g} wanted"] if busy > limit else []


def _battery(gates: Gates, now: DeviceState) -> list[str]:
    reasons: list[str] = []
    if gates.battery_percent is None and gates.charging is None:
        return reasons
    battery = _known(now, "battery", now.battery)
    if gates.battery_percent is not None:
        percent = _known(now, "battery", battery.percent)
        if percent < gates.battery_percent:
            reasons.append(f"the battery is at {percent:g} %, at least {gates.battery_percent:g} wanted")
    if gates.charging is not None and _known(now, "battery", battery.charging) != gates.charging:
        reasons.append(f"the battery is {'charging' if battery.charging else 'not charging'}, the opposite is wanted")
    return reasons


def _age_s(earlier: DeviceState, later: DeviceState) -> float:
    return (later.monotonic_ns - earlier.monotonic_ns) / 1e9
