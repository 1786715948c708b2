"""What Android devices run, which the NDK links to their own C library: TVM's runtime, compiled of the sources in its wheels.

With it there is OpenCL, by the device's own driver, which no program with another C library could load.
"""

from __future__ import annotations

from dataclasses import replace

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import Variant


def variant(cpu: Variant, device: str) -> Variant:
    """What runs in place of an engine for a CPU with bionic, on it or on OpenCL."""
    gpu = device == "opencl"
    return replace(
        cpu,
        name=f"{cpu.name}-opencl" if gpu else cpu.name,
        accelerator="OpenCL" if gpu else "",
        data={"device": "adreno" if gpu else "cpu", **cpu.data},
    )


def linked(recipe: RecipeSource) -> RecipeSource:
    """The recipe of a bundle that the NDK links, with TVM's sources."""
    place = resources.images() / "mlc"
    return replace(recipe, folders={**recipe.folders, "library": place / "ndk", "opencl": place / "opencl"})
