"""The app for iPhones as a framework's bundle: what a manifest says of it, which variant it is, and its recipe.

A framework brings its part of the project for XcodeGen, `ios/project.yml` among its folders, and says what of the inputs lies where.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources.abc import Traversable
from typing import Self

from pydantic import Field, JsonValue, model_validator

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import AUTO, OptionProblem, Release, Skip, SkipKind, Variant
from meltrepro.manifest.base import Place, Sha256, Strict
from meltrepro.manifest.sources import FileSource, Source, UrlSource, check_place
from meltrepro.targets.base import DeviceFacts
from meltrepro.targets.ios.options import APP, IOS

APP_LEVEL = "ios_arm64"
APP_VARIANT = Variant(APP_LEVEL, APP_LEVEL, IOS, "libSystem", frozenset({"asimd"}))
"""The app; its compiler knows its own phones."""


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
        description="Zip of the release's xcframework, by path or https, http or file URL; where absent, it is built on the Mac, or "
        "comes with the framework's package.",
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
        check_place(file or "", self.digest)
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


@dataclass(frozen=True)
class ThirdParty:
    """What the Mac gets of an input, below `ios/third-party`."""

    input: str
    """A tar, or the zip of an xcframework, of which it gets what phones need."""
    place: str
    below: str = ""
    """Pattern of what stands before the names of those files in a tar that are taken."""
    only: tuple[str, ...] = ("",)
    """How these names go on."""


@dataclass(frozen=True)
class Library:
    """A library that the Mac makes there, before anything else."""

    folder: str
    script: str
    made: str
    """What the script leaves in its folder, which the project has beside that."""


@dataclass(frozen=True)
class AppParts:
    """A framework's part of the app."""

    folders: Mapping[str, Traversable]
    inputs: Mapping[str, Source]
    third_party: tuple[ThirdParty, ...]
    library: Library | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of its templates, besides the release's own."""


def app_variant(ios: IosBuild | None, device: DeviceFacts, level: str) -> Variant | Skip:
    """The app for an iPhone, or why there is none."""
    if level not in (AUTO, APP_LEVEL):
        return Skip(SkipKind.variant, f"it has no CPU level {level} for {device.arch}")
    if ios is None:
        missing = "its options do not say where the signed app for iPhones comes from: ios (docs/devices/ios.md)"
        return Skip(SkipKind.options, missing)
    there = device.facts.get("app", ios.app)
    if there != ios.app:
        return Skip(SkipKind.options, f"the target's app is {there}, and options.ios.app is {ios.app}")
    return APP_VARIANT


def idle_app(ios: IosBuild | None, isas: Collection[str], targets: Collection[str]) -> Iterator[OptionProblem]:
    """That nothing has any use for the app, or that it is asked for by its level."""
    for i, level in enumerate(isas):
        if level == APP_LEVEL:
            yield OptionProblem(("isas", i), "apps for iPhones are built where a target needs them", "leave it out")
    if ios is not None and "ios" not in targets:
        message = "it says where the app for iPhones comes from, and no target is one"
        yield OptionProblem(("ios",), message, "leave it out")


def pinned_app(ios: IosBuild) -> dict[str, JsonValue]:
    """What of it decides bytes: not which Mac it is, and who signs, for a lock could pin nothing of these."""
    return ios.model_dump(mode="json", exclude={"mac", "developer_dir", "team"})


def app_servers(ios: IosBuild | None) -> dict[tuple[str, ...], str]:
    """The Mac that builds the app."""
    return {("ios", "mac"): ios.mac} if ios is not None and ios.mac is not None else {}


def app_recipe(kind: str, ios: IosBuild, release: Release, parts: AppParts, labels: Mapping[str, str]) -> RecipeSource:
    """The recipe of a bundle that holds the signed app; `parameters.json` among its files says what it must be."""
    mac = ios.mac is not None
    parameters: dict[str, object] = {"release": release.name, "commit": release.commit, "app": ios.app}
    if mac:
        parameters |= {"xcode": ios.xcode, "xcodegen": ios.xcodegen, **parts.variables}
        parameters["third_party"] = [asdict(each) for each in parts.third_party]
        parameters["library"] = asdict(parts.library) if parts.library is not None else None
    shared = {name: resources.images() / name for name in ("ios", "runner")}
    place = {"mac": ios.mac, "developer_dir": ios.developer_dir, "team": ios.team}
    package = {"app.ipa": ios.file} if ios.file is not None else {}
    return RecipeSource(
        name=f"{kind}/{release.name}/run/{APP_LEVEL}",
        folders={**shared, **parts.folders} if mac else {},
        variables=parameters,
        inputs=parts.inputs if mac else package,
        triple=IOS,
        maker="mac-ssh" if mac else "prebuilt",
        signed=mac,
        place={key: value for key, value in place.items() if value is not None},
        labels=labels,
    )
