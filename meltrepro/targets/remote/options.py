"""What a manifest says of any device behind a link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from meltrepro.manifest.targets import TargetOptions

Cores = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$")]


def cpus(text: str) -> frozenset[int]:
    """The CPUs in a list as Linux writes it (`0,4-7`); raises `ValueError`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


class RemoteOptions(TargetOptions):
    """What all devices behind a link have in common."""

    cores: Cores | None = Field(
        None,
        description="CPUs that the runner may use, as Linux lists them: 4-7, or 0,4-5. It is seen to that it does.",
    )
    reconnect_s: float = Field(
        60, ge=0, le=3600, description="How long a device that went away is waited for before a trial fails."
    )

    @model_validator(mode="after")
    def _has_cores(self) -> Self:
        if self.cores is not None and not cpus(self.cores):
            raise ValueError(f"expected CPUs in ascending order, as in 4-7, got {self.cores!r}")
        if self.cores is not None and self.threads is not None and self.threads > len(cpus(self.cores)):
            raise ValueError(f"expected at most as many threads as cores: {self.threads} threads on CPUs {self.cores}")
        return self

    @property
    def usable_cores(self) -> int | None:
        return len(cpus(self.cores)) if self.cores else None

    @property
    def asked(self) -> Mapping[str, object]:
        return {"cores": self.cores} if self.cores else {}
