"""What a manifest says of MLC besides its release: `frameworks.NAME.options`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from meltrepro.frameworks.llamacpp.kits import Ndk
from meltrepro.manifest.axes import Swept
from meltrepro.manifest.base import Name, Strict


class MlcOptions(Strict):
    """Options of MLC: how TVM runs a model."""

    isas: list[Name] = Field(
        default_factory=list, description="CPU levels to build besides those the targets need, for example armv8_a."
    )
    spinning: Swept[bool] = Field(
        True,
        description="Whether threads without work wait busily for a while, as TVM has it by itself; `false` lets them sleep.",
    )
    device: Literal["cpu", "opencl"] = Field(
        "cpu",
        description="What computes: the CPU, or OpenCL: on x86_64 that is PoCL, which computes on the CPU as well, on Android the device's.",
    )
    toolchain: Ndk | None = Field(
        None,
        description="Compiler of bundles for aarch64 Android devices; without it they get the wheels' libraries, and no OpenCL.",
    )
