"""What an iPhone tells of itself, and what it cannot mean."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import TargetError
from meltrepro.frameworks.base import Skip
from meltrepro.frameworks.llamacpp.options import Options
from meltrepro.frameworks.llamacpp.variants import choose
from meltrepro.targets.base import Battery
from meltrepro.targets.ios import state as ios_state
from meltrepro.targets.ios.options import IOS
from meltrepro.targets.ios.state import parse_battery

REGISTRY = {
    "BatteryInstalled": True,
    "CurrentCapacity": 81,
    "MaxCapacity": 100,
    "IsCharging": False,
    "ExternalConnected": False,
    "Voltage": 4012,
    "InstantAmperage": -312,
    "Temperature": 3029,
}
VALUES: dict[str, Any] = {
    "UniqueDeviceID": "00008110-001A2B3C4D5E6F70",
    "ProductType": "iPhone14,5",
    "ProductVersion": "16.7.2",
    "HardwareModel": "D17AP",
    "SerialNumber": "SECRET123",
    "PhoneNumber": "+49 30 123456",
    "TimeIntervalSince1970": 1764000000.25,
}
HARDWARE = {"numberOfPhysicalCpus": 6, "numberOfCpus": 6}


def test_a_battery() -> None:
    assert parse_battery(REGISTRY) == Battery(81, False, 4012, -312, 30.29)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_a_current_that_was_printed_without_its_sign(bits: int) -> None:
    found = parse_battery({**REGISTRY, "InstantAmperage": 2**bits - 312})
    assert found is not None
    assert found.current_ma == -312


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("Voltage", 4, "voltage_mv"),
        ("Temperature", 2**16, "temperature_c"),
        ("InstantAmperage", 30_000, "current_ma"),
        ("CurrentCapacity", 3227, "percent"),
        ("Voltage", "4012", "voltage_mv"),
        ("InstantAmperage", True, "current_ma"),
    ],
)
def test_what_cannot_be_meant_is_left_out(key: str, value: object, field: str) -> None:
    found = parse_battery({**REGISTRY, key: value})
    assert found is not None
    assert getattr(found, field) is None


def test_a_phone_at_a_cable_counts_as_charging() -> None:
    found = parse_battery({**REGISTRY, "ExternalConnected": True})
    assert found is not None
    assert found.charging is True
    unknown = parse_battery({key: value for key, value in REGISTRY.items() if "ing" not in key and "Ext" not in key})
    assert unknown is not None
    assert unknown.charging is None


@pytest.mark.parametrize("registry", [{}, {"BatteryInstalled": False}])
def test_no_battery(registry: dict[str, Any]) -> None:
    assert parse_battery(registry) is None
    state = ios_state.state(VALUES, registry, 5)
    assert {"battery", "temperatures_c"} <= set(state.unavailable)


@given(
    st.dictionaries(
        st.sampled_from(sorted(REGISTRY)), st.integers() | st.floats() | st.text() | st.none() | st.booleans()
    )
)
def test_any_registry(registry: dict[str, Any]) -> None:
    found = parse_battery(registry)
    if found is not None and found.temperature_c is not None:
        assert -40 <= found.temperature_c <= 120


def test_a_state_says_why_something_is_missing() -> None:
    state = ios_state.state(VALUES, REGISTRY, 5)
    assert (state.wall_ns, state.monotonic_ns) == (1764000000250000000, 5)
    assert state.temperatures_c == {"battery": 30.29}
    assert state.memory_available_bytes is None
    assert all(state.unavailable[name] for name in ("memory_available_bytes", "load_1min", "governors", "boot_id"))
    assert "battery" not in state.unavailable


@pytest.mark.parametrize("wall", [None, "now", -1, 1e300, True, float("nan")])
def test_no_time_of_day(wall: object) -> None:
    with pytest.raises(TargetError, match="time of day"):
        ios_state.state({**VALUES, "TimeIntervalSince1970": wall}, REGISTRY, 5)


def test_facts_keep_no_secret() -> None:
    facts = ios_state.facts(VALUES, HARDWARE, 6 << 30, 10**9, "iPhone")
    assert (facts.kind, facts.model, facts.cores, facts.virtual) == ("ios", "iPhone14,5", 6, False)
    assert facts.facts["ios"] == "16.7.2"
    text = str(facts)
    assert not any(secret in text for secret in ("00008110", "SECRET123", "123456"))
    assert facts.id == ios_state.facts(VALUES, HARDWARE, 6 << 30, 0, "other").id


def test_what_was_made_for_linux_is_not_for_a_phone() -> None:
    facts = ios_state.facts(VALUES, HARDWARE, 6 << 30, 10**9, "iPhone")
    options = Options.model_validate({"ios": {"ipa": "app.ipa"}})
    assert isinstance(choose(options, "2024-02-27", facts, "auto"), Skip)
    chosen = choose(options, "2026-10-01", facts, "auto")
    assert not isinstance(chosen, Skip) and chosen.triple == IOS


PROGRAMS = {"machine": "aarch64", "features": ["asimd", "asimddp", "asimdhp"]}


def test_every_phone_of_apples_says_that_nobody_has_proven_it() -> None:
    real = ios_state.facts(VALUES, HARDWARE, 6 << 30, 10**9, "iPhone")
    virtual = ios_state.facts({**VALUES, "MeltreproVirtual": True}, HARDWARE, 6 << 30, 10**9, "iPhone")
    assert real.facts["proof"] == "not yet run on Apple hardware"
    assert "proof" not in virtual.facts


def test_a_virtual_phone_may_run_programs_of_linux() -> None:
    values = {**VALUES, "MeltreproVirtual": True, "MeltreproPrograms": PROGRAMS}
    facts = ios_state.facts(values, HARDWARE, 6 << 30, 10**9, "iPhone")
    assert (facts.arch, facts.virtual) == ("aarch64", True)
    chosen = choose(Options(), "2024-02-27", facts, "auto")
    assert not isinstance(chosen, Skip) and chosen.name == "armv8_2"


@pytest.mark.parametrize(
    "values",
    [
        {"MeltreproPrograms": PROGRAMS},
        {"MeltreproVirtual": True},
        {"MeltreproVirtual": True, "MeltreproPrograms": "aarch64"},
        {"MeltreproVirtual": True, "MeltreproPrograms": {"machine": 7, "features": []}},
        {"MeltreproVirtual": True, "MeltreproPrograms": {"machine": "aarch64", "features": [7]}},
    ],
)
def test_no_other_phone_does(values: dict[str, Any]) -> None:
    assert ios_state.linux_programs({**VALUES, **values}) is None
    assert ios_state.facts({**VALUES, **values}, HARDWARE, 6 << 30, 10**9, "iPhone").arch == IOS


@pytest.mark.parametrize(
    ("values", "hardware", "memory", "says"),
    [
        ({}, HARDWARE, 1, "its id, its model"),
        (VALUES, {}, 1, "its CPUs"),
        (VALUES, {"numberOfCpus": "many"}, 1, "its CPUs"),
        (VALUES, {"numberOfCpus": 10**9}, 1, "its CPUs"),
        (VALUES, HARDWARE, None, "its memory"),
    ],
)
def test_a_phone_that_does_not_say_what_it_is(values: Any, hardware: Any, memory: Any, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        ios_state.facts(values, hardware, memory, 0, "iPhone")
