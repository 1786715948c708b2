"""The settings of Android devices that a measurement may want otherwise, by commands that the shell user may run."""

from __future__ import annotations

import re
from collections.abc import Mapping

from meltrepro.targets.android.options import AndroidSettings
from meltrepro.targets.remote.controls import Control

_NULL = "null"
"""What `settings` says of a key that was never set."""
_WAKE, _SLEEP = "224", "223"
"""Keys of the screen that, unlike the power key, do not toggle."""
_PLUGGED_ANYWHERE = "15"
"""AC, USB, wireless and dock, as `stay_on_while_plugged_in` counts them."""
_LONGEST_TIMEOUT_MS = "86400000"
"""Else a screen that is on would go off in the middle of a trial."""
_AIRPLANE = ("cmd", "connectivity", "airplane-mode")


def wanted(settings: AndroidSettings) -> dict[str, str]:
    """What a manifest asks for, setting by setting in the order in which they are set; the screen comes last."""
    found: dict[str, str | None] = {
        "stay_awake": None if settings.stay_awake is None else _PLUGGED_ANYWHERE if settings.stay_awake else "0",
        "battery_saver": None if settings.battery_saver is None else str(int(settings.battery_saver)),
        "airplane_mode": None if settings.airplane_mode is None else _switch(settings.airplane_mode),
        "brightness_mode": None if settings.brightness is None else "0",
        "brightness": None if settings.brightness is None else str(settings.brightness),
        "screen_timeout_ms": _LONGEST_TIMEOUT_MS if settings.screen == "on" else None,
        "screen": settings.screen,
    }
    return {name: value for name, value in found.items() if value is not None}


def _switch(on: bool) -> str:
    return "enabled" if on else "disabled"


def _setting(name: str, namespace: str, key: str, one: str, two: str) -> Control:
    """A setting of the settings provider, tried out with whichever of two values it does not have."""

    def command(value: str) -> tuple[str, ...]:
        if value == _NULL:
            return ("settings", "delete", namespace, key)
        return ("settings", "put", namespace, key, value)

    return Control(
        name, ("settings", "get", namespace, key), lambda said: said, command, lambda now: two if now == one else one
    )


def _found(pattern: str, words: Mapping[str, str], said: str) -> str | None:
    found = re.search(pattern, said, re.MULTILINE)
    return words.get(found[1]) if found else None


CONTROLS = (
    _setting("stay_awake", "global", "stay_on_while_plugged_in", _PLUGGED_ANYWHERE, "0"),
    Control(
        # Not the setting itself: on a phone that is plugged in it stays as it was written, and has no effect.
        "battery_saver",
        ("dumpsys", "power"),
        lambda said: _found(r"^Battery saver state machine:\s*Enabled=(\w+)", {"true": "1", "false": "0"}, said),
        lambda value: ("settings", "put", "global", "low_power", value),
        lambda now: "0" if now == "1" else "1",
    ),
    Control(
        "airplane_mode",
        _AIRPLANE,
        lambda said: _found(r"^(enabled|disabled)$", {"enabled": "enabled", "disabled": "disabled"}, said),
        lambda value: (*_AIRPLANE, value.removesuffix("d")),
        lambda now: _switch(now == "disabled"),
        severs_wireless="enabled",
    ),
    _setting("brightness_mode", "system", "screen_brightness_mode", "0", "1"),
    _setting("brightness", "system", "screen_brightness", "60", "61"),
    _setting("screen_timeout_ms", "system", "screen_off_timeout", _LONGEST_TIMEOUT_MS, "600000"),
    Control(
        "screen",
        ("dumpsys", "power"),
        lambda said: _found(
            r"^\s*mWakefulness=(\w+)", {"Awake": "on", "Dreaming": "on", "Asleep": "off", "Dozing": "off"}, said
        ),
        lambda value: ("input", "keyevent", _WAKE if value == "on" else _SLEEP),
        lambda now: "off" if now == "on" else "on",
    ),
)
"""Needs Android 11 for the airplane mode; everything else is older. What a device lacks, its probe says."""
