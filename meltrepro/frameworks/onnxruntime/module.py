"""ONNX Runtime: the pinned wheels, what they are bundled with, and how a model comes from GGUF codes or a checkpoint.

Wheels hold the library for every CPU of a machine; the C library that it needs comes along. Tokens are llama.cpp's, and so are its
converter and its quantizer: a model of both frameworks has the same codes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.errors import ModelError
from meltrepro.frameworks.base import (
    AS_IS,
    AUTO,
    RUN,
    Framework,
    Look,
    ModelStep,
    OptionProblem,
    Purpose,
    Release,
    Skip,
    SkipKind,
    Variant,
    Weights,
)
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.module import FRAMEWORK as LLAMA
from meltrepro.frameworks.llamacpp.options import Options as LlamaOptions
from meltrepro.frameworks.onnxruntime import llama
from meltrepro.frameworks.onnxruntime.options import OnnxOptions
from meltrepro.manifest.chat_templates import ChatTemplate
from meltrepro.manifest.sources import DebianPackage, PypiSource, Source
from meltrepro.targets.base import DeviceFacts

_LLAMA = LLAMA.releases()["2026-10-01"]
"""Whose tokenizer, converter and quantizer are used."""
_TOKENIZER = "llama.cpp.tar.gz"
_GLIBC = "glibc 2.36"
_DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
_LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
_WHEELS = {
    "x86_64": "e2128f31f449e922c62dbe5d8b6b7b079f0bcaf2d56a102fa203cb6e5bb5ab19",
    "aarch64": "d67673c5367727860922c5262d724472f1b5539fb7ccf4c81a638f9b71719803",
}
_LIBRARIES = {
    "gcc-12-cross-base_12.2.0-14cross1_all": "8dcb9dc293df9069f09dbe68d73f4a8ec2d4e3da4dcfbfe14a821d94e257e9d5",
    "libc6-amd64-cross_2.36-8cross1_all": "e410f3d2da35bccf757976d38e6a309d4d94d25c0dfde565a9662e3f75951b2c",
    "libgcc-s1-amd64-cross_12.2.0-14cross1_all": "b432ba4cfc37d81fc9efe03da3c706eaa64859513f496397c56d11c08262994f",
    "libstdc++6-amd64-cross_12.2.0-14cross1_all": "ad91d29ea6b2a819fe6f79138fee2ce4c1a1dbe7fcd355c3a8f27e8c3d13dd88",
    "libc6-arm64-cross_2.36-8cross1_all": "91936cbbee75771c360ed16513f6e734a25ca5517fe7c3e13dfd7835d7553186",
    "libgcc-s1-arm64-cross_12.2.0-14cross1_all": "af1e686fc6a416228222e7bfb68317dd2fa2685236301ae29141fc6108a66cac",
    "libstdc++6-arm64-cross_12.2.0-14cross1_all": "9cba984b64d0cf11698978fc5e0fe93c7441d29b9f42f70f1c6c734cc9e2ea41",
}
"""Debian 12's C and C++ libraries, of the packages for cross-compilers: the same version for both machines, and it moves no more."""


def _wheel(machine: str) -> PypiSource:
    name = f"onnxruntime-1.29.0-cp313-cp313-manylinux_2_28_{machine}.whl"
    return PypiSource(pypi="onnxruntime", version="1.29.0", filename=name, digest=_WHEELS[machine])


def _libraries(machine: str) -> Mapping[str, Source]:
    port = _DEBIAN[machine]
    return {
        f"{name.partition('_')[0]}.deb": DebianPackage(
            file=f"{name}.deb", digest=digest, suite="bookworm", brought_by=f"libstdc++6-{port}-cross"
        )
        for name, digest in _LIBRARIES.items()
        if f"-{port}-" in name or "base" in name
    }


