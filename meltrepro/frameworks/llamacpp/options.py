"""What a manifest says of llama.cpp besides its release: `frameworks.NAME.options`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from meltrepro.manifest.base import Name, Place, Sha256, Strict
from meltrepro.manifest.sources import FileSource, TreeSource, UrlSource
from meltrepro.targets.ios.options import APP

ALL_LAYERS = 999
"""What a runner is asked for where every layer is to run on the GPU; more than any model has."""


def _check_place(place: str, digest: str | None) -> None:
    """Raise `ValueError` for a URL of another kind, and for one whose bytes no digest pins."""
    scheme, separator, _ = place.partition("://")
    if separator and scheme not in ("https", "http", "file"):
        raise ValueError("expected a path, or a URL that begins with https, http or file")
    if separator and digest is None:
        raise ValueError("the key 'digest' is missing: a URL alone pins nothing")


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
        _check_place(self.ndk, self.digest)
        return self

    @property
    def source(self) -> UrlSource | TreeSource:
        """Where the NDK comes from."""
        if "://" in self.ndk and self.digest is not None:
            return UrlSource(url=self.ndk, digest=self.digest)
        return TreeSource(file=self.ndk, digest=self.digest)


class Cuda(Strict):
    """CUDA for Jetson boards: their bundles run layers on the GPU (docs/devices/jetson.md)."""

    jetpack: str = Field(min_length=1, description="Release of JetPack whose CUDA is built for, for example 7.2.")


class IosBuild(Strict):
    """The app for iPhones (docs/devices/ios.md): built by a Mac behind SSH, or a signed package as it is."""

    mac: str | None = Field(
        None,
        pattern=r"^[^\s-][^\s]*$",
        description="The Mac that builds and signs the app, as ssh calls it: an alias of ~/.ssh/config, or user@host:port.",
    )
    xcode: str | None = Field(
        None,
        pattern=r"^[0-9]+(\.[0-9]+){1,2} \([0-9]+[A-Z][0-9]+[a-z]?\)$",
        description="The Xcode that it must have, version and build: 26.1 (17B55). Any other one is refused.",
    )
    xcodegen: str | None = Field(
        None, pattern=r"^[0-9]+(\.[0-9]+){1,2}$", description="The version of XcodeGen that it must have."
    )
    developer_dir: str | None = Field(
        None,
        pattern=r"^/[^\x00-\x1f]*$",
        description="Where that Xcode lies on the Mac (its Contents/Developer); the selected one where absent.",
    )
    team: str | None = Field(
        None,
        pattern=r"^[A-Z0-9]{10}$",
        description="Id of the development team that signs; that of MELTREPRO_IOS_TEAM where absent.",
    )
    xcframework: Place | None = Field(
        None,
        description="Zip of llama.cpp's xcframework of the release, by path or https, http or file URL; built on the Mac "
        "where absent.",
    )
    ipa: Place | None = Field(
        None,
        description="The signed app itself, by path or https, http or file URL, instead of a Mac that builds it.",
    )
    digest: Sha256 | None = Field(
        None, description="sha256 of the package (`ipa`) or of the zip (`xcframework`); a URL needs it."
    )
    app: str = Field(
        APP,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,154}$",
        description="Bundle id of the app, the same as in the target; a team may not sign the usual one.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.mac is None) == (self.ipa is None):
            raise ValueError("expected exactly one of the keys mac, ipa")
        of_macs = ("xcode", "xcodegen", "developer_dir", "team", "xcframework")
        given = [key for key in of_macs if getattr(self, key) is not None]
        if self.ipa is not None and given:
            raise ValueError(f"expected none of the keys {', '.join(of_macs)} beside ipa, got {', '.join(given)}")
        missing = [key for key in ("xcode", "xcodegen") if self.mac is not None and getattr(self, key) is None]
        if missing:
            raise ValueError(f"the key {missing[0]!r} is missing: what a Mac happens to have pins nothing")
        file = self.ipa or self.xcframework
        if file is None and self.digest is not None:
            raise ValueError("the key 'digest' is that of ipa or xcframework, and there is neither")
        _check_place(file or "", self.digest)
        return self

    @property
    def file(self) -> UrlSource | FileSource | None:
        """The package or the zip; `None` where the Mac builds everything."""
        name = self.ipa or self.xcframework
        if name is None:
            return None
        if "://" in name and self.digest is not None:
            return UrlSource(url=name, digest=self.digest)
        return FileSource(file=name, digest=self.digest)


class Options(Strict):
    """Options of llama.cpp: how it is built, and how it runs a model."""

    toolchain: Ndk | None = Field(
        None,
        description="Compiler of bundles for aarch64 Android devices; the pinned zig with static musl where absent.",
    )
    cuda: Cuda | None = Field(None, description="Builds bundles of Jetson boards with CUDA; CPUs alone where absent.")
    ios: IosBuild | None = Field(
        None, description="Where the signed app for iPhones comes from; without it iPhones are left out."
    )
    isas: list[Name] = Field(
        default_factory=list, description="CPU levels to build besides those the targets need, for example armv8_2."
    )
    gpu_layers: Annotated[int, Field(ge=0, le=ALL_LAYERS)] | Literal["all"] | None = Field(
        None, description="How many layers run on the GPU; all where absent. Needs cuda, and means nothing on CPUs."
    )
    mmap: bool = Field(
        True,
        description="Whether the runner maps the model file into memory. A release that repacks weights for the CPU then holds them twice; `false` reads them.",
    )

    @model_validator(mode="after")
    def _gpu(self) -> Self:
        if self.gpu_layers is not None and self.cuda is None:
            raise ValueError("gpu_layers needs cuda: nothing else that is built here uses a GPU")
        return self
