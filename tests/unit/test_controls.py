"""Settings: set, seen to hold, remembered before they are changed, and put back whatever happened in between."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.android.controls import CONTROLS, wanted
from meltrepro.targets.android.options import AndroidSettings
from meltrepro.targets.remote.controls import Control, Controls
from meltrepro.targets.remote.shell import Reply, Shell
from tests.support.links import BreakingLink, LocalLink


def knob(name: str, severs_wireless: str | None = None) -> Control:
    """A setting that is a file in the device's folder."""
    return Control(
        name,
        ("cat", name),
        lambda said: said or None,
        lambda value: ("sh", "-c", 'echo "$1" > "$0"', name, value),
        lambda now: "7" if now != "7" else "8",
        severs_wireless=severs_wireless,
    )


STUCK = Control("stuck", ("echo", "3"), lambda said: said, lambda value: ("true",), lambda now: "4")
REFUSED = Control("refused", ("echo", "3"), lambda said: said, lambda value: ("sh", "-c", "exit 5"), lambda now: "4")
MUTE = Control("mute", ("false",), lambda said: said, lambda value: ("true",), lambda now: "4")


@pytest.fixture
def device(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).write_text("1\n")
    return tmp_path


def controls(device: Path, *all_: Control, wireless: bool = False, link: object = None) -> Controls:
    shell = Shell(LocalLink(device) if link is None else link)  # type: ignore[arg-type]
    return Controls(
        shell, all_ or (knob("one"), knob("two")), str(device / "kept/settings.json"), wireless=lambda: wireless
    )


def read(device: Path) -> tuple[str, str]:
    return (device / "one").read_text().strip(), (device / "two").read_text().strip()


def kept(device: Path) -> object:
    path = device / "kept/settings.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_settings_hold_and_are_put_back(device: Path) -> None:
    controls(device).adjust({"one": "5", "two": "1"})
    assert read(device) == ("5", "1")
    assert kept(device) == {"one": "1"}, "only what is changed is to be put back"
    assert controls(device).restore() == {"one": "1"}, "somebody else can do that"
    assert read(device) == ("1", "1")
    assert kept(device) is None
    assert controls(device).restore() == {}


def test_the_first_value_is_the_one_to_put_back(device: Path) -> None:
    for value in ("5", "6", "7"):
        controls(device).adjust({"one": value})
    assert controls(device).restore() == {"one": "1"}


@pytest.mark.slow
def test_a_link_that_breaks_at_any_step(device: Path) -> None:
    """Whenever it breaks, a later restore brings the first value back."""
    for breaks_at in itertools.count():
        link = BreakingLink(LocalLink(device), breaks_at)
        try:
            controls(device, link=link).adjust({"one": "5", "two": "6"})
            controls(device, link=link).restore()
        except TargetLost:
            wait_for_stragglers(device)
            controls(device).restore()
        assert read(device) == ("1", "1"), breaks_at
        assert kept(device) is None
        if link.done <= breaks_at:
            break
    assert breaks_at > 20


