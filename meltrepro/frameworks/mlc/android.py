"""What Android devices run, which the NDK links to their own C library: TVM's runtime, compiled of the sources in its wheels.

With it there is OpenCL, by the device's own driver, which no program with another C library could load.
"""

from __future__ import annotations

from dataclasses import replace

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import Variant
from meltrepro.frameworks.llamacpp.options import Ndk
from meltrepro.frameworks.llamacpp.variants import MARCH

API = "api"
"""What only the data of such a variant has: the API level."""
_TOOLS = ("melt-runner", "melt-scorer", "melt-sampler", "melt-agent")


def variant(cpu: Variant, ndk: Ndk, device: str) -> Variant:
    """What runs in place of an engine for a CPU, on it or on OpenCL."""
    gpu = device == "opencl"
    return replace(
        cpu,
        name=f"{cpu.name}-android{ndk.api}" + ("-opencl" if gpu else ""),
        triple=f"{cpu.machine}-linux-android{ndk.api}",
        libc="bionic",
        accelerator="OpenCL" if gpu else "",
        data={"device": "adreno" if gpu else "cpu", API: ndk.api, "march": MARCH[cpu.level]},
    )


def linked(recipe: RecipeSource, variant: Variant, ndk: Ndk) -> RecipeSource:
    """The recipe of a bundle for Linux, with the NDK in place of zig and of a C library."""
    place = resources.images()
    return replace(
        recipe,
        folders={
            **recipe.folders,
            "toolchain": place / "llama.cpp" / "ndk",
            "library": place / "mlc" / "ndk",
            "opencl": place / "mlc" / "opencl",
        },
        variables={**recipe.variables, API: variant.data[API], "march": variant.data["march"], "tools": list(_TOOLS)},
        inputs={
            **{name: source for name, source in recipe.inputs.items() if not name.endswith(".deb")},
            "ndk": ndk.source,
        },
        triple=variant.triple,
    )
