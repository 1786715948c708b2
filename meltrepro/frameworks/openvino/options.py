"""What a manifest says of OpenVINO besides its release: `frameworks.NAME.options`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from meltrepro.manifest.axes import Swept
from meltrepro.manifest.base import Name, Strict


class OpenVinoOptions(Strict):
    """Options of OpenVINO: with which numbers it computes."""

    isas: list[Name] = Field(
        default_factory=list, description="CPU levels to build besides those the targets need, for example armv8."
    )
    inference_precision: Swept[Literal["f32", "bf16", "f16"]] = Field(
        "f32",
        description="Floats that it computes with; by itself OpenVINO takes those of 16 bits on some CPUs. What a CPU lacks is refused.",
    )
    kv_cache_precision: Swept[Literal["f32", "f16", "u8"]] = Field(
        "f16",
        description="Numbers of keys and values in their cache, `f16` as llama.cpp has them; OpenVINO by itself: u8.",
    )
    dynamic_quantization_group_size: Swept[Annotated[int, Field(ge=0, le=1 << 20)]] = Field(
        32,
        description="How many activations share a scale when they are rounded to 8 bits, to be multiplied by codes; 32 as OpenVINO has it by "
        "itself, 0: they are not rounded.",
    )
