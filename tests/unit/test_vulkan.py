"""Vulkan of llama.cpp: who gets it, who is told why not, and what its recipes are made of."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltrepro.build.render import render_recipe
from meltrepro.errors import ManifestError, Problem
from meltrepro.frameworks.base import Skip, Variant
from meltrepro.frameworks.llamacpp.module import FRAMEWORK
from meltrepro.frameworks.llamacpp.options import Options
from meltrepro.frameworks.llamacpp.variants import LEVELS, on_cpu, with_ndk, with_vulkan
from meltrepro.manifest.sources import DebianPackage
from meltrepro.plan.planner import make_plan
from meltrepro.targets.base import DeviceFacts
from tests.support.frameworks import bundle
from tests.support.manifests import GOOD, load, problems

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
HOST = DeviceFacts("host-1", "host", "PC", "x86_64", LEVELS["x86_64_v3"].requires, 8, 32 << 30, 64 << 30)
BARE = replace(HOST, facts={"sandbox": "bare"})
CONTAINED = replace(HOST, facts={"sandbox": "container"})
PHONE = DeviceFacts("phone-1", "android", "Pixel", "aarch64", LEVELS["armv8_2"].requires, 8, 8 << 30, 64 << 30)


def chosen(device: DeviceFacts, driver: str, **more: object) -> Variant | Skip:
    options = Options.model_validate({"vulkan": {"driver": driver}, **more})
    return FRAMEWORK.variant(options, FRAMEWORK.releases()["2026-10-01"], device, "auto")


def test_a_host_without_a_sandbox_uses_its_own_driver() -> None:
    found = chosen(BARE, "device")
    assert isinstance(found, Variant)
    assert (found.name, found.libc, found.accelerator, found.software) == (
        "x86_64_v3-vulkan",
        "glibc",
        "Vulkan",
        False,
    )


def test_a_software_device_says_what_it_is() -> None:
    found = chosen(CONTAINED, "software")
    assert isinstance(found, Variant)
    assert (found.name, found.software) == ("x86_64_v3-llvmpipe", True)
    assert "software device" in found.accelerator


@pytest.mark.parametrize(
    ("device", "driver", "reason"),
    [
        (CONTAINED, "device", "its trials run in a sandbox, which has no driver of the device"),
        (PHONE, "software", "built for x86_64 alone"),
        (PHONE, "device", "takes the NDK"),
    ],
)
def test_who_cannot_have_it_is_told_why(device: DeviceFacts, driver: str, reason: str) -> None:
    found = chosen(device, driver)
    assert isinstance(found, Skip) and reason in found.reason


def test_the_release_of_2024_has_none(tmp_path: Path) -> None:
    text = GOOD.replace("{release: 2024-02-27}", "{release: 2024-02-27, options: {vulkan: {driver: device}}}")
    assert any("2026-10-01 alone" in str(each) for each in problems_of_plan(tmp_path, text))


def problems_of_plan(folder: Path, text: str) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        make_plan(load(folder, text), {"host": HOST})
    return list(caught.value.problems)


def test_an_unknown_driver_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("{release: 2024-02-27}", "{release: 2026-10-01, options: {vulkan: {driver: mesa}}}")
    assert any("expected one of device, software" in str(each) for each in problems(tmp_path, text))


@pytest.mark.parametrize(
    "variant",
    [
        with_vulkan(on_cpu(LEVELS["x86_64_v3"]), "device"),
        with_vulkan(on_cpu(LEVELS["x86_64_v3"]), "software"),
        with_vulkan(on_cpu(LEVELS["armv8_2"]), "device"),
        with_vulkan(with_ndk(LEVELS["armv8_2"], 29), "device"),
    ],
    ids=lambda variant: variant.name,
)
def test_a_recipe_is_a_sound_script_of_pinned_packages(variant: Variant, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"vulkan": {"driver": "software" if variant.software else "device"}}
    options = {**asked, "toolchain": {"ndk": "ndk.zip"}} if variant.libc == "bionic" else asked
    source = bundle(variant, **options).recipe
    recipe = render_recipe(source, {}, {name: each.digest or "" for name, each in source.inputs.items()})
    script = tmp_path / "build.sh"
    script.write_bytes(recipe.files["build.sh"])
    subprocess.run([SHELLCHECK, "--shell=sh", "--severity=warning", script], check=True)
    packages = {name: each for name, each in source.inputs.items() if isinstance(each, DebianPackage)}
    assert packages and all(each.digest for each in packages.values())
    assert any("mesa" in str(each) for each in packages.values()) == variant.software
