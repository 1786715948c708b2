"""The bundle that compiles models: TVM with LLVM, on the interpreter of converters, with the linker of our toolchain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meltrepro import resources
from meltrepro.build.model import Interpreter, RecipeSource
from meltrepro.frameworks.base import ModelStep, Release, Variant
from meltrepro.frameworks.llamacpp import convert
from meltrepro.frameworks.llamacpp.variants import LEVELS
from meltrepro.frameworks.prebuilt import glibc
from meltrepro.frameworks.prebuilt.android import API
from meltrepro.manifest.sources import PypiSource, Source

PURPOSE = "compile"
VARIANT = Variant("x86_64", "x86_64", "x86_64-linux-gnu", "glibc")
"""Of the bundle: what it compiles for is told in the command."""


@dataclass(frozen=True)
class CpuLevel:
    """A CPU level as LLVM knows it."""

    level: str
    machine: str
    cpu: str
    lanes: int
    """Floats of a vector."""
    features: str = ""

    @property
    def variant(self) -> Variant:
        triple = f"{self.machine}-linux-gnu"
        return Variant(self.level, self.level, triple, glibc.VERSION, LEVELS[self.level].requires)


TARGETS = (
    CpuLevel("x86_64_v4", "x86_64", "x86-64-v4", 16),
    CpuLevel("x86_64_v3", "x86_64", "x86-64-v3", 8),
    CpuLevel("armv8_a", "aarch64", "generic", 4, "+neon"),
)
"""Those of a machine from the best on. Older x86_64 CPUs cannot widen floats of 16 bits."""
_SOURCES: Mapping[str, Source] = {
    "ml-dtypes.whl": PypiSource(
        pypi="ml-dtypes",
        version="0.6.0",
        filename="ml_dtypes-0.6.0-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        digest="26b1f1fa4f0435a2946859823f6e2bf06796f1e9f10f5a05b08a5e3c8f46ff69",
    ),
    **{name: convert.SOURCES[name] for name in ("numpy.whl", "typing-extensions.whl")},
}


def step(variant: Variant) -> ModelStep:
    """The step that adds code for a variant's CPU, or for a device with that host, to a folder of weights."""
    target = next(each for each in TARGETS if each.level == variant.level)
    system = "linux-android" if API in variant.data else "unknown-linux-gnu"
    device = str(variant.data.get("device", "cpu"))
    loader = ("/bundle/lib/ld-linux-x86-64.so.2", "--library-path", "/bundle/lib")
    python = (*loader, "/bundle/bin/python3", "-I", "-S", "-B", "/bundle/compile.py")
    what = (f"{target.machine}-{system}", target.cpu, target.features, str(target.lanes), device)
    command = (*python, *what, "/source", "/out/model")
    return ModelStep("compile", PURPOSE, command, output="folder", per_variant=True)


def recipe(kind: str, release: Release, labels: Mapping[str, str]) -> RecipeSource:
    """The recipe of the compiler's bundle."""
    wheels = {f"{name}.whl": release.sources[f"{name}-x86_64.whl"] for name in ("apache-tvm", "apache-tvm-ffi")}
    return RecipeSource(
        name=f"{kind}/{release.name}/{PURPOSE}",
        folders={"": resources.images() / kind / "compiler"},
        variables={"release": release.name, "python": convert.PYTHON},
        inputs={**wheels, **_SOURCES},
        triple="x86_64-linux-musl",  # for which the toolchain has zig, whose linker goes along
        labels=labels,
        interpreter=Interpreter.python,
    )
