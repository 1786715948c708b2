"""Power that no such device draws has another unit than the one it is said to have; said for every unit and either direction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.manifest.meters import Meter, MeterUnit
from meltrepro.manifest.protocol import Limits
from meltrepro.measure.energy import energy, supply_of
from meltrepro.measure.integrals import NoValue, SampleLimits
from meltrepro.measure.meterfile import read_meter
from meltrepro.measure.metering import Metered
from meltrepro.measure.metrics import Metrics, compute
from meltrepro.measure.validity import Reason, judge_trial
from meltrepro.record.samples import Header, Recording
from meltrepro.record.series import SensorChannel, SensorSeries
from meltrepro.registry import TARGETS
from tests.support.meters import Clock, marked_trace, rows
from tests.support.power import span

PHONE_W = TARGETS.get("android").most_w(8)
TRACE = marked_trace()
SAMPLES = rows(TRACE, Clock(), 10_000_000)
MOST = max(watts for _, watts in SAMPLES)


def metered(folder: Path, columns: dict[str, MeterUnit], factor: float, scale: float = 1.0) -> Metered:
    """What a meter of the device's own clock shows, its power in columns P, I and U, its energy in E, times `factor`."""
    lines, joules, before = ["t,P,I,U,E"], 0.0, SAMPLES[0][0]
    for t, watts in SAMPLES:
        watts *= scale
        joules, before = joules + watts * (t - before) / 1e9, t
        lines.append(f"{t},{watts * factor:.9g},{watts / 5 * factor:.9g},{5 + t % 7 / 1000},{joules * factor:.12g}")
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    meter = Meter(file="m.csv", time="t", time_unit="ns", clock="device", columns=columns)
    return Metered(read_meter(folder / "m.csv", meter))


def judged(found: Metered, own: Recording | None = None, most_w: float | None = PHONE_W) -> tuple[Metrics, list[str]]:
    metrics = compute(TRACE, own, found, most_w)
    findings = judge_trial(TRACE, metrics, None, Limits(), found).findings
    return metrics, [finding.detail for finding in findings if finding.reason is Reason.implausible_power]


@pytest.mark.parametrize(
    ("columns", "factor"),
    [
        ({"P": "W"}, 1), ({"P": "mW"}, 1e3), ({"P": "uW"}, 1e6), ({"P": "kW"}, 1e-3),
        ({"I": "A", "U": "V"}, 1), ({"I": "mA", "U": "V"}, 1e3), ({"I": "uA", "U": "V"}, 1e6),
        ({"E": "J"}, 1), ({"E": "mJ"}, 1e3), ({"E": "uJ"}, 1e6),
        ({"E": "Wh"}, 1 / 3600), ({"E": "mWh"}, 1 / 3.6), ({"E": "kWh"}, 1 / 3.6e6),
    ],
    ids=str,
)  # fmt: skip
def test_every_unit_gives_the_same_energy(tmp_path: Path, columns: dict[str, MeterUnit], factor: float) -> None:
    metrics, doubts = judged(metered(tmp_path, columns, factor))
    assert not doubts
    assert metrics.values["generation_energy_j"] == pytest.approx(24, rel=0.02)