RELEASES: Mapping[str, Release] = {
    "1.29.0": Release(
        "1.29.0",
        "2e2543fbe9",
        "2026-08-12",
        {
            **{f"onnxruntime-{machine}.whl": _wheel(machine) for machine in _WHEELS},
            _TOKENIZER: _LLAMA.sources["source.tar.gz"],
            **{name: source for machine in _WHEELS for name, source in _libraries(machine).items()},
        },
    )
}
VARIANTS: Mapping[str, Variant] = {
    variant.machine: variant
    for variant in (
        Variant("x86_64", "x86_64", "x86_64-linux-gnu", _GLIBC),
        Variant("armv8", "armv8", "aarch64-linux-gnu", _GLIBC, frozenset({"asimd"})),
    )
}
"""By machine: the library itself looks which instructions a CPU has."""


def _conversion(name: str, bits: int | None = None) -> ModelStep:
    def run(source: Path, destination: Path) -> bool:
        from meltrepro.frameworks.onnxruntime import convert  # with numpy, which takes a while to load

        convert.convert(source, destination, bits)
        return True

    return ModelStep(name, output="folder", run=run)


SCHEMES: Mapping[str, tuple[str, float, ModelStep]] = {
    "f32": ("f32", 32.0, _conversion("onnx-1")),
    "f16": ("f16", 16.0, _conversion("onnx-1")),
    "q8_0": ("q8_0", 9.0, _conversion("onnx-1")),
    "int8": ("f16", 9.5, _conversion("onnx-int8-1", 8)),
    "q4_0": ("q4_0", 5.2, _conversion("onnx-1")),
    "int4": ("f16", 5.5, _conversion("onnx-int4-1", 4)),
    AS_IS: (AS_IS, 16.0, _conversion("onnx-1")),
}
"""What of llama.cpp a conversion begins with, bits per weight, the conversion; int8 and int4 leave the embedding in 16 bits."""


