from __future__ import annotations

from collections.abc import Sequence

from meltrepro.settings import Settings
from meltrepro.targets.android.options import AndroidOptions
from meltrepro.targets.base import Attached, Engines, Target, TargetKind


class AndroidKind(TargetKind):
    kind = "android"
    family = "phone"
    options = AndroidOptions

    def most_w(self, cores: int) -> float:
        return 30.0

    def open(self, options: AndroidOptions, settings: Settings, engines: Engines | None) -> Target:
        from meltrepro.targets.android.target import open_target

        return open_target(options, settings)

    def attached(self, settings: Settings) -> Sequence[Attached]:
        from meltrepro.targets.android.target import attached

        return attached(settings)

    def absent(self) -> str:
        from meltrepro.targets.android.target import absent

        return absent()

    def named(self, text: str | None, settings: Settings) -> AndroidOptions | None:
        """Nothing at all means the only one that is attached."""
        from meltrepro.targets.android.target import lab_phones

        lab = next((phone.name for phone in lab_phones(settings) if text in (phone.name, phone.serial)), None)
        if text is None or lab is not None:
            return AndroidOptions(kind="android", lab=lab)
        kind, _, serial = text.partition(":")
        return AndroidOptions(kind="android", serial=serial) if kind == "android" else None


KIND = AndroidKind()
