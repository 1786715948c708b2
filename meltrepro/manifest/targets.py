"""Targets in a manifest: what all of them have in common. What a kind adds stands in its package, in `options.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from meltrepro.manifest.base import Name, Strict
from meltrepro.manifest.kinds import OfKind
from meltrepro.manifest.meters import Meter
from meltrepro.registry import TARGETS


class TargetOptions(Strict):
    """What all devices have in common, and what others need to know of any of them."""

    kind: str = Field(description="Which kind of target this is.")
    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of the runner; the number of usable cores where absent."
    )
    isa: Name | Literal["auto"] = Field(
        "auto", description="CPU level of the binaries; auto picks the best that the CPU has."
    )
    meter: Meter | None = Field(None, description="A meter that measures the power that the device draws.")

    @property
    def server(self) -> str | None:
        """The machine that the user's SSH login is for; `None` for what is here or hangs at a cable."""
        return None

    @property
    def usable_cores(self) -> int | None:
        """How many CPUs a runner is confined to; `None` for no fewer than there are."""
        return None

    @property
    def asked(self) -> Mapping[str, object]:
        """How the device is to be while trials run, by the names of its settings."""
        return {}

    @property
    def here(self) -> bool:
        """Whether it is this machine, whose trials read what its store has."""
        return False

    @property
    def contained(self) -> bool:
        """Whether programs run in a sandbox of this machine's engine."""
        return False

    @property
    def runs_programs(self) -> bool:
        """Whether any program of a bundle can run there, not the runner alone."""
        return True


Target = Annotated[TargetOptions, OfKind(TARGETS, "target", "host")]