@pytest.mark.parametrize(
    ("columns", "factor", "said"),
    [
        ({"P": "W"}, 1e3, "is the column in mW or uW?"),
        ({"P": "mW"}, 1, "is the column in W or kW?"),
        ({"P": "mW"}, 1e6, "is the column in mW or uW?"),
        ({"I": "A", "U": "V"}, 1e3, "is the column in mA, uA or mV?"),
        ({"I": "mA", "U": "V"}, 1, "is the column in A, mA or V?"),
        ({"I": "mA", "U": "V"}, 1e6, "is the column in mA, uA or mV?"),
        ({"I": "A", "U": "mV"}, 1, "is the column in A, mA or V?"),
        ({"E": "J"}, 1e3, "is the column in mJ, J or mWh?"),
        ({"E": "Wh"}, 1, "is the column in mJ, J or mWh?"),
        ({"E": "Wh"}, 1 / 3.6, "is the column in mJ, J or mWh?"),
        ({"E": "J"}, 1 / 3600, "is the column in J, mWh or Wh?"),
        ({"E": "mJ"}, 1, "is the column in J, mWh or Wh?"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_another_unit_is_noticed(
    tmp_path: Path, columns: dict[str, MeterUnit], factor: float, said: str, scale: float
) -> None:
    metrics, doubts = judged(metered(tmp_path, columns, factor, scale))
    (detail,) = doubts
    assert said in detail and "targets.NAME.max_power_w" in detail
    assert said in metrics.unavailable["generation_energy_j"]


@pytest.mark.parametrize("kind", sorted(TARGETS.kinds()))
@pytest.mark.parametrize("cores", [1, 4, 24, 128])
def test_a_thousand_times_too_much_or_too_little_is_no_device_of_any_kind(kind: str, cores: int) -> None:
    """Whatever a device draws between the least and the most of its kind."""
    most_w = TARGETS.get(kind).most_w(cores)
    for share in (0.0011, 0.01, 0.5, 0.99):
        channel = SensorChannel("meter.power", "W", "gauge", "x", None)
        for factor in (1e-3, 1.0, 1e3):
            values = tuple(share * most_w * factor * (1 - i % 3 / 10) for i in range(4))
            series = SensorSeries(channel, (0, 10**9, 2 * 10**9, 3 * 10**9), values)
            shown = Recording(Header("x", 1, (channel,), None), (series,), (), None, None, torn=False)
            if factor == 1.0:
                assert supply_of(shown, most_w).power == series
                continue
            with pytest.raises(NoValue, match="it is another unit"):
                supply_of(shown, most_w)


def test_the_manifest_may_say_otherwise(tmp_path: Path) -> None:
    found = metered(tmp_path, {"P": "W"}, 1, 10.0)
    assert judged(found)[1]
    metrics, doubts = judged(found, most_w=200.0)
    assert not doubts and metrics.values["generation_energy_j"] == pytest.approx(240, rel=0.02)


def own(watts: float) -> Recording:
    battery = SensorChannel("battery.power", "W", "gauge", "x", 1.0)
    begin, end = SAMPLES[0][0], SAMPLES[-1][0]
    times = tuple(range(begin, end, 10**9))
    series = SensorSeries(battery, times, tuple(watts + i % 3 / 100 for i in range(len(times))))
    return Recording(Header("x", 1.0, (battery,), None), (series,), (), None, None, torn=False)


@pytest.mark.parametrize(
    ("columns", "factor", "doubted"),
    [({"P": "W"}, 1, False), ({"E": "J"}, 1 / 3.6, True), ({"E": "mWh"}, 1, False)],
    ids=["right", "mWh that are called J", "J that are called mWh: the sensor may see a part"],
)
def test_a_part_draws_no_more_than_the_whole(
    tmp_path: Path, columns: dict[str, MeterUnit], factor: float, doubted: bool
) -> None:
    _, doubts = judged(metered(tmp_path, columns, factor), own(4.0))
    assert bool(doubts) is doubted
    assert all("battery.power shows" in detail and "are the units in" in detail for detail in doubts)


def test_the_devices_own_sensor_is_left_out_and_the_trial_stays() -> None:
    """Its unit is the driver's fault, which nobody here can mend; speed is still what it is."""
    metrics = compute(TRACE, own(4e3), None, PHONE_W)
    assert "more than the 30 W that such a device can draw" in metrics.unavailable["generation_energy_j"]
    assert judge_trial(TRACE, metrics, None, Limits()).valid
    current = SensorChannel("battery.current", "A", "gauge", "x", 1.0)
    voltage = SensorChannel("battery.voltage", "V", "gauge", "x", 1.0)
    shown = own(4.0).series[0]
    pair = (replace(shown, channel=current), replace(shown, channel=voltage, values=(4.0,) * len(shown)))
    for factor, said in ((1.0, None), (1e3, "more than"), (1e-3, "less than")):
        series = (replace(pair[0], values=tuple(x * factor for x in shown.values)), pair[1])
        recording = replace(own(4.0), header=Header("x", 1.0, (current, voltage), None), series=series)
        found = compute(TRACE, recording, None, PHONE_W)
        assert ("generation_energy_j" in found.values) is (said is None)
        assert said is None or said in found.unavailable["generation_energy_j"]


def test_a_counter_that_was_reset_is_not_called_another_unit() -> None:
    channel = SensorChannel("meter.energy", "J", "counter", "x", None)
    times = tuple(i * 10**9 for i in range(11))
    for jump in (10**6, -100):
        values = tuple(5.0 * i + (jump if i > 5 else 0) for i in range(11))
        recording = Recording(
            Header("x", 1, (channel,), None), (SensorSeries(channel, times, values),), (), None, None, torn=False
        )
        with pytest.raises(NoValue, match="it was reset|the counter fell"):
            energy(supply_of(recording, PHONE_W), [span(1, 9)], SampleLimits(2.5))
