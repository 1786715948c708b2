"""What a battery's raw numbers mean, found from made-up batteries whose truth is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.measure.calibration import UNITS_A, calibrate, calibrated
from meltrepro.targets.android.battery import parse
from meltrepro.targets.base import Reading, Source
from meltrepro.targets.remote.sensors import raw


def battery(
    drawn_a: float, unit_a: float, *, sign: int = 1, seconds: int = 60, step_uah: int = 100, voltage: int = 3_900_000
) -> list[Reading]:
    """Looks at a battery from which a constant current is drawn; its counter moves in steps."""
    return [
        Reading(
            t_s=100.0 + t,
            current=round(sign * drawn_a / unit_a),
            charge_uah=int((3_000_000 - drawn_a * t / 3600 * 1e6) // step_uah * step_uah),
            voltage=voltage,
            charging=False,
        )
        for t in range(seconds)
    ]


@given(
    st.sampled_from(UNITS_A[:3]),
    st.sampled_from([1, -1]),
    st.floats(0.3, 5),
    st.sampled_from([1, 10, 500]),
)
def test_unit_and_sign_are_found(unit_a: float, sign: int, drawn_a: float, step_uah: int) -> None:
    report = calibrate(battery(drawn_a, unit_a, sign=sign, step_uah=step_uah))
    assert report.calibrated, report.why
    assert report.current_a == sign * unit_a
    assert report.voltage_v == 1e-6


def test_millivolts() -> None:
    assert calibrate(battery(1, 1e-3, voltage=3900)).voltage_v == 1e-3


@pytest.mark.parametrize(
    ("readings", "why"),
    [
        ([], "not looked at for long enough"),
        (battery(1, 1e-6, seconds=1), "not looked at for long enough"),
        ([Reading(1, 5, 100, 4, True)], "on external power"),
        (battery(1, 1e-6, seconds=60, step_uah=100_000), "moved 1 times in 59 s"),
        (battery(-1, 1e-6), "rises while the device draws"),
        (battery(0.0, 1e-6), "moved 0 times"),
        ([Reading(t, 5, 100 - t, 4, True) for t in range(9)], "on external power"),
        ([Reading(t, None, 100 - t, 4, False) for t in range(9)], "does not show its battery's current"),
        ([Reading(t, 5, None, 4, False) for t in range(9)], "does not show a counter of charge"),
        (battery(1, 1e-6, voltage=13), "voltage is in no known unit"),
        ([Reading(t, 5, 100 + t % 2, 3900, False) for t in range(9)], "ended where it began"),
        ([Reading(t, 5, 100 - t, 3900, False, batteries=2) for t in range(9)], "several batteries"),
        (battery(1, 2.3e-5), "near no unit"),
    ],
)
def test_what_cannot_be_calibrated_is_not(readings: list[Reading], why: str) -> None:
    report = calibrate(readings)
    assert not report.calibrated
    assert why in report.why
    assert report.current_a is None


def test_sources_are_in_amperes_only_once_that_is_known() -> None:
    current = raw(Source("battery.current", "A", "gauge", "sys/current_now", scale=1e-6))
    level = Source("battery.level", "%", "gauge", "sys/capacity")
    assert (current.unit, current.scale) == ("raw", 1.0)
    assert calibrated([current, level], None) == (current, level)
    assert calibrated([current], calibrate([])) == (current,)
    (found,) = calibrated([current], calibrate(battery(1, 1e-3, sign=-1)))
    assert (found.name, found.unit, found.scale) == ("battery.drawn", "A", -1e-3)


SAID = """uptime=1234.56
online=0
current_now=-432000
voltage_now=3912000
status=Discharging
Current Battery Service state:
  AC powered: false
  USB powered: false
  Max charging voltage: 5000000
  Charge counter: 2793000
  current now: -431
  voltage: 3913
"""


def test_a_look() -> None:
    assert parse(SAID, "phone") == Reading(1234.56, -432000, 2793000, 3912000, False)


def test_a_look_where_the_kernel_shows_nothing() -> None:
    closed = "uptime=1234.56\n" + SAID[SAID.index("Current") :]
    assert parse(closed, "phone") == Reading(1234.56, -431, 2793000, 3913, False)


@pytest.mark.parametrize(
    "change",
    [
        ("online=0", "online=1"),
        (
            "Current Battery Service state:",
            "Current Battery Service state:\n  (UPDATES STOPPED -- use 'reset' to restart)",
        ),
        ("USB powered: false", "USB powered: true"),
        ("Discharging", "Charging"),
    ],
)
def test_external_power_is_noticed_by_any_sign(change: tuple[str, str]) -> None:
    assert parse(SAID.replace(*change), "phone").charging
