from __future__ import annotations

from collections.abc import Sequence

from meltrepro.settings import Settings
from meltrepro.targets.base import Attached, Engines, Target, TargetKind
from meltrepro.targets.jetson.options import JetsonOptions


class JetsonKind(TargetKind):
    kind = "jetson"
    family = "board"
    options = JetsonOptions

    def most_w(self, cores: int) -> float:
        return 200.0

    def open(self, options: JetsonOptions, settings: Settings, engines: Engines | None) -> Target:
        from meltrepro.targets.jetson.target import open_target

        return open_target(options, settings)

    def attached(self, settings: Settings) -> Sequence[Attached]:
        from meltrepro.targets.jetson.target import attached

        return attached(settings)

    def named(self, text: str | None, settings: Settings) -> JetsonOptions | None:
        from meltrepro.targets.ssh.target import lab_boards

        if any(board.name == text for board in lab_boards(settings)):
            return JetsonOptions(kind="jetson", lab=text)
        kind, _, host = (text or "").partition(":")
        return JetsonOptions(kind="jetson", host=host) if kind == "jetson" and host else None

    def sudoers(self, options: JetsonOptions, settings: Settings, user: str | None) -> str:
        from meltrepro.targets.jetson.controls import sudoers
        from meltrepro.targets.ssh.target import route_of

        return sudoers(user or route_of(options, settings).user, options.root)


KIND = JetsonKind()
