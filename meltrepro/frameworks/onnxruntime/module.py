"""ONNX Runtime: its pinned wheels, and how a model comes from GGUF codes or a checkpoint.

Wheels hold the library for every CPU of a machine: the library itself looks which instructions a CPU has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import AS_IS, AUTO, ModelStep, OptionProblem, Purpose, Release, Skip, Variant
from meltrepro.frameworks.llamacpp.releases import VENDORED
from meltrepro.frameworks.onnxruntime.options import OnnxOptions
from meltrepro.frameworks.prebuilt import glibc
from meltrepro.frameworks.prebuilt.android import AndroidFramework
from meltrepro.frameworks.prebuilt.module import TOKENIZER, Scheme, Wheel, WheelEngine, conversion
from meltrepro.manifest.sources import NpmPackage
from meltrepro.store.source import key_of
from meltrepro.targets.base import DeviceFacts
from meltrepro.targets.ios.app_recipe import (
    APP_LEVEL,
    APP_VARIANT,
    AppParts,
    ThirdParty,
    app_recipe,
    app_servers,
    app_variant,
    idle_app,
    pinned_app,
)
from meltrepro.targets.ios.options import IOS

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
_FOR_PHONES = r"package/Plugins/iOS~/onnxruntime\.xcframework/ios-arm64/onnxruntime\.framework/"
"""Pattern of where it is for iPhones."""
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
    files: Collection[tuple[str, ...]] = (*AndroidFramework.files, ("ios", "ipa"))

    def levels(self) -> Collection[str]:
        return (*super().levels(), APP_LEVEL)

    def check_options(self, options: Any, release: str | None, targets: Collection[str]) -> Iterator[OptionProblem]:
        yield from super().check_options(options, release, targets)
        if options.toolchain is not None and options.toolchain.api < _OLDEST_ANDROID:
            message = f"ONNX Runtime's library is for Android API level {_OLDEST_ANDROID} and above"
            yield OptionProblem(("toolchain", "api"), message)
        yield from idle_app(options.ios, options.isas, targets)
        if options.ios is not None and options.ios.xcframework is not None:
            message = "ONNX Runtime's library for iPhones comes with its package"
            yield OptionProblem(("ios", "xcframework"), message, "leave it out")

    def variant(self, options: Any, release: Release, device: DeviceFacts, level: str = AUTO) -> Variant | Skip:
        if device.arch == IOS:
            return app_variant(options.ios, device, level)
        return super().variant(options, release, device, level)

    def recipe(self, options: Any, release: Release, variant: Variant, purpose: Purpose) -> RecipeSource:
        found = super().recipe(options, release, variant, purpose) if variant != APP_VARIANT else None
        return found or app_recipe(ENGINE.kind, options.ios, release, _app(release), ENGINE.labels)

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

    def pinned(self, options: Any) -> Mapping[str, JsonValue]:
        app = {} if options.ios is None else {"ios": pinned_app(options.ios)}
        return {**super().pinned(options), **app}

    def withholds(self, options: Any, source: str) -> bool:
        """Signed apps too, which name their team and the phones that may start them."""
        app = options.ios.file if options.ios is not None else None
        return super().withholds(options, source) or (app is not None and source == key_of(app))

    def withheld_variants(self) -> Collection[str]:
        return (APP_LEVEL,)

    def servers(self, options: Any) -> Mapping[tuple[str, ...], str]:
        return app_servers(options.ios)

    def request(self, options: Any, variant: Variant) -> Mapping[str, JsonValue]:
        return {"graph_optimization": options.graph_optimization, "spinning": options.spinning}


def _app(release: Release) -> AppParts:
    """Its part of the app: the engine's sources, its library, and llama.cpp's tokenizer."""
    place = resources.images()
    own = ("onnxruntime/engine", "prebuilt/converted.cpp", "prebuilt/converted.h", "vocabulary")
    project = {f"ios/{name}": place / "onnxruntime" / "ios" / name for name in ("project.yml.j2", "ggml-version.h.j2")}
    library = ThirdParty(_PACKAGE, "onnxruntime.framework", _FOR_PHONES)
    taken = ("include/", "src/", "ggml/include/", "ggml/src/gg", "LICENSE")
    sources = ThirdParty("llama.cpp.tar.gz", "llama.cpp", VENDORED, taken)
    return AppParts(
        {**{name: place / name for name in own}, **project},
        {sources.input: release.sources[sources.input], _PACKAGE: _PHONES},
        (library, sources),
        variables={"vocabulary": TOKENIZER.name},
    )


FRAMEWORK = OnnxRuntime(ENGINE)
