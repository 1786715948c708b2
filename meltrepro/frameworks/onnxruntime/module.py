"""ONNX Runtime: its pinned wheels, and how a model comes from GGUF codes or a checkpoint.

Wheels hold the library for every CPU of a machine: the library itself looks which instructions a CPU has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import AS_IS, ModelStep, OptionProblem, Release, Variant
from meltrepro.frameworks.onnxruntime.options import OnnxOptions
from meltrepro.frameworks.prebuilt import glibc
from meltrepro.frameworks.prebuilt.android import AndroidFramework
from meltrepro.frameworks.prebuilt.module import Scheme, Wheel, WheelEngine, conversion
from meltrepro.manifest.sources import NpmPackage

_VERSION = "1.29.0"
_WHEEL = Wheel(
    "onnxruntime",
    _VERSION,
    {machine: f"onnxruntime-{_VERSION}-cp313-cp313-manylinux_2_28_{machine}.whl" for machine in ("x86_64", "aarch64")},
    {
        "x86_64": "e2128f31f449e922c62dbe5d8b6b7b079f0bcaf2d56a102fa203cb6e5bb5ab19",
        "aarch64": "d67673c5367727860922c5262d724472f1b5539fb7ccf4c81a638f9b71719803",
    },
    libraries={"libonnxruntime.so": f"onnxruntime/capi/libonnxruntime.so.{_VERSION}"},
    licenses={
        "onnxruntime": "onnxruntime/LICENSE",
        "onnxruntime-third-party": "onnxruntime/ThirdPartyNotices.txt",
    },
)
_PHONES = NpmPackage(
    file="com.github.asus4.onnxruntime@0.4.9",
    digest="e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d",
)
"""Its library of the same release for phones."""
_PACKAGE = "onnxruntime.tgz"
_OLDEST_ANDROID = 24
"""The API level that this library is for."""


def _conversion(name: str, bits: int | None = None) -> ModelStep:
    def convert(source: Path, folder: Path) -> None:
        from meltrepro.frameworks.onnxruntime import convert  # with numpy, which takes a while to load

        convert.convert(source, folder, bits)

    return conversion(name, convert)


_KEPT, _INT8, _INT4 = _conversion("onnx-1"), _conversion("onnx-int8-1", 8), _conversion("onnx-int4-1", 4)
ENGINE = WheelEngine(
    "onnxruntime",
    "ONNX Runtime",
    "https://github.com/microsoft/onnxruntime",
    "MIT",
    date="2026-08-12",
    commit="2e2543fbe9",
    wheels=[_WHEEL],
    variants=[
        Variant("x86_64", "x86_64", "x86_64-linux-gnu", glibc.VERSION),
        Variant("armv8", "armv8", "aarch64-linux-gnu", glibc.VERSION, frozenset({"asimd"})),
    ],
    schemes={
        "f32": Scheme("f32", 32.0, [_KEPT]),
        "f16": Scheme("f16", 16.0, [_KEPT]),
        "q8_0": Scheme("q8_0", 9.0, [_KEPT]),
        "int8": Scheme("f16", 9.5, [_INT8]),  # the embedding stays in 16 bits, and in int4 too
        "q4_0": Scheme("q4_0", 5.2, [_KEPT]),
        "int4": Scheme("f16", 5.5, [_INT4]),
        AS_IS: Scheme(AS_IS, 16.0, [_KEPT]),
    },
    files=["model.onnx", "weights.bin"],
)


class OnnxRuntime(AndroidFramework):
    """ONNX Runtime behind the seam of frameworks."""

    options: type[BaseModel] = OnnxOptions

    def check_options(self, options: Any, release: str | None, targets: Collection[str]) -> Iterator[OptionProblem]:
        yield from super().check_options(options, release, targets)
        if options.toolchain is not None and options.toolchain.api < _OLDEST_ANDROID:
            message = f"ONNX Runtime's library is for Android API level {_OLDEST_ANDROID} and above"
            yield OptionProblem(("toolchain", "api"), message)

    def linked(self, recipe: RecipeSource, release: Release) -> RecipeSource:
        """With the library for Android, out of the archive in the package, in place of the wheel's."""
        licenses = {
            "licenses/onnxruntime": "package/LICENSE",
            "licenses/onnxruntime-third-party": "package/ThirdPartyNotices.txt",
        }
        taken = ["package/Plugins/Android/onnxruntime.aar", *licenses.values()]
        parts = {**licenses, "lib/libonnxruntime.so": "jni/arm64-v8a/libonnxruntime.so"}
        given = {"package": _PACKAGE, "taken": taken, "wheels": {_PACKAGE: parts}}
        kept = {name: source for name, source in recipe.inputs.items() if not name.endswith(".whl")}
        return replace(recipe, variables={**recipe.variables, **given}, inputs={**kept, _PACKAGE: _PHONES})

    def request(self, options: Any, variant: Variant) -> Mapping[str, JsonValue]:
        return {"graph_optimization": options.graph_optimization, "spinning": options.spinning}


FRAMEWORK = OnnxRuntime(ENGINE)
