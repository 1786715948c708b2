"""Which devices of a lab the targets of a manifest are.

A target is a wish: a kind, how it is reached where the manifest says so, and what the device is to be (`where`). With `any: 4` it
becomes four targets, each a device of its own. Devices that an unfinished campaign has begun with are taken again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from meltrepro.hosts.wire import Offer, OfferedDevice
from meltrepro.manifest.targets import TargetOptions


@dataclass(frozen=True)
class Bound:
    """A target of a manifest, and the device of the lab that it is."""

    entry: TargetOptions
    device: OfferedDevice | None
    """`None` where the lab has none that is left for it."""
    reason: str = ""
    """Why not."""


def bind(
    targets: Mapping[str, TargetOptions], devices: Sequence[OfferedDevice], earlier: Mapping[str, str]
) -> dict[str, Bound]:
    """A device for every target, by name; `earlier` are the ids of those that a campaign has begun with.

    No device is taken twice. Those that can be used now come first, then those that are away, each in the order of ids.
    """
    wishes = [wish for name, entry in targets.items() for wish in _single(name, entry)]
    free = {device.offer.id: device for device in devices}
    found: dict[str, Bound] = {}
    kept = [(name, entry) for name, entry in wishes if earlier.get(name) in free]
    # What few devices can be chooses first, so that a pool leaves it what it needs.
    rest = sorted(
        ((name, entry) for name, entry in wishes if earlier.get(name) not in free),
        key=lambda wish: sum(_fits(wish[1], each.offer) for each in free.values()),
    )
    for name, entry in (*kept, *rest):
        fitting = [each for each in free.values() if _fits(entry, each.offer)]
        chosen = min(
            fitting,
            key=lambda each: (
                each.offer.id != earlier.get(name),
                each.quarantined is not None,
                not each.there,
                each.offer.id,
            ),
            default=None,
        )
        if chosen is None:
            found[name] = Bound(_plain(entry), None, _why(entry, devices))
            continue
        del free[chosen.offer.id]
        found[name] = Bound(_merged(entry, chosen.offer), chosen)
    return {name: found[name] for name, _ in wishes}


def _single(name: str, entry: TargetOptions) -> Iterator[tuple[str, TargetOptions]]:
    if entry.any is None:
        yield name, entry
    else:
        yield from ((f"{name}{number}", entry) for number in range(1, entry.any + 1))


def _said(entry: TargetOptions) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude_unset=True, exclude={"any", "where"})


def _plain(entry: TargetOptions) -> TargetOptions:
    return type(entry).model_validate(_said(entry))


def _merged(entry: TargetOptions, offer: Offer) -> TargetOptions:
    """A target as the manifest wants it and its node reaches it."""
    return type(entry).model_validate({**offer.entry, **_said(entry)})


def _fits(entry: TargetOptions, offer: Offer) -> bool:
    """Whether a device is what a target may be."""
    if offer.entry["kind"] != entry.kind:
        return False
    said = _said(entry)
    if any(said[name] != value for name, value in offer.entry.items() if name in said and name in entry.place):
        return False
    facts = offer.facts
    known = {
        **{name: str(value) for name, value in facts.facts.items()},
        **{name: str(getattr(facts, name)) for name in ("id", "model", "arch", "system", "cores")},
        "node": offer.node,
    }
    return all(fnmatchcase(known.get(name, ""), wanted) for name, wanted in entry.where.items())


def _why(entry: TargetOptions, devices: Sequence[OfferedDevice]) -> str:
    fitting = sum(_fits(entry, each.offer) for each in devices)
    what = f"kind {entry.kind}" + "".join(f", {name} {wanted}" for name, wanted in entry.where.items())
    if fitting == 0:
        return f"the lab has no device of {what}; it has: " + (
            ", ".join(sorted(each.offer.facts.described for each in devices)) or "none at all"
        )
    return f"the lab has {fitting} of {what}, and other targets have taken them"
