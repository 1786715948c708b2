"""Which devices of a lab the targets of a manifest become."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meltrepro.hosts.pools import Bound, bind
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.targets import TargetOptions
from tests.fault.project import small
from tests.support.labs import offered

DEVICES = [
    offered("n", "A1", model="Pixel 8", soc="Tensor G3"),
    offered("n", "B2", model="Galaxy S23", soc="SM8550"),
    offered("m", "C3", model="Pixel 8", soc="Tensor G3"),
    offered("m", "host-1", kind="host"),
]


def targets(**entries: dict[str, Any]) -> dict[str, TargetOptions]:
    return dict(Manifest.model_validate(small("x", {"a": "sleep 0"}, targets=entries)).targets)


def ids(bound: dict[str, Bound]) -> dict[str, str | None]:
    return {name: each.device.offer.id if each.device is not None else None for name, each in bound.items()}


def test_a_pool_is_as_many_targets() -> None:
    found = bind(targets(phones={"kind": "android", "any": 2}, host={"kind": "host"}), DEVICES, {})
    assert ids(found) == {"phones1": "A1", "phones2": "B2", "host": "host-1"}
    assert found["phones1"].entry.model_dump(exclude_unset=True) == {"kind": "android", "serial": "A1"}


def test_what_the_manifest_wants_stays() -> None:
    found = bind(targets(phone={"kind": "android", "threads": 3, "where": {"id": "C3"}}), DEVICES, {})
    assert found["phone"].entry.model_dump(exclude_unset=True) == {"kind": "android", "serial": "C3", "threads": 3}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"soc": "SM8550"}, "B2"),
        ({"model": "Pixel*", "node": "m"}, "C3"),
        ({"soc": "SM9999"}, None),
        ({"nonsense": "x"}, None),
    ],
)
def test_where(where: dict[str, str], expected: str | None) -> None:
    found = bind(targets(phone={"kind": "android", "where": where}), DEVICES, {})
    assert ids(found) == {"phone": expected}
    assert ("has no device of kind android" in found["phone"].reason) == (expected is None)


def test_a_serial_is_that_device() -> None:
    assert ids(bind(targets(phone={"kind": "android", "serial": "C3"}), DEVICES, {})) == {"phone": "C3"}
    assert ids(bind(targets(phone={"kind": "android", "serial": "Z9"}), DEVICES, {})) == {"phone": None}


def test_no_device_is_taken_twice_and_who_can_have_one_alone_gets_it() -> None:
    wanted = targets(any={"kind": "android", "any": 3}, pixel={"kind": "android", "where": {"id": "A1"}})
    found = bind(wanted, DEVICES, {})
    assert ids(found) == {"any1": "B2", "any2": "C3", "any3": None, "pixel": "A1"}
    assert "other targets have taken them" in found["any3"].reason


def test_a_campaign_goes_on_with_its_devices() -> None:
    wanted = targets(phones={"kind": "android", "any": 2})
    assert ids(bind(wanted, DEVICES, {"phones1": "C3"})) == {"phones1": "C3", "phones2": "A1"}
    gone = [replace(each, there=each.offer.id != "C3") for each in DEVICES]
    assert ids(bind(wanted, gone, {"phones1": "C3", "phones2": "B2"})) == {"phones1": "C3", "phones2": "B2"}


def test_a_new_campaign_takes_what_is_there() -> None:
    away = [replace(each, there=each.offer.id != "A1") for each in DEVICES]
    away = [replace(each, quarantined="broken" if each.offer.id == "B2" else None) for each in away]
    assert ids(bind(targets(phones={"kind": "android", "any": 3}), away, {})) == {
        "phones1": "C3",
        "phones2": "A1",
        "phones3": "B2",
    }
