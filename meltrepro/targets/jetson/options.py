"""What a manifest says of a Jetson board."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from meltrepro.manifest.base import Strict
from meltrepro.targets.ssh.options import BoardOptions


class JetsonSettings(Strict):
    """Settings of a board that hold while trials run, and are put back afterwards; what is absent is left alone."""

    # Set in this order: clocks are pinned to what the power mode allows.

    power_mode: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_]{1,64}$", description="Power mode by its name in /etc/nvpmodel.conf, such as MAXN."
    )
    clocks: Literal["pinned", "free"] | None = Field(
        None, description="Whether jetson_clocks holds all clocks at what the power mode allows."
    )
    fan: Literal["fastest", "controlled"] | None = Field(None, description="Whether the fan turns as fast as it can.")

    @field_validator("power_mode")
    @classmethod
    def _short(cls, name: str | None) -> str | None:
        """The file says `MODE_30W`, people say `30W`: one name for both, so that both are the same setting."""
        return None if name is None else name.removeprefix("MODE_")


class JetsonOptions(BoardOptions):
    """An NVIDIA Jetson behind SSH (docs/devices/jetson.md)."""

    kind: Literal["jetson"] = Field(description="Which kind of target this is.")
    rails: Literal["melt", "all"] | Annotated[list[str], Field(min_length=1)] = Field(
        "melt",
        description="Which power rails make its energy: those that MELT summed, all that do not count one another, or "
        "these, by their labels.",
    )
    settings: JetsonSettings = JetsonSettings()
    tegrastats: bool = Field(False, description="Sample what tegrastats says besides, once a second, to compare with.")

    @property
    def asked(self) -> Mapping[str, object]:
        return {**self.settings.model_dump(exclude_none=True, exclude_defaults=True), **super().asked}
