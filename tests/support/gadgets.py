"""Devices that come and go as a test wants: this machine under other names, behind a kind of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from pydantic import Field

from meltrepro.manifest.targets import TargetOptions
from meltrepro.registry import TARGETS
from meltrepro.settings import Settings
from meltrepro.targets.base import Attached, DeviceFacts, Engines, Target, TargetKind
from meltrepro.targets.device_lock import lock_path
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.host.target import HostTarget


class GadgetOptions(TargetOptions):
    """A gadget."""

    kind: Literal["gadget"] = Field(description="Which kind of target this is.")
    name: str = Field("it", description="Which one.")
    lab: str | None = Field(None, description="Whether it is virtual.")


@dataclass
class World:
    """Which gadgets there are, and what goes wrong with them."""

    faults: dict[str, dict[str, BaseException]] = field(default_factory=dict)
    """What each call raises, by the gadget's name: open, identify, stop_strays, sources, deploy, ..."""
    facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """How a gadget is another than this machine, by its name."""
    touched: list[tuple[str, str]] = field(default_factory=list)
    """What was asked of which gadget."""

    def touch(self, name: str, call: str) -> None:
        self.touched.append((name, call))
        if (error := self.faults.get(name, {}).get(call)) is not None:
            raise error

    def gone(self, name: str, error: BaseException) -> None:
        """A gadget that cannot be reached."""
        self.faults[name] = {"identify": error}

    def back(self, name: str) -> None:
        self.faults.pop(name, None)


class Gadget(HostTarget):
    def __init__(self, world: World, name: str, settings: Settings) -> None:
        owner = str(lock_path(f"gadget-{name}"))
        super().__init__(HostOptions(sandbox="bare"), disk=settings.cache, owner=owner)
        self._world, self._name = world, name

    def identify(self) -> DeviceFacts:
        self._world.touch(self._name, "identify")
        more = self._world.facts.get(self._name, {})
        return replace(
            super().identify(),
            id=f"gadget-{self._name}",
            kind="gadget",
            model=f"Gadget {self._name}",
            here=False,
            **more,
        )


def _faulty(call: str) -> Callable[..., object]:
    def asked(self: Gadget, *args: object, **kwargs: object) -> object:
        self._world.touch(self._name, call)
        return getattr(HostTarget, call)(self, *args, **kwargs)

    return asked


for _call in ("stop_strays", "sources", "deploy", "state", "run_trial"):
    setattr(Gadget, _call, _faulty(_call))


@dataclass
class GadgetKind(TargetKind):
    world: World
    kind = "gadget"
    family = "board"
    options = GadgetOptions

    def open(self, options: GadgetOptions, settings: Settings, engines: Engines | None) -> Target:
        self.world.touch(options.name, "open")
        return Gadget(self.world, options.name, settings)

    def attached(self, settings: Settings) -> list[Attached]:
        self.world.touch("*", "attached")
        return [Attached("gadget", "it", "ready", "a gadget", None)]


@contextmanager
def gadgets() -> Iterator[World]:
    """A world of gadgets."""
    world = World()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TARGETS.loaded, "gadget", GadgetKind(world))
        yield world
