"""What the small files under `refs/` must hold, by kind: whoever looks one up may then take it at its word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from meltrepro.manifest.base import Bytes, Label, Sha256
from meltrepro.untrusted import as_model


class _Result(BaseModel):
    digest: Sha256
    name: Label = ""


class _File(_Result):
    size: Bytes = 0


class _Packages(BaseModel):
    packages: list[tuple[Label, Label, Label, Sha256]]
    """Name, version, architecture, digest."""


class _Root(BaseModel):
    path: str


_KINDS: Mapping[str, type[BaseModel]] = {
    "artifacts": _Result,
    "base": _Packages,
    "base-layer": _Result,
    "converted": _Result,
    "files": _File,
    "interpreter": _Packages,
    "roots": _Root,
    "toolchain": _Result,
}
"""Of other kinds every mapping is fine; who looks up a pin reads it with its own model."""


def checked(kind: str, value: object) -> dict[str, Any]:
    """The value of a ref; raises `ValueError` where it is not what refs of its kind hold."""
    if not isinstance(value, dict):
        raise ValueError("expected a mapping")
    if kind in _KINDS:
        as_model(_KINDS[kind], value)
    return value
