"""Which devices of a manifest are there, and what is known of those that are not.

What a device said when it was there last is remembered by how it is reached. So plans, locks and builds go on without it, and
only a campaign needs the device itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from meltrepro.atomic import write_bytes
from meltrepro.errors import DeviceBusy, DriverMissing, Interrupted, MeltreproError, StoreError, TargetError, TargetLost
from meltrepro.manifest.base import Nanoseconds, Strict
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.targets import TargetOptions
from meltrepro.plan.identity import canonical, digest_of
from meltrepro.record.outcomes import SkipKind
from meltrepro.settings import Settings
from meltrepro.targets.base import DeviceFacts, Engines, Target
from meltrepro.targets.registry import open_target
from meltrepro.untrusted import parse, read_regular

_MOST_BYTES = 1 << 20
Origin = Literal["asked", "assumed", "remembered", "unknown"]


@dataclass(frozen=True)
class Absence:
    """Why a device cannot be used now."""

    kind: SkipKind
    reason: str
    """On one line, with the target's name."""
    error: MeltreproError

    @staticmethod
    def of(name: str, error: MeltreproError) -> Absence:
        """What an error says of a target."""
        kinds = {DeviceBusy: SkipKind.busy, TargetLost: SkipKind.absent, DriverMissing: SkipKind.driver}
        kind = next((kind for family, kind in kinds.items() if isinstance(error, family)), SkipKind.target)
        label = f"target {name}"
        said = " ".join(error.one_line.split())
        return Absence(kind, said if said.startswith(label) else f"{label}: {said}", error)


@dataclass(frozen=True)
class Seen:
    """A device of a manifest, as far as it is there or known."""

    name: str
    """Of the target."""
    target: Target | None = None
    """The way to it, where it is there."""
    facts: DeviceFacts | None = None
    """What it says of itself, or is taken for."""
    origin: Origin = "unknown"
    """Where the facts come from."""
    found_wall_ns: int | None = None
    """When remembered facts were found."""
    absence: Absence | None = None
    remark: str | None = None
    """What is to be known of facts that others contradict."""

    @property
    def found(self) -> str:
        """When remembered facts were found, for people."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime((self.found_wall_ns or 0) / 1e9))

    @property
    def known_as(self) -> str | None:
        """What a device that is not there is taken for; `None` where that is not known."""
        if self.facts is None or self.absence is None:
            return None
        if self.origin == "remembered":
            return f"what was found on {self.found}: {self.facts.described}"
        features = ", ".join(sorted(self.facts.features)) or "no CPU feature"
        return f"what the manifest assumes: {self.facts.arch}, {features}"


@contextmanager
def driving(what: str) -> Iterator[None]:
    """Have whatever a driver raises be an error of ours: its device is broken, and no other."""
    try:
        yield
    except MeltreproError:
        raise
    except Exception as error:  # a driver, the libraries below it and what a device answers are others' work
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise TargetError(
            f"{what}: its driver failed: {said[:400]}", hint="look whether the device answers: meltrepro devices"
        ) from error


def look(
    manifest: Manifest, wanted: Collection[str], settings: Settings, engines: Engines | None = None
) -> dict[str, Seen]:
    """The targets that are wanted, by name; each is opened and asked, whatever becomes of the others."""
    return {name: _look(name, entry, settings, engines) for name, entry in manifest.targets.items() if name in wanted}


def _look(name: str, entry: TargetOptions, settings: Settings, engines: Engines | None) -> Seen:
    try:
        if entry.any or entry.where:
            raise TargetError(
                f"target {name} is a pool of a lab", hint="run it there: meltrepro run SPEC --lab tls://HEAD"
            )
        with driving(f"target {name}"):
            target = open_target(entry, settings, engines)
            facts = target.identify()
    except Interrupted:
        raise
    except MeltreproError as error:
        return _away(name, entry, settings, Absence.of(name, error))
    remember(entry, facts, settings)
    return Seen(name, target, facts, "asked", remark=_contradiction(name, entry, facts, "the device"))


def _away(name: str, entry: TargetOptions, settings: Settings, absence: Absence) -> Seen:
    """A device that cannot be asked: what the manifest assumes of it, else what is remembered."""
    known = recall(entry, settings)
    if entry.assume is not None:
        remark = _contradiction(name, entry, known.facts, f"the device of {_day(known)}") if known else None
        return Seen(name, None, _assumed(entry), "assumed", absence=absence, remark=remark)
    if known is not None:
        return Seen(name, None, known.facts, "remembered", known.found_wall_ns, absence)
    return Seen(name, absence=absence)


def _assumed(entry: TargetOptions) -> DeviceFacts:
    """A device as its entry describes it; what is not said keeps no cell from being planned."""
    assert entry.assume is not None
    return DeviceFacts(
        id=f"{entry.kind}-assumed",
        kind=entry.kind,
        model="assumed",
        arch=entry.assume.arch,
        features=frozenset(entry.assume.features),
        cores=entry.usable_cores or 1,
        memory_bytes=sys.maxsize,
        disk_free_bytes=sys.maxsize,
        virtual=entry.virtual,
        here=entry.here,
    )


def _contradiction(name: str, entry: TargetOptions, facts: DeviceFacts, who: str) -> str | None:
    """How a device is another than the manifest assumes; `None` where it is not, or nothing is assumed."""
    assumed = entry.assume
    if assumed is None:
        return None
    lacking = ", ".join(sorted(set(assumed.features) - facts.features))
    what = f"is {facts.arch}" if assumed.arch != facts.arch else f"lacks {lacking}" if lacking else None
    more = ", ".join(assumed.features) or "no CPU feature"
    return what and f"target {name}: {who} {what}; the manifest assumes {assumed.arch} with {more}"


# -- what is remembered -------------------------------------------------------------------------------------------


class Remembered(Strict):
    """What a device said of itself when it was there."""

    v: Literal[1] = 1
    kind: str
    place: dict[str, JsonValue]
    """How it was reached."""
    found_wall_ns: Nanoseconds
    facts: DeviceFacts


def remember(entry: TargetOptions, facts: DeviceFacts, settings: Settings) -> None:
    """Keep what a device says, by how it is reached; of this machine nothing is kept, for it is always there."""
    if facts.here:
        return
    known = {"v": 1, "kind": entry.kind, "place": entry.place, "found_wall_ns": time.time_ns(), "facts": facts}
    with suppress(StoreError):  # a home that cannot be written has to be no campaign's end
        write_bytes(_path(entry, settings), canonical(known) + b"\n", durable=False)


def recall(entry: TargetOptions, settings: Settings) -> Remembered | None:
    """What is remembered of a device, if anything that can be read."""
    try:
        return parse(Remembered, read_regular(_path(entry, settings), _MOST_BYTES))
    except (OSError, ValueError):
        return None  # found anew as soon as the device is there


def _path(entry: TargetOptions, settings: Settings) -> Path:
    place: Mapping[str, object] = entry.place
    return settings.home / "devices" / "seen" / f"{entry.kind}-{digest_of(place)[:16]}.json"


def _day(known: Remembered) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(known.found_wall_ns / 1e9))
