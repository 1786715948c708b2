"""Targets in a manifest: what all of them have in common. What a kind adds stands in its package, in `options.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from meltrepro.manifest import cpus
from meltrepro.manifest.base import Label, Name, Strict, added
from meltrepro.manifest.kinds import OfKind
from meltrepro.manifest.meters import Meter
from meltrepro.registry import TARGETS


class Assumed(Strict):
    """What a device is taken for while it is not there."""

    arch: Label = Field(description="Machine as `uname -m` spells it: aarch64, x86_64.")
    features: list[Label] = Field(
        default_factory=list, description="CPU features as /proc/cpuinfo spells them: [asimd, asimddp, asimdhp]."
    )


class TargetOptions(Strict):
    """What all devices have in common, and what others need to know of any of them."""

    machines: ClassVar[Mapping[str, frozenset[str]]] = cpus.FEATURES
    """The machines that devices of this kind may be, each with the CPU features that there are."""
    reached_by: ClassVar[tuple[str, ...] | None] = None
    """The options that say where a device is; `None` for all that its kind has of its own."""

    kind: str = Field(description="Which kind of target this is.")
    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of the runner; the number of usable cores where absent."
    )
    isa: Name | Literal["auto"] = Field(
        "auto", description="CPU level of the binaries; auto picks the best that the CPU has."
    )
    meter: Meter | None = Field(None, description="A meter that measures the power that the device draws.")
    max_power_w: float | None = added(
        None,
        gt=0,
        le=1e6,
        description="The most that the device can draw, where that is not what its kind usually does; what shows more, or less "
        "than a thousandth of it, is in another unit.",
    )
    any: int | None = added(
        None,
        ge=1,
        le=1000,
        description="So many devices of a lab of many hosts, each measured in full as a target of its own: `phones` becomes `phones1`, `phones2`, ... (docs/lab.md).",
    )
    where: dict[Label, Label] = added(
        {},
        description="Which devices of a lab may be taken: what each says of itself (id, node, model, arch, system, or a fact of it), with * for any text.",
    )
    assume: Assumed | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="What the device is, to plan, lock and build for it while it is not there; a device that is there is asked.",
    )

    @property
    def place(self) -> Mapping[str, object]:
        """How the device is reached: what is learnt of it is remembered by that."""
        own = self.model_dump(mode="json", exclude_none=True, exclude=set(TargetOptions.model_fields))
        return {name: value for name, value in own.items() if self.reached_by is None or name in self.reached_by}

    @property
    def virtual(self) -> bool:
        """Whether it is one of the lab's."""
        return getattr(self, "lab", None) is not None

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
