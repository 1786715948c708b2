"""OpenCL and Hexagon of phones: who gets them, who is told why not, and what their recipes are made of."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltrepro.build.render import render_recipe
from meltrepro.errors import ManifestError
from meltrepro.frameworks.base import Skip, Variant
from meltrepro.frameworks.llamacpp.module import FRAMEWORK
from meltrepro.frameworks.llamacpp.options import Options
from meltrepro.frameworks.llamacpp.variants import LEVELS, with_ndk, with_part, with_vulkan
from meltrepro.manifest.sources import DebianPackage, TreeSource
from meltrepro.plan.planner import make_plan
from meltrepro.record.placement import Placed
from meltrepro.store.source import key_of
from meltrepro.targets.base import DeviceFacts
from tests.support.frameworks import bundle
from tests.support.manifests import GOOD, load

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
PHONE = DeviceFacts("phone-1", "android", "Pixel", "aarch64", LEVELS["armv8_2"].requires, 8, 8 << 30, 64 << 30)
HOST = DeviceFacts("host-1", "host", "PC", "x86_64", LEVELS["x86_64_v3"].requires, 8, 32 << 30, 64 << 30)
WAYS: dict[str, dict[str, Any]] = {"opencl": {"opencl": True}, "hexagon": {"hexagon": {"sdk": "sdk.zip"}}}
NDK: dict[str, Any] = {"toolchain": {"ndk": "ndk.zip"}}


def chosen(device: DeviceFacts, kind: str, **more: object) -> Variant | Skip:
    options = Options.model_validate({**WAYS[kind], **NDK, **more})
    return FRAMEWORK.variant(options, FRAMEWORK.releases()["2026-10-01"], device, "auto")


@pytest.mark.parametrize(("kind", "shown"), [("opencl", "OpenCL"), ("hexagon", "Hexagon")])
def test_a_phone_gets_it_by_the_ndk(kind: str, shown: str) -> None:
    found = chosen(PHONE, kind)
    assert isinstance(found, Variant)
    assert (found.name, found.libc, found.accelerator) == (f"armv8_2-android29-{kind}", "bionic", shown)
    without = chosen(PHONE, kind, gpu_layers=0)
    assert isinstance(without, Variant) and without.accelerator == ""


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("device", [HOST, replace(PHONE, kind="jetson"), replace(HOST, kind="android")])
def test_what_is_no_phone_is_told_so(kind: str, device: DeviceFacts) -> None:
    found = chosen(device, kind)
    assert isinstance(found, Skip) and "for phones of aarch64 alone" in found.reason


def test_an_older_phone_is_told_which_level_is_missing() -> None:
    found = chosen(replace(PHONE, facts={"sdk": "26"}), "opencl")
    assert isinstance(found, Skip) and "API level 29, and the device has 26" in found.reason


@pytest.mark.parametrize(
    ("options", "release", "expected"),
    [
        ("opencl: true", "2024-02-27", "built of release 2026-10-01 alone"),
        ("hexagon: {sdk: sdk.zip}", "2024-02-27", "built of release 2026-10-01 alone"),
        ("opencl: true", "2026-10-01", "OpenCL is built by an Android NDK"),
        ("opencl: true, toolchain: {ndk: ndk.zip}", "2026-10-01", "OpenCL is built for phones, and no target is one"),
        ("hexagon: {sdk: sdk.zip}, opencl: true", "2026-10-01", "here are opencl and hexagon"),
        ("vulkan: {driver: device}, opencl: true", "2026-10-01", "here are vulkan and opencl"),
        ('hexagon: {sdk: "https://example.org/sdk.zip"}', "2026-10-01", "the key 'digest' is missing"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, options: str, release: str, expected: str) -> None:
    for name in ("ndk.zip", "sdk.zip"):
        (tmp_path / name).touch()
    text = GOOD.replace("{release: 2024-02-27}", f'{{release: "{release}", options: {{{options}}}}}')
    with pytest.raises(ManifestError) as caught:
        make_plan(load(tmp_path, text), {"host": HOST})
    assert any(expected in str(each) for each in caught.value.problems)


def files(variant: Variant, **options: Any) -> tuple[str, dict[str, Any]]:
    source = bundle(variant, **options, **NDK).recipe
    recipe = render_recipe(source, {}, {name: each.digest or "" for name, each in source.inputs.items()})
    return recipe.files["build.sh"].decode(), dict(source.inputs)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("vulkan", ("-DGGML_VULKAN=ON", "zig cc -target x86_64-linux-musl")),
        ("opencl", ("-DGGML_OPENCL=ON", "-DGGML_OPENCL_EMBED_KERNELS=ON", "libmelt-opencl.a")),
        ("hexagon", ("-DGGML_HEXAGON=ON", "-DHEXAGON_SDK_ROOT=", "libggml-htp-v*.so")),
    ],
)
def test_a_phones_recipe_has_the_ndk_and_what_is_asked_for(kind: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    base = with_ndk(LEVELS["armv8_2"], 29)
    if kind == "vulkan":
        script, inputs = files(with_vulkan(base, "device"), vulkan={"driver": "device"})
    else:
        script, inputs = files(with_part(base, "opencl" if kind == "opencl" else "hexagon"), **WAYS[kind])
    for expected in (*flags, "-DCMAKE_SYSTEM_NAME=Android", f'"{kind}": "device"'):
        assert expected in script, expected
    for function in ("unpack_toolchain", "with_toolchain", "toolchain_licenses"):
        assert script.count(f"{function}() {{") == 1, function
    assert "ndk" in inputs
    path = tmp_path / "build.sh"
    path.write_text(script)
    subprocess.run([SHELLCHECK, "--shell=sh", "--severity=warning", path], check=True)


def test_headers_are_pinned_and_the_sdk_is_the_users() -> None:
    base = with_ndk(LEVELS["armv8_2"], 29)
    _, inputs = files(with_part(base, "opencl"), opencl=True)
    assert isinstance(inputs["opencl-c-headers.deb"], DebianPackage) and inputs["opencl-c-headers.deb"].digest
    _, inputs = files(with_part(base, "hexagon"), **WAYS["hexagon"])
    assert inputs["hexagon"] == TreeSource(file="sdk.zip")
    options = Options.model_validate({**WAYS["hexagon"], **NDK})
    assert FRAMEWORK.withholds(options, key_of(inputs["hexagon"]))
    assert not FRAMEWORK.withholds(options, "pypi:llama-cpp-python")
    assert FRAMEWORK.pinned(Options.model_validate({"opencl": True})) == {"opencl": True}
    assert FRAMEWORK.pinned(Options()) == {} and "opencl" not in Options().model_dump()


@pytest.mark.parametrize(
    ("device", "required", "there"),
    [("GPUOpenCL", "opencl", True), ("GPUOpenCL", "gpuopencl", True), ("HTP0", "htp", True), ("CPU", "opencl", False)],
)
def test_a_backend_is_required_by_the_name_of_its_devices(device: str, required: str, there: bool) -> None:
    assert Placed(phase="prefill", backend=device, op="MUL_MAT", module="Q", n=1).on(required) is there