class OnnxRuntime(Framework):
    """ONNX Runtime behind the seam of frameworks."""

    kind = "onnxruntime"
    options: type[BaseModel] = OnnxOptions
    weights: Weights | None = LLAMA.weights

    def releases(self) -> Mapping[str, Release]:
        return RELEASES

    def quantizations(self) -> Mapping[str, float]:
        return {name: bits for name, (_, bits, _) in SCHEMES.items()}

    # -- what is built --------------------------------------------------------------------------------------------

    def levels(self) -> Collection[str]:
        return tuple(variant.level for variant in VARIANTS.values())

    def check_options(self, options: Any, release: str | None, targets: Collection[str]) -> Iterator[OptionProblem]:
        """Levels that nobody knows, and sources that no recipe reads."""
        if release is None:
            message = f"{self.kind} is taken from wheels of releases that it knows: {', '.join(self.releases())}"
            yield OptionProblem((), message, "name one by 'release'")
        for i, level in enumerate(options.isas):
            if level not in self.levels():
                message = f"unknown CPU level of {self.kind} {level!r}"
                yield OptionProblem(("isas", i), message, value=level, known=self.levels())

    def variant(self, options: Any, release: Release, device: DeviceFacts, level: str = AUTO) -> Variant | Skip:
        if device.kind != "host":  # of a bundle, devices behind a link get single programs, and these need libraries
            return Skip(SkipKind.variant, "its programs bring libraries along, which only hosts are given")
        arch = device.arch.lower()
        found = VARIANTS.get({"arm64": "aarch64", "amd64": "x86_64"}.get(arch, arch))
        if found is None:
            return Skip(SkipKind.variant, f"it has no build for {device.arch}")
        if level not in (AUTO, found.level):
            return Skip(SkipKind.variant, f"it has no CPU level {level} for {device.arch}")
        if missing := found.missing(device.features):
            return Skip(SkipKind.variant, f"the CPU lacks {', '.join(missing)}, which {found.level} needs")
        return found

    def extra_variants(self, options: Any, release: Release) -> Sequence[Variant]:
        return tuple(variant for variant in VARIANTS.values() if variant.level in options.isas)

    def tool_variant(self, purpose: Purpose) -> Variant:
        return LLAMA.tool_variant(purpose)

    def recipe(self, options: Any, release: Release, variant: Variant, purpose: Purpose) -> RecipeSource:
        """Runner, sampler and agent with the library and its C library; llama.cpp's for what makes models."""
        if purpose != RUN:
            return LLAMA.recipe(LlamaOptions(), _LLAMA, variant, purpose)
        machine = variant.machine
        place = resources.images() / "onnxruntime"
        return RecipeSource(
            name=f"onnxruntime/{release.name}/{purpose}/{variant.name}",
            folders={
                "": place / "recipe",
                "engine": place / "engine",
                "runner": resources.runner(),
                "vocabulary": resources.images() / "vocabulary",
            },
            variables={
                "release": release.name,
                "commit": release.commit,
                "isa": variant.level,
                "triple": variant.triple,
                "libc": variant.libc,
                "machine": machine,
                "loader": _LOADERS[machine],
                "vocabulary": _LLAMA.name,
            },
            inputs={
                "onnxruntime.whl": release.sources[f"onnxruntime-{machine}.whl"],
                _TOKENIZER: release.sources[_TOKENIZER],
                **_libraries(machine),
            },
            triple=f"{machine}-linux-musl",  # what the compiler has ready; what it compiles for glibc it gets ready itself
            phases=("configure", "compile", "install"),
            labels={
                "org.opencontainers.image.version": release.name,
                "org.opencontainers.image.revision": release.commit,
                "org.opencontainers.image.source": "https://github.com/microsoft/onnxruntime",
                "org.opencontainers.image.licenses": "MIT",
            },
        )

    # -- models ---------------------------------------------------------------------------------------------------

    def model_steps(
        self, source: Source, quantization: str, release: Release, variant: Variant
    ) -> Sequence[ModelStep] | Skip:
        """What llama.cpp makes of the source, converted."""
        begin, _, conversion = SCHEMES[quantization]
        steps = LLAMA.model_steps(source, begin, _LLAMA, variant)
        return steps if isinstance(steps, Skip) else [*steps, conversion]

    def parameter_count(self, path: Path) -> int | None:
        return _facts(path)["parameters"] if path.is_dir() else gguf.parameters(path)

    def check_model(self, path: Path) -> None:
        if path.is_dir():
            _facts(path)
        else:
            gguf.check(path)

    def check_checkpoint(self, files: Mapping[str, Path]) -> None:
        LLAMA.check_checkpoint(files)

    def name_refusal(self, name: str) -> str | None:
        return LLAMA.name_refusal(name)

    def look(self, model: Path | Mapping[str, Path], release: Release, template: ChatTemplate | None = None) -> Look:
        """What llama.cpp's tools make of it, and whether the result can be converted."""
        found = LLAMA.look(model, _LLAMA, template)
        if found.refusal is not None or not isinstance(model, Path):
            return found
        why = llama.refusal(gguf.check(model))
        return found if why is None else Look(why, context=found.context)

    def describe(self, model: Path, release: str) -> str | None:
        return None if model.is_dir() else gguf.describe(model)

    def request(self, options: Any, variant: Variant) -> Mapping[str, JsonValue]:
        return {"graph_optimization": options.graph_optimization, "spinning": options.spinning}

    def pinned(self, options: Any) -> Mapping[str, JsonValue]:
        """Nothing: all options are the runner's."""
        return {}


def _facts(folder: Path) -> Mapping[str, int]:
    """What the conversion wrote beside a graph; raises `ModelError` where the folder is not all of a converted model."""
    missing = [name for name in llama.FILES if not (folder / name).is_file()]
    if missing:
        raise ModelError(f"the folder has no {missing[0]}, so it is no model that was converted for ONNX Runtime")
    found: Mapping[str, int] = json.loads((folder / llama.FACTS).read_text(encoding="utf-8"))
    return found


FRAMEWORK = OnnxRuntime()
