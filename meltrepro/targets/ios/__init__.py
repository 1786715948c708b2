from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from meltrepro.build.model import Maker
from meltrepro.settings import Settings
from meltrepro.targets.base import Attached, Engines, Target, TargetKind
from meltrepro.targets.ios.options import IosOptions


def _mac() -> Maker:
    from meltrepro.targets.ios.mac_build import MacMaker

    return MacMaker()


def _prebuilt() -> Maker:
    from meltrepro.targets.ios.prebuilt import Prebuilt

    return Prebuilt()


class IosKind(TargetKind):
    kind = "ios"
    family = "phone"
    options = IosOptions
    makers: ClassVar = {"mac-ssh": _mac, "prebuilt": _prebuilt}

    def most_w(self, cores: int) -> float:
        return 30.0

    def open(self, options: IosOptions, settings: Settings, engines: Engines | None) -> Target:
        from meltrepro.targets.ios.target import open_target

        return open_target(options, settings)

    def attached(self, settings: Settings) -> Sequence[Attached]:
        from meltrepro.targets.ios.devices import attached

        return attached(settings)

    def absent(self) -> str | None:
        from meltrepro.targets.ios.devices import installed
        from meltrepro.targets.ios.errors import how_to_install

        return None if installed() else f"iPhones are not looked for: {how_to_install()}"

    def named(self, text: str | None, settings: Settings) -> IosOptions | None:
        from meltrepro.targets.ios.devices import lab_phones

        lab = next((phone.name for phone in lab_phones(settings) if text in (phone.name, phone.udid)), None)
        if lab is not None:
            return IosOptions(kind="ios", lab=lab)
        kind, _, udid = (text or "").partition(":")
        return IosOptions(kind="ios", udid=udid) if kind == "ios" and udid else None

    def pair(self, name: str, settings: Settings, tell: Callable[[str], object]) -> None:
        from meltrepro.targets.ios.devices import pair

        pair(name, settings, tell)


KIND = IosKind()
