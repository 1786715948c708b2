"""What a manifest says of MLC besides its release: `frameworks.NAME.options`."""

from __future__ import annotations

from pydantic import Field

from meltrepro.manifest.base import Name, Strict


class MlcOptions(Strict):
    """Options of MLC: how TVM runs a model."""

    isas: list[Name] = Field(
        default_factory=list, description="CPU levels to build besides those the targets need, for example armv8_a."
    )
    spinning: bool = Field(
        True,
        description="Whether threads without work wait busily for a while, as TVM has it by itself; `false` lets them sleep.",
    )
