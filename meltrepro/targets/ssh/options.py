"""What a manifest says of a Linux machine behind SSH."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from meltrepro.manifest.base import Name
from meltrepro.targets.remote.options import RemoteOptions

IMAGE = r"^([a-z0-9][a-z0-9._/:-]{0,200}@)?sha256:[0-9a-f]{64}$"
"""An image by digest, or by its id."""


class BoardOptions(RemoteOptions):
    """A Linux board behind SSH (docs/devices/jetson.md)."""

    reached_by: ClassVar = ("host", "lab")

    host: str | None = Field(
        None,
        pattern=r"^[^\s-][^\s]*$",
        description="How ssh calls it: an alias of ~/.ssh/config, or user@host:port.",
    )
    lab: Name | None = Field(None, description="A virtual device of `meltrepro lab`, by its name.")
    root: str = Field(
        "/var/tmp/meltrepro",
        pattern=r"^/[^\x00-\x1f]*[^\x00-\x1f/]$",
        description="Folder on the device for everything that trials need; must allow to run programs.",
    )

    container: bool | Annotated[str, StringConstraints(pattern=IMAGE)] = Field(
        False,
        description="Run trials in a container there: in the image of the bundle, or in one that the board has, by digest.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.host is None) == (self.lab is None):
            raise ValueError("a board is named by one of 'host' and 'lab'")
        return self

    @property
    def server(self) -> str | None:
        """The board, unless it is one of the lab."""
        return self.host


class LinuxOptions(BoardOptions):
    """Any Linux machine behind SSH (docs/devices/jetson.md)."""

    kind: Literal["linux"] = Field(description="Which kind of target this is.")
