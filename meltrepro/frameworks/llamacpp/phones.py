"""llama.cpp on what Snapdragon phones have besides a CPU: OpenCL on Adreno, and the NPU, Hexagon. Built by an NDK, and not yet run.

Drivers are the phone's own, found while a program runs; one that is missing leaves no device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from meltrepro import resources
from meltrepro.frameworks.llamacpp import vulkan
from meltrepro.frameworks.llamacpp.vulkan import AddedPart
from meltrepro.manifest.sources import Source

PhonePart = Literal["opencl", "hexagon"]
RELEASES = frozenset({"2026-10-01"})
"""Releases of llama.cpp that can be built so: older ones have neither."""
NAMES: Mapping[PhonePart, str] = {"opencl": "OpenCL", "hexagon": "Hexagon"}
_HEADERS = {
    "opencl-c-headers_3.0~2023.02.06-1_all": "81fedfd0a14a0694c4f6097faea417e1d9afc0c80cb41aa9e7b65e2c51f5fc4b",
}
"""Khronos's declarations: the library is the phone's."""


def part(kind: PhonePart, sdk: Source | None) -> AddedPart:
    """What a recipe with an NDK has besides; `sdk` is Qualcomm's, which Hexagon takes."""
    inputs: Mapping[str, Source]
    if kind == "opencl":
        inputs = vulkan.packages("", _HEADERS, "bookworm", "")
    else:
        inputs = {} if sdk is None else {"hexagon": sdk}
    folders = {**vulkan.with_ndk(), kind: resources.images() / "llama.cpp" / kind}
    return AddedPart(folders, {"part": kind}, {kind: "device"}, inputs)
