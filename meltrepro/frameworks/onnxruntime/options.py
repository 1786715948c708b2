"""What a manifest says of ONNX Runtime besides its release: `frameworks.NAME.options`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from meltrepro.frameworks.llamacpp.kits import Ndk
from meltrepro.manifest.axes import Swept
from meltrepro.manifest.base import Name, Strict, added
from meltrepro.targets.ios.app_recipe import IosBuild


class OnnxOptions(Strict):
    """Options of ONNX Runtime: how it runs a model."""

    isas: list[Name] = Field(
        default_factory=list, description="CPU levels to build besides those the targets need, for example armv8."
    )
    graph_optimization: Swept[Literal["off", "basic", "extended", "all"]] = Field(
        "all", description="How far ONNX Runtime rewrites the graph when it loads a model."
    )
    spinning: Swept[bool] = Field(
        True,
        description="Whether threads without work wait busily for a while, as ONNX Runtime has it by itself; `false` lets them sleep.",
    )
    toolchain: Ndk | None = added(
        None,
        description="Compiler of bundles for aarch64 Android devices; without it they get the wheel's library, with its C library.",
    )
    ios: IosBuild | None = added(
        None, description="Where the signed app for iPhones comes from; without it iPhones are left out."
    )
