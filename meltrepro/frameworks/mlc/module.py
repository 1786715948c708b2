"""MLC: the pinned wheels of its compiler, TVM, and how a model comes from GGUF codes or a checkpoint.

Weights are converted once; code is compiled for each CPU level, so that a model is one of a variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from meltrepro.build.model import RecipeSource
from meltrepro.chat.template import ChatTemplate
from meltrepro.frameworks.base import (
    AS_IS,
    RUN,
    Look,
    ModelStep,
    Purpose,
    Release,
    Skip,
    SkipKind,
    Variant,
)
from meltrepro.frameworks.llamacpp.synthetic import header_of
from meltrepro.frameworks.llamacpp.variants import MARCH
from meltrepro.frameworks.mlc import android, compiler, opencl
from meltrepro.frameworks.mlc.options import MlcOptions
from meltrepro.frameworks.prebuilt.android import AndroidFramework, bionic
from meltrepro.frameworks.prebuilt.families import FAMILIES
from meltrepro.frameworks.prebuilt.module import Scheme, Wheel, WheelEngine, conversion
from meltrepro.manifest.sources import Source, SyntheticSource

_VERSION, _FFI = "0.27.0.post1", "0.1.15.post2"
_TVM = Wheel(
    "apache-tvm",
    _VERSION,
    {
        machine: f"apache_tvm-{_VERSION}-py3-none-manylinux_2_27_{machine}.manylinux_2_28_{machine}.whl"
        for machine in ("x86_64", "aarch64")
    },
    {
        "x86_64": "f503fc903b6e16fda5daacac6698ecb8bc38937f57da7aa29f6c7ab169d08657",
        "aarch64": "4acfdb7653e4e1ba7a707bdf2833db72eb8fda7d04d99141f2a4e1da43171fb7",
    },
    libraries={"libtvm_runtime.so": "tvm/lib/libtvm_runtime.so"},
    licenses={"tvm": "tvm/LICENSE", "tvm-notice": "tvm/NOTICE", "tvm-fp16": "tvm/licenses/LICENSE.builtin_fp16.txt"},
)
_TVM_FFI = Wheel(
    "apache-tvm-ffi",
    _FFI,
    {
        machine: f"apache_tvm_ffi-{_FFI}-cp313-cp313-manylinux_2_24_{machine}.manylinux_2_28_{machine}.whl"
        for machine in ("x86_64", "aarch64")
    },
    {
        "x86_64": "eae72eb5bcbbddbc68d54eb6c16af860c628ca2f2b02cc4af2693e01a8186f73",
        "aarch64": "de48c255b2753fae02b06b6ca0a30742593e46c6828938a29eafb5e2ccff430f",
    },
    libraries={"libtvm_ffi.so": "tvm_ffi/lib/libtvm_ffi.so"},
    licenses={
        "tvm-ffi": f"apache_tvm_ffi-{_FFI}.dist-info/licenses/LICENSE",
        "tvm-ffi-notice": f"apache_tvm_ffi-{_FFI}.dist-info/licenses/NOTICE",
        "libbacktrace": "tvm_ffi/3rdparty/libbacktrace/LICENSE",
    },
)


def _scheme(begin: str, stored: float, bits: int = 0, group: int = 0, number: str = "") -> Scheme:
    """One of MLC's own where it has a type of numbers, else what llama.cpp's quantizer leaves."""

    def convert(source: Path, folder: Path) -> None:
        from meltrepro.frameworks.mlc import convert  # with numpy, which takes a while to load

        convert.convert(source, folder, convert.Grouped(bits, group, number) if number else None)

    own = f"-q{bits}-{number}" if number else ""
    return Scheme(begin, stored, [replace(conversion(f"mlc{own}-2", convert), shared=True)])


ENGINE = WheelEngine(
    "mlc",
    "MLC",
    "https://github.com/apache/tvm",
    "Apache-2.0",
    date="2026-09-29",
    commit="7b5acb32b",
    wheels=[_TVM, _TVM_FFI],
    variants=[target.variant for target in compiler.TARGETS],
    schemes={
        "q0f32": _scheme("f32", 32.0, number="float32"),
        "f32": _scheme("f32", 32.0),
        "q0f16": _scheme("f16", 16.0, number="float16"),
        "f16": _scheme("f16", 16.0),
        "q8_0": _scheme("q8_0", 8.5),
        "q4f32_1": _scheme("f32", 5.0, 4, 32, "float32"),
        "q4f16_1": _scheme("f16", 4.5, 4, 32, "float16"),
        "q4_0": _scheme("q4_0", 4.7),
        "q3f16_1": _scheme("f16", 3.8, 3, 40, "float16"),
        AS_IS: _scheme(AS_IS, 16.0),
    },
    files=["tensor-cache.json"],
    architectures=tuple(FAMILIES),
    whole=False,
)


class Mlc(AndroidFramework):
    """MLC's compiler and TVM behind the seam of frameworks."""

    options: type[BaseModel] = MlcOptions

    def usual(self, options: Any, cpu: Variant) -> Variant | Skip:
        return cpu if options.device == "cpu" else opencl.variant(cpu)

    def for_android(self, options: Any, cpu: Variant) -> Variant:
        return android.variant(bionic(cpu, options.toolchain, march=MARCH[cpu.level]), options.device)

    def linked(self, recipe: RecipeSource, release: Release) -> RecipeSource:
        return android.linked(recipe)

    def tool_variant(self, purpose: Purpose) -> Variant:
        return compiler.VARIANT if purpose == compiler.PURPOSE else super().tool_variant(purpose)

    def recipe(self, options: Any, release: Release, variant: Variant, purpose: Purpose) -> RecipeSource:
        if purpose != compiler.PURPOSE:
            found = super().recipe(options, release, variant, purpose)
            return opencl.added(found) if variant.data.get("device") == opencl.POCL and purpose == RUN else found
        labels = {
            "org.opencontainers.image.version": release.name,
            "org.opencontainers.image.source": ENGINE.homepage,
            "org.opencontainers.image.licenses": ENGINE.license,
        }
        return compiler.recipe(self.kind, release, labels)

    def model_steps(
        self, source: Source, quantization: str, release: Release, variant: Variant
    ) -> Sequence[ModelStep] | Skip:
        """The weights of every variant, and the code of one."""
        device = variant.data.get("device", "cpu")
        if device == opencl.POCL and quantization in opencl.HALVES:
            return Skip(SkipKind.model, f"{quantization} has floats of 16 bits, which PoCL does not know")
        why = None
        if device != "cpu" and isinstance(source, SyntheticSource):
            why = opencl.refusal(header_of(source.shape))
        if why is not None:
            return Skip(SkipKind.model, why)
        steps = super().model_steps(source, quantization, release, variant)
        return steps if isinstance(steps, Skip) else [*steps, compiler.step(variant)]

    def look(
        self, options: Any, model: Path | Mapping[str, Path], release: Release, template: ChatTemplate | None = None
    ) -> Look:
        found = super().look(options, model, release, template)
        if found.refusal is not None or options.device == "cpu":
            return found
        return replace(found, refusal=opencl.refusal(model))

    def check_model(self, path: Path) -> None:
        super().check_model(path)
        if path.is_dir():
            from meltrepro.frameworks.mlc import shards

            shards.check(path)

    def request(self, options: Any, variant: Variant) -> Mapping[str, JsonValue]:
        on_cpu = variant.data.get("device", "cpu") == "cpu"
        return {"spinning": options.spinning, **({} if on_cpu else {"opencl": True})}


FRAMEWORK = Mlc(ENGINE)