def wait_for_stragglers(device: Path) -> None:
    """Until commands have ended that their lost link could not kill: it was lost before they said who they are."""
    deadline = time.monotonic() + 30
    while any(_is_in(process, device) for process in Path("/proc").iterdir() if process.name.isdigit()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_in(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink() == folder
    except OSError:
        return False


def test_what_does_not_take_effect_is_said(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meltrepro.targets.remote.controls._TAKES_EFFECT_S", 0.2)
    with pytest.raises(TargetError, match="here: stuck was set to 4 and stays 3"):
        controls(device, STUCK).adjust({"stuck": "4"})
    (device / "kept/settings.json").unlink()
    with pytest.raises(TargetError, match="cannot set refused to 4"):
        controls(device, REFUSED).adjust({"refused": "4"})
    (device / "kept/settings.json").unlink()
    with pytest.raises(TargetError, match="does not tell its setting mute"):
        controls(device, MUTE).adjust({"mute": "4"})
    with pytest.raises(TargetError, match="has no setting 'nonesuch'"):
        controls(device).adjust({"nonesuch": "4"})


def test_one_that_cannot_be_put_back_keeps_no_other_from_it(device: Path) -> None:
    controls(device).adjust({"one": "5", "two": "6"})
    (device / "kept/settings.json").write_text('{"one": "1", "gone": "2", "two": "1"}')
    with pytest.raises(TargetError, match="cannot put back its settings: here: has no setting 'gone'"):
        controls(device).restore()
    assert read(device) == ("1", "1")
    assert kept(device) == {"gone": "2"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"one": 5}', '{"one": "$(touch canary)"}'])
def test_a_damaged_memory_is_not_believed(device: Path, content: str) -> None:
    controls(device).adjust({"one": "5"})
    (device / "kept/settings.json").write_text(content)
    if content == "[]":
        content = "list"
    with pytest.raises(TargetError, match="is damaged, so that its earlier settings are not known"):
        controls(device).restore()
    assert not (device / "canary").exists()


def test_a_wireless_link_is_not_cut(device: Path) -> None:
    there = controls(device, knob("one", severs_wireless="5"), knob("two"), wireless=True)
    with pytest.raises(TargetError, match="one would cut the wireless link"):
        there.adjust({"one": "5"})
    tried = {each.name: each for each in there.try_out()}
    assert tried["one"].set_to is None
    assert "wireless" in tried["one"].why
    assert tried["two"].set_to == "7"
    assert read(device) == ("1", "1")
    there.adjust({"one": "4"})
    there.restore()
    assert read(device) == ("1", "1"), "other values cut nothing"


def test_settings_of_another_target_on_the_same_device_do_not_stay(device: Path) -> None:
    controls(device).adjust({"one": "5"})
    controls(device).adjust({"two": "6"})
    assert read(device) == ("1", "6")
    assert controls(device).restore() == {"two": "1"}


@pytest.mark.parametrize("arrived", [0, 5])
def test_a_memory_that_did_not_arrive_whole_replaces_none(
    device: Path, monkeypatch: pytest.MonkeyPatch, arrived: int
) -> None:
    """As where a link is lost and its command reads no more than an end of input."""
    controls(device).adjust({"one": "5"})
    script = Shell.script

    def cut(self: Shell, text: str, *arguments: str, **more: Any) -> Reply:
        source = more.get("source")
        if source:
            more["source"] = [source[0][:arrived]]
        return script(self, text, *arguments, **more)

    monkeypatch.setattr(Shell, "script", cut)
    with pytest.raises(TargetError, match="cannot remember its settings"):
        controls(device).adjust({"one": "5", "two": "6"})
    monkeypatch.undo()
    assert kept(device) == {"one": "1"}
    assert read(device) == ("5", "1"), "and nothing was changed that is not remembered"


def test_everything_is_tried_out(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meltrepro.targets.remote.controls._TAKES_EFFECT_S", 0.2)
    tried = {each.name: each for each in controls(device, knob("one"), STUCK, MUTE).try_out()}
    assert (tried["one"].before, tried["one"].set_to, tried["one"].why) == ("1", "7", "")
    assert (tried["stuck"].before, tried["stuck"].set_to) == ("3", None)
    assert "stays 3" in tried["stuck"].why
    assert tried["mute"].before is None
    assert read(device) == ("1", "1")


def test_what_a_manifest_asks_for() -> None:
    assert wanted(AndroidSettings()) == {}
    asked = AndroidSettings(screen="off", brightness=10, airplane_mode=True, stay_awake=False, battery_saver=False)
    lit = wanted(AndroidSettings(screen="on"))
    assert list(lit) == ["screen_timeout_ms", "screen"], "it stays on where nothing is plugged in, too"
    assert list(wanted(asked).items()) == [
        ("stay_awake", "0"),
        ("battery_saver", "0"),
        ("airplane_mode", "enabled"),
        ("brightness_mode", "0"),
        ("brightness", "10"),
        ("screen", "off"),
    ]
    assert set(wanted(asked)) <= {control.name for control in CONTROLS}


def test_the_words_of_android() -> None:
    known = {control.name: control for control in CONTROLS}
    screen, airplane, saver = known["screen"], known["airplane_mode"], known["battery_saver"]
    assert screen.value("POWER MANAGER\n  mWakefulness=Dozing\n  mWakefulnessChanging=false\n") == "off"
    assert screen.value("  mWakefulness=Awake\n") == "on"
    assert screen.value("Can't find service") is None
    assert airplane.value("disabled\n") == "disabled"
    assert airplane.value("Unknown command\n") is None
    assert airplane.set("enabled")[-1] == "enable"
    assert airplane.set("disabled")[-1] == "disable"
    assert saver.value("Power Manager State:\n  x=1\n\nBattery saver state machine:\n  Enabled=true\n") == "1"
    assert saver.value("Power Manager State:\n  Enabled=true\n") is None
    null = known["brightness"].set("null")
    assert null == ("settings", "delete", "system", "screen_brightness"), "what was never set is not set to null"
