"""ONNX Runtime's own codes and options; what it has in common with other engines is in test_prebuilt.py."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from meltrepro.build.render import render_recipe
from meltrepro.frameworks.base import RUN, Skip, Variant
from meltrepro.frameworks.onnxruntime.convert import convert, quantized
from meltrepro.frameworks.onnxruntime.module import FRAMEWORK
from meltrepro.frameworks.onnxruntime.options import OnnxOptions
from meltrepro.targets.base import DeviceFacts
from meltrepro.targets.ios.app_recipe import APP_VARIANT
from meltrepro.targets.ios.options import IOS
from meltrepro.testing.frameworks import DEVICES
from tests.support.codes import values
from tests.support.llamas import llama

RELEASE = FRAMEWORK.releases()["1.29.0"]
HOST, BOARD = DEVICES
PHONE = replace(BOARD, kind="android", facts={"sdk": "34"})
NDK = OnnxOptions.model_validate({"toolchain": {"ndk": "ndk.zip"}, "isas": ["armv8"]})


@pytest.mark.parametrize(("bits", "most"), [(4, 0.13), (8, 0.008)])
def test_codes_of_its_own_are_near_the_numbers(bits: int, most: float) -> None:
    numbers = np.random.default_rng(1).standard_normal((8, 128)).astype(np.float32)
    numbers[0] = 0
    found = values(quantized(numbers, bits))
    assert np.abs(found - numbers).max() <= most * np.abs(numbers).max()
    assert np.array_equal(found[0], numbers[0])


@pytest.mark.parametrize(("kind", "bits"), [("F16", 4), ("F32", 8)])
def test_codes_of_its_own_are_the_same_bytes(tmp_path: Path, kind: str, bits: int) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(llama(kind))
    found = []
    for name in ("one", "two"):
        convert(source, tmp_path / name, bits)
        FRAMEWORK.check_model(tmp_path / name)
        found.append({path.name: hashlib.sha256(path.read_bytes()).digest() for path in (tmp_path / name).iterdir()})
    assert found[0] == found[1]


def test_schemes_that_differ_have_steps_of_other_names() -> None:
    steps = {name: scheme.steps[-1].name for name, scheme in FRAMEWORK.engine.schemes.items()}
    assert {steps[name] for name in ("int4", "int8", "q4_0")} == {"onnx-int4-1", "onnx-int8-1", "onnx-1"}


def test_options_are_in_the_request() -> None:
    options = OnnxOptions(spinning=False, graph_optimization="basic")
    variant = FRAMEWORK.variant(options, RELEASE, DEVICES[0])
    assert isinstance(variant, Variant)
    assert FRAMEWORK.request(options, variant) == {"graph_optimization": "basic", "spinning": False}


def test_a_phone_gets_the_library_for_android_beside_what_the_ndk_links() -> None:
    found = FRAMEWORK.variant(NDK, RELEASE, PHONE)
    assert isinstance(found, Variant) and [found] == FRAMEWORK.extra_variants(NDK, RELEASE)
    assert (found.name, found.triple, found.libc) == ("armv8-android29", "aarch64-linux-android29", "bionic")
    recipe = FRAMEWORK.recipe(NDK, RELEASE, found, RUN)
    assert sorted(recipe.inputs) == ["llama.cpp.tar.gz", "ndk", "onnxruntime.tgz"]
    assert recipe.inputs["onnxruntime.tgz"].digest and "library" not in recipe.folders
    assert '/jni/arm64-v8a/libonnxruntime.so" "$OUT/lib' in render_recipe(recipe, {}, {}).files["build.sh"].decode()
    assert FRAMEWORK.withholds(NDK, "file:ndk.zip") and not FRAMEWORK.withholds(NDK, "npm:a@1")
    old = FRAMEWORK.variant(NDK, RELEASE, replace(PHONE, facts={"sdk": "28"}))
    assert isinstance(old, Skip) and "API level 29" in old.reason


@pytest.mark.parametrize("toolchain", [True, False])
@pytest.mark.parametrize(
    ("device", "name"),
    [
        (HOST, "x86_64"),
        (BOARD, "armv8"),
        (replace(PHONE, virtual=True), "armv8"),
        (replace(HOST, kind="android"), "x86_64"),
    ],
    ids=["host", "board", "lab", "x86"],
)
def test_all_others_get_the_wheels_library_as_before(device: DeviceFacts, name: str, toolchain: bool) -> None:
    found = FRAMEWORK.variant(NDK if toolchain else OnnxOptions(), RELEASE, device)
    assert isinstance(found, Variant) and (found.name, found.libc) == (name, "glibc 2.36")
    assert "onnxruntime.whl" in FRAMEWORK.recipe(NDK, RELEASE, found, RUN).inputs


def test_without_an_ndk_phones_do_too_and_locks_stay_as_they_are() -> None:
    found = FRAMEWORK.variant(OnnxOptions(), RELEASE, PHONE)
    assert isinstance(found, Variant) and found.name == "armv8"
    assert FRAMEWORK.pinned(OnnxOptions()) == {} and "toolchain" in FRAMEWORK.pinned(NDK)


@pytest.mark.parametrize(
    ("api", "targets", "why"),
    [(23, ["android"], "for Android API level 24 and above"), (29, ["host"], "no target is one")],
)
def test_an_ndk_that_cannot_serve_is_refused(api: int, targets: list[str], why: str) -> None:
    options = OnnxOptions.model_validate({"toolchain": {"ndk": "ndk.zip", "api": api}})
    (problem,) = FRAMEWORK.check_options(options, RELEASE.name, targets)
    assert why in problem.message


def test_an_iphone_gets_the_app_where_the_options_say_whence() -> None:
    ios = {"mac": "studio", "xcode": "26.1 (17B55)", "xcodegen": "2.44.1", "team": "ABCDE12345"}
    options = OnnxOptions.model_validate({"ios": ios})
    phone = DeviceFacts("p", "ios", "iPhone", IOS, frozenset({"asimd"}), 6, 8 << 30, 8 << 30)
    assert FRAMEWORK.variant(options, RELEASE, phone) == APP_VARIANT
    missing = FRAMEWORK.variant(OnnxOptions(), RELEASE, phone)
    assert isinstance(missing, Skip) and "where the signed app for iPhones comes from" in missing.reason
    recipe = FRAMEWORK.recipe(options, RELEASE, APP_VARIANT, RUN)
    assert (recipe.maker, sorted(recipe.inputs)) == ("mac-ssh", ["llama.cpp.tar.gz", "onnxruntime.tgz"])
    assert FRAMEWORK.servers(options) == {("ios", "mac"): "studio"}
    assert "ABCDE12345" not in str(FRAMEWORK.pinned(options)) and "studio" not in str(FRAMEWORK.pinned(options))
    signed = OnnxOptions.model_validate({"ios": {"ipa": "app.ipa"}})
    assert FRAMEWORK.withholds(signed, "file:app.ipa") and APP_VARIANT.name in FRAMEWORK.withheld_variants()
    assert list(FRAMEWORK.recipe(signed, RELEASE, APP_VARIANT, RUN).inputs) == ["app.ipa"]
    more = OnnxOptions.model_validate({"ios": {**ios, "xcframework": "x.zip"}, "isas": ["ios_arm64"]})
    messages = [each.message for each in FRAMEWORK.check_options(more, RELEASE.name, ["host"])]
    assert len(messages) == 3 and "comes with its package" in messages[2]
