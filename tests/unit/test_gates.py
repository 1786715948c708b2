"""Gates: closed with the value last seen, open in the wanted state, never a wait for what cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.campaign.gates import GateClosed, closed, wait, watchdog
from meltrepro.manifest.protocol import Gates
from meltrepro.targets.base import Battery, DeviceState, Target

SECOND = 10**9
READY = DeviceState(
    wall_ns=0,
    monotonic_ns=0,
    temperatures_c={"cpu": 40.0, "skin": 30.0},
    governors={"cpu0": "performance", "cpu1": "performance"},
    cpu_idle_s=100.0,
    memory_available_bytes=4_000_000_000,
    battery=Battery(percent=80, charging=False),
)


def at(second: float, **changes: Any) -> DeviceState:
    return replace(READY, monotonic_ns=round(second * SECOND), **changes)


@dataclass
class Device:
    """A target whose looks are given; the last one stays."""

    looks: list[DeviceState]
    stopped: int = 0
    asked: int = 0

    def state(self) -> DeviceState:
        self.asked += 1
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def stop_strays(self) -> int:
        self.stopped += 1
        return 1


def target(device: Device) -> Target:
    """As gates see it: they ask for nothing else."""
    return cast("Target", device)


@dataclass
class Clock:
    """Time that passes only while somebody sleeps."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def waited(gates: Gates, looks: Iterable[DeviceState]) -> tuple[list[Sequence[str]], Device]:
    """What was told while waiting for a device."""
    device, clock = Device(list(looks)), Clock()
    told: list[Sequence[str]] = []
    wait(
        gates,
        target(device),
        2,
        lambda reasons, first: told.append([*reasons, *(["first"] if first else [])]),
        clock,
        clock.sleep,
    )
    return told, device


def test_nothing_asked_is_one_look_and_no_wait() -> None:
    assert waited(Gates(), [DeviceState(wall_ns=0, monotonic_ns=0)])[0] == []


@pytest.mark.parametrize(
    ("gates", "state", "reason"),
    [
        (Gates(temperature_c=35), at(0), "cpu has 40.0 degC, at most 35 wanted"),
        (Gates(free_memory_mb=5000), at(0), "4000 MB of memory are available, 5000 wanted"),
        (Gates(thermal_status=1), at(0, thermal_status=2), "the thermal status is 2, at most 1 wanted"),
        (Gates(governor="powersave"), at(0), "the CPU frequency governor is performance, powersave wanted"),
        (Gates(battery_percent=90), at(0), "the battery is at 80 %, at least 90 wanted"),
        (Gates(charging=True), at(0), "the battery is not charging, the opposite is wanted"),
    ],
)
def test_a_closed_gate_says_what_was_seen(gates: Gates, state: DeviceState, reason: str) -> None:
    assert closed(gates, [state], 2) == [reason]


@pytest.mark.parametrize(
    "gates",
    [
        Gates(temperature_c=40),
        Gates(free_memory_mb=4000),
        Gates(governor="performance"),
        Gates(battery_percent=80, charging=False),
    ],
)
def test_an_open_gate(gates: Gates) -> None:
    assert closed(gates, [at(0)], 2) == []


@pytest.mark.parametrize(
    ("gates", "missing"),
    [
        (Gates(temperature_c=40), {"temperatures_c": {}}),
        (Gates(temperature_steady_c=1), {"temperatures_c": {}}),
        (Gates(busy_cores=1), {"cpu_idle_s": None}),
        (Gates(free_memory_mb=1), {"memory_available_bytes": None}),
        (Gates(governor="x"), {"governors": {}}),
        (Gates(thermal_status=0), {"thermal_status": None}),
        (Gates(charging=True), {"battery": None}),
        (Gates(battery_percent=1), {"battery": Battery()}),
    ],
)
def test_what_cannot_be_read_is_not_waited_for(gates: Gates, missing: dict[str, Any]) -> None:
    (name,) = missing
    device = Device([at(0, **missing, unavailable={name: "it has no sensor"})])
    clock = Clock()
    with pytest.raises(GateClosed, match=f"a gate needs {name}, but it has no sensor"):
        wait(gates, target(device), 2, lambda reasons, first: None, clock, clock.sleep)
    assert clock.slept == []


def test_a_device_that_cools_down_is_waited_for() -> None:
    cooling = [at(second, temperatures_c={"cpu": 50.0 - 5 * second}) for second in range(5)]
    told, _ = waited(Gates(temperature_c=40), cooling)
    assert [reasons[0] for reasons in told[:-1]] == [
        "cpu has 50.0 degC, at most 40 wanted",
        "cpu has 45.0 degC, at most 40 wanted",
    ]
    assert told[0][-1] == "first"
    assert told[-1] == [], "and that it is over"


def test_a_temperature_that_only_looks_low_for_a_moment_is_not_steady() -> None:
    falling = [at(second, temperatures_c={"cpu": 60.0 - 2 * second}) for second in range(10)]
    calm = [at(10 + second, temperatures_c={"cpu": 41.0}) for second in range(10)]
    told, _ = waited(Gates(temperature_steady_c=1, steady_s=4), [*falling, *calm])
    assert "watched for 0 of 4 s" in told[0][0]
    assert "has changed by 8.0 degC in 4 s" in told[4][0]
    assert 12 <= len(told) <= 16


