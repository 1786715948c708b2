"""llama.cpp: two pinned releases, CPU levels, quantizations, and how its quantizer is called.

The source comes from the sdists of llama-cpp-python, which carry llama.cpp whole, at a known commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import ModelStep, Scorer
from meltrepro.frameworks.llamacpp import app as apps
from meltrepro.frameworks.llamacpp import convert as llamacpp_convert
from meltrepro.frameworks.llamacpp import cuda as llamacpp_cuda
from meltrepro.frameworks.llamacpp import gguf as gguf_files
from meltrepro.frameworks.llamacpp.mixtures import model_bytes
from meltrepro.frameworks.llamacpp.scorer import PerplexityScorer
from meltrepro.manifest.sources import PypiSource, Source, is_checkpoint
from meltrepro.plan.model import IOS, BundleNode, FrameworkInfo, Isa, Release

_X86, _ARM = "x86_64-linux-musl", "aarch64-linux-musl"

_V3 = {"avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VNNI = _V4 | {"avx512_vnni"}
_CLANG = {
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "bmi1": "bmi",
    "abm": "lzcnt",
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
    "asimd": "neon",
    "asimddp": "dotprod",
    "asimdhp": "fullfp16",
}
"""Where clang spells a feature differently from the kernel."""


def _isa(name: str, triple: str, requires: set[str], rank: int, baseline: tuple[str, ...] = ()) -> Isa:
    enable = (*baseline, *sorted(_CLANG.get(feature, feature) for feature in requires))
    return Isa(name, triple, frozenset(requires), enable, rank)


_SSE = ("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16")
ISAS: tuple[Isa, ...] = (
    _isa("x86_64_v2", _X86, {"ssse3", "sse4_1", "sse4_2", "popcnt"}, 2),
    _isa("x86_64_v3", _X86, _V3, 3, _SSE),
    _isa("x86_64_v3_vnni", _X86, _V3 | {"avx_vnni"}, 4, _SSE),
    _isa("x86_64_v4", _X86, _V4, 5, _SSE),
    _isa("x86_64_v4_avx512vnni", _X86, _VNNI, 6, _SSE),
    # ggml uses AVX-VNNI in places where it makes nothing of AVX512-VNNI, and these CPUs have both.
    _isa("x86_64_v4_vnni", _X86, _VNNI | {"avx_vnni"}, 7, _SSE),
    _isa("armv8_a", _ARM, {"asimd"}, 1),
    _isa("armv8_2", _ARM, {"asimd", "asimddp", "asimdhp"}, 2),
    # The app's compiler knows its own phones; its project is of one release (images/ios/project.yml).
    replace(_isa("ios_arm64", IOS, {"asimd"}, 1), releases=frozenset({"2026-10-01"})),
)

_MARCH = {"armv8_a": "armv8-a", "armv8_2": "armv8.2-a+dotprod+fp16"}
"""How the NDK's clang spells the levels that it builds: as a whole, because its C library is compiled already."""

RELEASES: Mapping[str, Release] = {
    "2024-02-27": Release(
        name="2024-02-27",
        commit="cb49e0f8c906e5da49e9f6d64a57742a9a241c6a",
        date="2024-02-27",
        sources={
            "source.tar.gz": PypiSource(
                pypi="llama-cpp-python",
                version="0.2.53",
                kind="sdist",
                digest="f7ff8eda538ca6c80521a8bbf80d3ef4527ecb28f6d08fa9b3bb1f0cfc3b684e",
            )
        },
        converter=llamacpp_convert.SOURCES,
    ),
    "2026-10-01": Release(
        name="2026-10-01",
        commit="0c1e57098bba43ac29e6e3b677cdceebdd22334f",
        date="2026-10-01",
        sources={
            "source.tar.gz": PypiSource(
                pypi="llama-cpp-python",
                version="0.3.36",
                kind="sdist",
                digest="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
            )
        },
        converter=llamacpp_convert.SOURCES,
    ),
}

_TYPES: Mapping[str, tuple[str, float]] = {
    "f32": ("F32", 32.0),
    "f16": ("F16", 16.0),
    "q8_0": ("Q8_0", 8.5),
    "q6_K": ("Q6_K", 6.6),
    "q5_K": ("Q5_K_M", 5.7),
    "q5_1": ("Q5_1", 6.0),
    "q5_0": ("Q5_0", 5.5),
    "q4_K": ("Q4_K_M", 4.9),
    "q4_1": ("Q4_1", 5.0),
    "q4_0": ("Q4_0", 4.6),
    "q3_K": ("Q3_K_M", 4.0),
    "q2_K": ("Q2_K", 3.2),
}
"""Our names -> the quantizer's, and bits per weight for estimates. MELT's q3_K and q4_K are the medium mixes."""
UNTIE = "untie-output-1"
"""Name and version of the rewrite; part of a model's identity."""
_NEED_UNTYING = frozenset({"2024-02-27"})
"""Releases that cannot load a llama model whose output matrix is the embedding's (that came in March 2024)."""
AS_IS = "as-is"
"""The source file itself, whatever its type."""


