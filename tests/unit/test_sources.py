"""What a machine shows is found, with its unit; how often it is asked follows from what it refreshes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.measure.sensor_plan import period_s, sensor_plan
from meltrepro.record.samples import parse_samples
from meltrepro.targets.base import Source
from meltrepro.targets.remote.sensors import linux_sources
from tests.support.machines import machine


def test_everything_that_a_laptop_shows(tmp_path: Path) -> None:
    found = {source.name: source for source in linux_sources(machine(tmp_path))}
    assert {name: source.unit for name, source in found.items()} == {
        "process.rss_anon": "B",
        "process.rss_file": "B",
        "process.swap": "B",
        "memory.available": "B",
        "memory.swap_free": "B",
        **{f"cpu.{name}": "s" for name in ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")},
        "pressure.cpu": "s",
        "pressure.memory": "s",
        "temperature.thermal_zone0:cpu-thermal": "degC",
        "temperature.hwmon1:nvme:Composite": "degC",
        "throttled.cpu0": "1",
        "frequency.cpu0": "Hz",
        "frequency.cpu1": "Hz",
        "energy.package-0": "J",
        "battery.voltage": "V",
        "battery.current": "A",
        "battery.charge": "C",
        "battery.level": "%",
    }
    energy = found["energy.package-0"]
    assert energy.kind == "counter"
    assert energy.wraps_at == pytest.approx(262143.328851)
    assert found["battery.charge"].scale * 3_000_000 == pytest.approx(10800), "3 Ah"
    assert all((tmp_path / source.path).is_file() for source in found.values() if "{pid}" not in source.path)


def test_an_old_kernel_offers_the_times_that_it_counts(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  100 0 50 4000\ncpu0 100 0 50 4000\n")
    names = {source.name for source in linux_sources(tmp_path) if source.name.startswith("cpu.")}
    assert names == {"cpu.user", "cpu.nice", "cpu.system", "cpu.idle"}


def test_the_charge_of_a_phone_is_its_counter(tmp_path: Path) -> None:
    battery = machine(tmp_path) / "sys/class/power_supply/BAT0"
    (battery / "charge_now").rename(battery / "charge_counter")
    (charge,) = (source for source in linux_sources(tmp_path) if source.name == "battery.charge")
    assert (charge.unit, charge.kind) == ("C", "gauge")
    assert charge.path.endswith("BAT0/charge_counter")


def test_a_machine_that_shows_nothing_has_the_process_alone(tmp_path: Path) -> None:
    assert {source.name.split(".")[0] for source in linux_sources(tmp_path)} == {"process"}


def test_this_machine() -> None:
    names = {source.name for source in linux_sources(Path("/"))}
    assert {"memory.available", "cpu.idle"} <= names
    assert len(names) == len(linux_sources(Path("/"))), "names are unique"


def test_the_plan_holds_the_header_of_its_recording(tmp_path: Path) -> None:
    sources = linux_sources(machine(tmp_path))
    plan = json.loads(sensor_plan(sources, 10.0, root=str(tmp_path)))
    recording = parse_samples([json.dumps(plan["header"]).encode() + b"\n"])
    assert [series.channel.name for series in recording.series] == [source.name for source in sources]
    assert len(plan["channels"]) == len(sources)
    every = {channel["path"]: channel["every"] for channel in plan["channels"]}
    assert every["proc/meminfo"] == 1
    assert every["sys/class/thermal/thermal_zone0/temp"] == 10


@given(st.none() | st.floats(0.001, 100), st.floats(0.01, 100))
def test_no_source_is_asked_more_often_than_it_has_values_nor_half_as_often(
    refresh_s: float | None, rate_hz: float
) -> None:
    period = period_s(refresh_s, rate_hz)
    assert period >= (refresh_s or 0) * (1 - 1e-6)
    assert period <= max(1 / rate_hz, refresh_s or 0) + 1 / rate_hz
    (channel,) = json.loads(sensor_plan([Source("x", "1", "gauge", "x", refresh_s=refresh_s)], rate_hz))["channels"]
    assert channel["every"] / rate_hz == pytest.approx(period)