def test_work_of_others_is_counted_between_two_looks() -> None:
    looks = [at(0, cpu_idle_s=0.0), at(1, cpu_idle_s=0.5), at(2, cpu_idle_s=2.4)]
    told, _ = waited(Gates(busy_cores=0.2), looks)
    assert [reasons[:1] for reasons in told] == [
        ["how busy the CPUs are is being watched"],
        ["1.50 cores are busy, at most 0.2 wanted"],
        [],
    ]


def test_a_gate_that_stays_closed_fails_with_all_reasons() -> None:
    gates = Gates(temperature_c=30, governor="powersave", timeout_s=5)
    with pytest.raises(GateClosed, match=r"not ready after 5 s: cpu has 40\.0 degC.*; the CPU frequency governor"):
        waited(gates, [at(0)])


@given(st.lists(st.floats(20, 90), min_size=1, max_size=30), st.floats(25, 85))
def test_it_opens_at_the_first_look_that_is_cool_enough(temperatures: list[float], limit: float) -> None:
    looks = [at(i, temperatures_c={"cpu": value}) for i, value in enumerate(temperatures)]
    cool = [i for i, value in enumerate(temperatures) if value <= limit]
    gates = Gates(temperature_c=limit, timeout_s=1000)
    if cool:
        told, device = waited(gates, looks)
        assert device.asked == cool[0] + 1
        assert len(told) == (cool[0] + 1 if cool[0] else 0)
    else:
        with pytest.raises(GateClosed):
            waited(gates, looks)


PARKED = {"PMIC-Die": 100.0, "mtkts": 125.0, "modem": -273.0, "vbat": 4200.0}
"""No temperatures by their names or numbers."""
STILL = {"x:AUXTIN3": 115.0, "x:probe": 85.0}
"""No temperatures because they are at rest where no sensor at rest stays."""


def test_what_is_no_temperature_holds_no_gate_shut() -> None:
    gates = Gates(temperature_c=45, temperature_steady_c=1, steady_s=1)
    looks = [at(second, temperatures_c={"cpu": 41.5, **PARKED}) for second in range(3)]
    assert closed(gates, looks, 2) == []
    flicker = [*looks, at(4, temperatures_c={"cpu": 41.5, **PARKED, "modem": 33.0})]
    assert closed(gates, flicker, 2) == []
    assert closed(gates, [at(second, temperatures_c={"cpu": 41.5, **STILL}) for second in range(3)], 2) == []


@pytest.mark.parametrize(
    "temperatures",
    [[{"cpu": 100.0}] * 9, [{"cpu": 70.0, "skin": 30.0}] * 9, [{"cpu": 99.0}, {"cpu": 100.0}, {"cpu": 100.0}]],
    ids=["alone", "steady but possible", "moved"],
)
def test_a_hot_device_is_waited_for(temperatures: list[dict[str, float]]) -> None:
    looks = [at(second, temperatures_c=found) for second, found in enumerate(temperatures)]
    (reason,) = closed(Gates(temperature_c=45), looks, 2)
    assert reason.startswith("cpu has")


@pytest.mark.parametrize("parked", [PARKED, STILL], ids=["named or numbered so", "still"])
def test_the_watchdog_is_not_tripped_by_what_is_no_temperature(parked: dict[str, float]) -> None:
    calm = Device([at(0, temperatures_c={"cpu": 40.0, **parked})])
    with watchdog(target(calm), 80, every_s=0.001) as watch:
        while calm.asked < 5:
            pass
    assert (watch.reason, calm.stopped) == (None, 0)
    looks = [at(i, temperatures_c={"cpu": celsius, **parked}) for i, celsius in enumerate((40.0, 85.0))]
    hot = Device(looks)
    with watchdog(target(hot), 80, every_s=0.001) as watch:
        while not hot.stopped:
            pass
    assert watch.reason == "cpu had 85.0 degC, more than 80"


def test_a_sensor_that_leaves_its_place_is_watched_again() -> None:
    shown = (85.0, 85.0, 84.0, 85.0)
    device = Device([at(i, temperatures_c={"cpu": celsius, "skin": 30.0}) for i, celsius in enumerate(shown)])
    with watchdog(target(device), 84.5, every_s=0.001) as watch:
        while not device.stopped:
            pass
    assert watch.reason == "cpu had 85.0 degC, more than 84.5"
    assert not device.looks[1:], "and not before"
    alone = Device([at(0, temperatures_c={"cpu": 85.0})])
    with watchdog(target(alone), 80, every_s=0.001) as watch:
        while not alone.stopped:
            pass
    assert watch.reason == "cpu had 85.0 degC, more than 80", "the only one there is counts"


def test_the_watchdog_stops_what_gets_too_hot_and_nothing_else() -> None:
    hot = Device([at(0), at(1, temperatures_c={"cpu": 95.0})])
    with watchdog(target(hot), 90, every_s=0.001) as watch:
        while not hot.stopped:
            pass
    assert watch.reason == "cpu had 95.0 degC, more than 90"
    cool = Device([at(0)])
    with watchdog(target(cool), 90, every_s=0.001) as watch:
        while cool.asked < 5:
            pass
    assert (watch.reason, cool.stopped) == (None, 0)
    unasked = Device([at(0)])
    with watchdog(target(unasked), None):
        assert unasked.asked == 0
