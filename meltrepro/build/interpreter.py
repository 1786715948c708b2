"""The Python interpreter that converters of checkpoints run on, with its C library: packages of Debian, pinned by digest.

It becomes part of the converter's bundle, and so of the identity of every model that is converted with it. A Debian
archive keeps one version of each package: a lock outlives its packages, the bundle that was made of them does not vanish.
"""

from __future__ import annotations

from collections.abc import Iterable

from meltrepro.build import base
from meltrepro.build.base import Flavour
from meltrepro.build.model import Package
from meltrepro.errors import LockError
from meltrepro.plan.identity import digest_of
from meltrepro.steps import Sink
from meltrepro.store.cas import Store

PYTHON = "python3.13"
"""Of the suite; wheels of converters are built for it."""
FLAVOUR = Flavour("extract", (f"{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libstdc++6"), "amd64")
_USED = frozenset(
    f"{PYTHON}-minimal lib{PYTHON}-minimal lib{PYTHON}-stdlib libc6 libgcc-s1 libstdc++6 gcc-14-base "
    "libbz2-1.0 libexpat1 libffi8 liblzma5 libssl3t64 libzstd1 zlib1g".split()
)
"""What of them the recipe takes files and notices from; the rest are what these depend on for other purposes."""
_REF = digest_of([base.SUITE, sorted(_USED)])


def known(store: Store, sink: Sink) -> tuple[Package, ...]:
    """Packages pinned here before, so that two manifests of one machine share a converter; today's otherwise."""
    if (packages := remembered(store)) is not None:
        return packages
    packages = tuple(package for package in base.resolve(store, sink, FLAVOUR) if package.name in _USED)
    base.remember(packages, store, "interpreter", _REF)
    return packages


def remembered(store: Store) -> tuple[Package, ...] | None:
    """The packages pinned here before; `None` where none were."""
    return base.remembered(store, "interpreter", _REF)


def forget(store: Store) -> None:
    """Drop what is remembered, so that the next lock takes today's packages."""
    store.drop_ref("interpreter", _REF)


def bring(packages: Iterable[Package], store: Store, sink: Sink, *, offline: bool) -> None:
    """See to it that the store has these packages; raises `LockError` where the archive has others by now."""
    missing = [package for package in packages if not store.has(package.digest)]
    if missing and not offline:
        base.resolve(store, sink, FLAVOUR)
        missing = [package for package in missing if not store.has(package.digest)]
    if missing:
        first = missing[0]
        raise LockError(
            f"the converter is locked to {len(missing)} packages that the Debian archive no longer has, "
            f"the first is {first.name} {first.version}",
            hint="import a bundle that holds the converter, or take today's with: meltrepro lock --upgrade interpreter SPEC",
        )