class LlamaCpp:
    """The framework module of llama.cpp."""

    scorer: Scorer | None = PerplexityScorer()

    def info(self) -> FrameworkInfo:
        """Releases, CPU levels and quantizations."""
        return FrameworkInfo(
            kind="llama.cpp",
            releases=RELEASES,
            isas=ISAS,
            quantizations={**{name: bits for name, (_, bits) in _TYPES.items()}, AS_IS: 16.0},
            cuda=llamacpp_cuda.BUILDS,
            quantizer_isa=next(isa for isa in ISAS if isa.name == "x86_64_v3"),
            model_bytes=model_bytes,
            model_steps=self.model_steps,
            converter_isa=llamacpp_convert.ISA,
            scorer=True,
        )

    def bundle_recipe(self, node: BundleNode) -> RecipeSource:
        """Runner, sampler, agent, llama-bench and perplexity; the quantizer alone; the converter; the app for iPhones."""
        if node.ios is not None:
            return apps.recipe_source(node, node.ios)
        labels = {
            "org.opencontainers.image.version": node.release.name,
            "org.opencontainers.image.revision": node.release.commit,
            "org.opencontainers.image.source": "https://github.com/ggml-org/llama.cpp",
            "org.opencontainers.image.licenses": "MIT",
        }
        if node.purpose == "convert":
            return llamacpp_convert.recipe(node, labels)
        place = resources.images() / "llama.cpp"
        folders = {"": place / "recipe", "toolchain": place / ("cuda" if node.cuda else "ndk" if node.ndk else "zig")}
        if node.purpose == "run":
            folders |= {"engine": place / "engine", "runner": resources.runner()}
        tools = ["melt-runner", "melt-sampler", "melt-agent", "llama-bench", "perplexity", "main"]
        march = {"march": _MARCH[node.isa.name]} if node.ndk else {}
        facts: Mapping[str, object] = {}
        if node.ndk:
            # The version is what the NDK says of itself when it is unpacked.
            facts = {"libc": "bionic", "api": node.ndk.api, **march, "ndk": "$revision"}
        return RecipeSource(
            name=f"llama.cpp/{node.release.name}/{node.purpose}/{node.isa.name}"
            + (f"-android{node.ndk.api}" if node.ndk else "")
            + (f"-jetpack{node.cuda.jetpack}" if node.cuda else ""),
            folders=folders,
            variables={
                "release": node.release.name,
                "commit": node.release.commit,
                "isa": node.isa.name,
                "triple": node.isa.triple,
                "features": list(node.isa.enable),
                "tools": tools if node.purpose == "run" else ["quantize"],
                "facts": facts,
                **({"api": node.ndk.api, **march} if node.ndk else {}),
                **(llamacpp_cuda.variables(node.cuda, node.isa.name) if node.cuda else {}),
            },
            inputs=node.sources,
            triple=node.isa.triple,
            phases=("configure", "compile", "install"),
            labels=labels,
        )

    def model_steps(self, source: Source, quantization: str, release: Release) -> tuple[ModelStep, ...]:
        """Converted where it must be, untied where the release needs it, quantized.

        The quantizer uses every core. Rows are quantized one by one, so their number changes no byte.
        """
        steps: list[ModelStep] = []
        if is_checkpoint(source):
            kind = "f32" if quantization == "f32" else "f16"
            steps.append(ModelStep("convert", "convert", llamacpp_convert.command(kind), shared=True))
        if release.name in _NEED_UNTYING:
            steps.append(ModelStep(UNTIE, run=gguf_files.untie))
        if quantization != AS_IS:
            kind = _TYPES[quantization][0]
            command = ("/bundle/bin/quantize", "--allow-requantize", "/source", "/out/model", kind)
            steps.append(ModelStep("quantize", "quantize", command))
        return tuple(steps)

    def check_model(self, path: Path) -> None:
        """Raise `ModelError` where a file is no GGUF file."""
        gguf_files.check(path)

    def check_checkpoint(self, files: Mapping[str, Path]) -> None:
        """Raise `ModelError` where a checkpoint is damaged or of an architecture that is not converted."""
        llamacpp_convert.check(files)
