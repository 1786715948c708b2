"""Kits by which others' devices are built for, and which a user brings: Android's NDK, Qualcomm's Hexagon SDK."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Self

from pydantic import Field, model_validator

from meltrepro.frameworks.base import OptionProblem
from meltrepro.manifest.base import Place, Sha256, Strict
from meltrepro.manifest.sources import TreeSource, UrlSource, check_place
from meltrepro.targets.base import DeviceFacts


def _tree(place: str, digest: str | None) -> UrlSource | TreeSource:
    if "://" in place and digest is not None:
        return UrlSource(url=place, digest=digest)
    return TreeSource(file=place, digest=digest)


class Ndk(Strict):
    """The Android NDK as compiler for Android devices: linked to the device's own C library, bionic."""

    ndk: Place = Field(
        description="Folder or zip of an NDK for Linux on x86_64, or the https, http or file URL of its zip.",
    )
    digest: Sha256 | None = Field(
        None, description="sha256 of the zip, or of the tar that a folder is packed into; a URL needs it."
    )
    api: int = Field(
        29, ge=23, le=99, description="Android API level that the programs are for; older devices cannot run them."
    )

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        check_place(self.ndk, self.digest)
        return self

    @property
    def source(self) -> UrlSource | TreeSource:
        """Where the NDK comes from."""
        return _tree(self.ndk, self.digest)

    def misfit(self, device: DeviceFacts) -> str | None:
        """Why a device cannot run what this links."""
        there = device.facts.get("sdk", "")
        if there.isdecimal() and int(there) < self.api:
            return f"it is built for Android API level {self.api}, and the device has {there}"
        return None


class Hexagon(Strict):
    """The NPU of Snapdragon phones, by Qualcomm's SDK, which you bring (docs/frameworks/llama.cpp.md)."""

    sdk: Place = Field(
        description="Folder or zip of the Hexagon SDK for Linux on x86_64, or the https, http or file URL of its zip."
    )
    digest: Sha256 | None = Field(
        None, description="sha256 of the zip, or of the tar that a folder is packed into; a URL needs it."
    )

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        check_place(self.sdk, self.digest)
        return self

    @property
    def source(self) -> UrlSource | TreeSource:
        """Where the SDK comes from."""
        return _tree(self.sdk, self.digest)


def idle_toolchain(toolchain: Ndk | None, targets: Collection[str]) -> Iterator[OptionProblem]:
    """That no target of these kinds has any use for an NDK."""
    if toolchain is not None and "android" not in targets:
        message = "the NDK builds for Android devices, and no target is one"
        yield OptionProblem(("toolchain",), message, "leave it out: zig builds the rest")
