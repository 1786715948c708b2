"""Settings of a device: read, set, read again, and put back, whatever happened in between.

How a setting was is written to the device before it is changed, so that any later campaign, from any machine, can put
it back: `<root>/settings.json`, by the setting's name.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from meltrepro.errors import TargetError
from meltrepro.targets.base import TriedSetting
from meltrepro.targets.remote.shell import Shell

_VALUE = re.compile(r"[\w.,:+-]{1,64}")
"""What a value may look like; anything else that a device says is no answer."""
_TAKES_EFFECT_S = 3.0
_PAUSE_S = 0.1
_READ = 'if [ -f "$1" ]; then cat "$1"; else echo "{}"; fi'
# Only what has arrived whole takes the place of what was known before.
_WRITE = 'mkdir -p "${1%/*}" && cat > "$1.part" && [ "$(stat -c %s "$1.part")" = "$2" ] && mv "$1.part" "$1"'
_REMOVE = 'rm -f "$1"'


@dataclass(frozen=True)
class Control:
    """One setting by the commands of a device; its values are words."""

    name: str
    get: tuple[str, ...]
    """The command that tells it."""
    value: Callable[[str], str | None]
    """The value in what that command prints; `None` where there is none."""
    set: Callable[[str], tuple[str, ...]]
    """The command that sets a value."""
    other: Callable[[str], str]
    """A harmless value unlike the given one, to try it out."""
    severs_wireless: str | None = None
    """The value with which a device on a wireless link could not be reached any more."""


class Controls:
    """The settings of one device."""

    def __init__(self, shell: Shell, controls: Sequence[Control], path: str, *, wireless: Callable[[], bool]) -> None:
        """`path` is the file on the device that remembers how settings were; `wireless` tells how it is reached now."""
        self._shell = shell
        self._controls = {control.name: control for control in controls}
        self._path = path
        self._wireless = wireless

    def adjust(self, wanted: Mapping[str, str]) -> None:
        """Make these settings hold, in this order, and no others that were changed before; those that do are left alone.

        Raises `TargetError` where one cannot be read or does not take effect, `TargetLost`.
        """
        before = self._remembered()
        for name in [name for name in before if name not in wanted]:  # another target's, on the same device
            self._set(self._control(name), before[name])
            del before[name]
            self._remember(before)
        for name, value in wanted.items():
            control = self._control(name)
            now = self._get(control)
            if now == value:
                continue
            if name not in before:
                before[name] = now
                self._remember(before)
            self._set(control, value)

    def restore(self) -> Mapping[str, str]:
        """Put back what `adjust` has changed, also that of another process; returns it by name.

        Raises `TargetError` where some cannot be put back, after all others were; `TargetLost`.
        """
        before = self._remembered()
        done: dict[str, str] = {}
        refused: list[str] = []
        for name, value in reversed(before.items()):
            try:
                self._set(self._control(name), value)
                done[name] = value
            except TargetError as error:
                if error.transient:
                    raise
                refused.append(error.message)
        if before:
            self._remember({name: value for name, value in before.items() if name not in done})
        if refused:
            raise TargetError(
                f"{self._shell.link.name}: cannot put back its settings: {'; '.join(refused)}",
                hint=f"set them by hand, then remove {self._path} on the device",
            )
        return done

    def try_out(self) -> Sequence[TriedSetting]:
        """Set each setting to another value and back; raises `TargetLost`."""
        return [self._try(control) for control in self._controls.values()]

    def _try(self, control: Control) -> TriedSetting:
        if control.severs_wireless and self._wireless():
            return TriedSetting(control.name, None, None, "not tried: it would cut the wireless link")
        before: str | None = None
        try:
            before = self._get(control)
            other = control.other(before)
            try:
                self.adjust({control.name: other})
            finally:
                self.restore()
            return TriedSetting(control.name, before, other)
        except TargetError as error:
            if error.transient:
                raise
            return TriedSetting(control.name, before, None, error.message)

    def _control(self, name: str) -> Control:
        if name not in self._controls:
            raise TargetError(f"{self._shell.link.name}: has no setting {name!r}")
        return self._controls[name]

    def _get(self, control: Control) -> str:
        reply = self._shell.run(control.get)
        found = control.value(reply.text) if reply.status == 0 else None
        if found is None or not _VALUE.fullmatch(found):
            said = (reply.err.strip() or reply.text)[:100]
            raise TargetError(f"{self._shell.link.name}: does not tell its setting {control.name}: {said!r}")
        return found

    def _set(self, control: Control, value: str) -> None:
        """Set it and see that it holds; raises `TargetError`."""
        if value == control.severs_wireless and self._wireless():
            raise TargetError(
                f"{self._shell.link.name}: {control.name} would cut the wireless link", hint="attach the device by USB"
            )
        self._shell.expect(self._shell.run(control.set(value)), f"set {control.name} to {value}")
        until = time.monotonic() + _TAKES_EFFECT_S
        while (found := self._get(control)) != value:
            if time.monotonic() > until:
                raise TargetError(f"{self._shell.link.name}: {control.name} was set to {value} and stays {found}")
            time.sleep(_PAUSE_S)

    def _remembered(self) -> dict[str, str]:
        text = self._shell.expect(self._shell.script(_READ, self._path), "read its earlier settings").text
        try:
            known = json.loads(text)
            if not all(_VALUE.fullmatch(value) for value in known.values()):
                raise ValueError("no settings")
        except (ValueError, TypeError, AttributeError) as error:
            raise TargetError(
                f"{self._shell.link.name}: {self._path} is damaged, so that its earlier settings are not known: {text[:80]!r}",
                hint="set the device as it should be, then remove that file",
            ) from error
        return dict(known)

    def _remember(self, values: Mapping[str, str]) -> None:
        if values:
            data = json.dumps(values).encode()
            reply = self._shell.script(_WRITE, self._path, str(len(data)), source=[data])
        else:
            reply = self._shell.script(_REMOVE, self._path)
        self._shell.expect(reply, "remember its settings")
