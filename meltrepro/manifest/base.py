"""What every model that a user or another machine writes has in common."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


def _has_short_names(path: str) -> str:
    if any(len(name.encode("utf-8", "replace")) > 255 for name in path.split("/")):
        raise ValueError("expected a path of which no part has more than 255 bytes")
    return path


def _is_address(text: str) -> str:
    try:
        _ = urlsplit(text).port
    except ValueError as error:
        raise ValueError(f"expected an address: {error}") from error
    return text


def _stays_within(path: str) -> str:
    if {".", ".."} & set(path.split("/")):
        raise ValueError("expected a path that leads out of no folder")
    return path


_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=_NAME)]
"""A name that is safe as a path component, an MLflow tag and a command-line override."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Label = Annotated[str, StringConstraints(max_length=4096)]
"""A text on one line, such as a version or a name that another program gave."""
Place = Annotated[
    str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]*$"), AfterValidator(_has_short_names)
]
"""A path that somebody wrote; whether it leads anywhere is another question."""
Address = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_is_address)]
"""A URL or the like."""
WithinFolder = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^[^\x00/\\]+(/[^\x00/\\]+)*$"),
    AfterValidator(_stays_within),
    AfterValidator(_has_short_names),
]
"""A relative path that leads out of no folder."""
Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]
"""A time since 1970 or since a machine was started; the last one is in the year 2262."""
Bytes = Annotated[int, Field(ge=0, lt=2**62)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
"""A number of things, which a floating-point number holds too."""
Seed = Annotated[int, Field(ge=0, lt=2**64)]
"""What a runner takes as a seed; manifests ask for smaller ones."""
Seconds = Annotated[float, Field(ge=0, lt=1e10)]
"""A duration; the longest is three centuries."""


def is_name(text: str) -> bool:
    """Whether a text can be a `Name`."""
    return re.fullmatch(_NAME, text) is not None


def added(default: Any, **how: Any) -> Any:
    """A field that came later: no part of what is written, and so of no digest, where it has its default."""
    return Field(default, exclude_if=lambda value: value == default, **how)


class Strict(BaseModel):
    """Base of every model that a user or another machine writes: frozen, no unknown keys, no number that is none."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False, defer_build=True)


def changed(section: Strict, path: str) -> dict[str, str | int | float]:
    """What of a section is not its default, by the whole path of its key; what was taken away is `null`."""
    usual = type(section)()
    values = {f"{path}.{name}": value for name, value in section if value != getattr(usual, name)}
    return {name: "null" if value is None else value for name, value in values.items()}
