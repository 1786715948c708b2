"""`make lock-lab`: pins today's packages of every kind of virtual device, and says what has moved.

A Debian archive keeps one version of each package, so that what was pinned goes away with the next update of security.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import get_args

from meltrepro import resources
from meltrepro import settings as settings_module
from meltrepro.atomic import write_bytes
from meltrepro.build import base
from meltrepro.build.model import Package
from meltrepro.lab.system import BOARD, PHONE, Arch
from meltrepro.steps import Sink, silent
from meltrepro.store.cas import Store


def pin_all(store: Store, sink: Sink) -> Iterator[str]:
    """Write the pins of today beside the recipes, and say of each file what has moved; raises `EngineError`."""
    for system in (replace(kind, arch=arch) for kind in (PHONE, BOARD) for arch in get_args(Arch)):
        before, now = system.pinned(), base.resolve(store, sink, system.flavour)
        text = json.dumps([asdict(package) for package in now], indent=1) + "\n"
        write_bytes(resources.images() / system.pins, text.encode())
        yield f"{system.pins}: {', '.join(moved(before, now)) or 'as it was'}"


def moved(before: Sequence[Package], now: Sequence[Package]) -> list[str]:
    """What is not the same in two lists of packages, by name."""
    old, new = ({package.name: package for package in packages} for packages in (before, now))
    return [
        f"{name} {old[name].version if name in old else 'none'} -> {new[name].version if name in new else 'none'}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


if __name__ == "__main__":
    for line in pin_all(Store(settings_module.load().store), silent):
        print(line)
