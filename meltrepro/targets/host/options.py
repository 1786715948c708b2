"""What a manifest says of this machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from meltrepro.manifest.targets import TargetOptions


class HostOptions(TargetOptions):
    """This machine."""

    kind: Literal["host"] = Field("host", description="Which kind of target this is.")
    sandbox: Literal["container", "bare"] = Field(
        "container",
        description="Run in a sandbox of the engine (a container, or bubblewrap), without network, or as a plain process.",
    )

    @property
    def here(self) -> bool:
        return True

    @property
    def contained(self) -> bool:
        return self.sandbox == "container"
