"""The Python interpreters that tools of frameworks run on, with their C library: packages of Debian, pinned by digest.

They become part of the tool's bundle, and so of the identity of every model that is converted with it. A Debian
archive keeps one version of each package: a lock outlives its packages, the bundle that was made of them does not vanish.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meltrepro.build import base
from meltrepro.build.base import Flavour
from meltrepro.build.model import Interpreter, Package
from meltrepro.errors import LockError
from meltrepro.plan.identity import digest_of
from meltrepro.steps import Sink
from meltrepro.store.cas import Store

PYTHON = "python3.13"
"""Of the suite; wheels of converters are built for it."""
_BARE = frozenset(
    f"{PYTHON}-minimal lib{PYTHON}-minimal lib{PYTHON}-stdlib libc6 libgcc-s1 libstdc++6 gcc-14-base "
    "libbz2-1.0 libexpat1 libffi8 liblzma5 libssl3t64 libzstd1 zlib1g".split()
)
_TORCH = frozenset(
    [
        "python3-torch",
        "libtorch2.6",
        "ibverbs-providers",
        "libblas3",
        "libbrotli1",
        "libcap2",
        "libcpp-httplib0.18",
        "libcpuinfo0",
        "libdnnl3.6",
        "libevent-core-2.1-7t64",
        "libevent-pthreads-2.1-7t64",
        "libfabric1",
        "libfmt10",
        "libgfortran5",
        "libgloo0",
        "libgomp1",
        "libhiredis1.1.0",
        "libhwloc15",
        "libibverbs1",
        "liblapack3",
        "libmunge2",
        "libnl-3-200",
        "libnl-route-3-200",
        "libnuma1",
        "libonnx1t64",
        "libopenmpi40",
        "libpmix2t64",
        "libprotobuf32t64",
        "libpsm2-2",
        "libpthreadpool0",
        "librdmacm1t64",
        "libsleef3",
        "libtensorpipe0",
        "libucx0",
        "libudev1",
        "libuv1t64",
        "libvulkan1",
        "libxnnpack0.20241108",
        "libz3-4",
    ]
)
"""What torch's libraries are linked with; the package index has torch for CUDA alone, in more than half a gigabyte."""


@dataclass(frozen=True)
class _Kind:
    flavour: Flavour
    used: frozenset[str]
    """What the recipes take files and notices from; the rest are what these depend on for other purposes."""

    @property
    def ref(self) -> str:
        return digest_of([base.SUITE, sorted(self.used)])


def _kind(used: frozenset[str], *included: str) -> _Kind:
    return _Kind(
        Flavour("extract", (f"{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libstdc++6", *included), "amd64"),
        frozenset(used),
    )


_KINDS: Mapping[Interpreter, _Kind] = {
    Interpreter.python: _kind(_BARE),
    Interpreter.torch: _kind(_BARE | _TORCH, "python3-torch"),
}


def known(store: Store, sink: Sink, kind: Interpreter) -> tuple[Package, ...]:
    """Packages pinned here before, so that two manifests of one machine share a converter; today's otherwise."""
    if (packages := remembered(store, kind)) is not None:
        return packages
    packages = base.resolve(store, sink, _KINDS[kind].flavour, _KINDS[kind].used)
    base.remember(packages, store, "interpreter", _KINDS[kind].ref)
    return packages


def remembered(store: Store, kind: Interpreter) -> tuple[Package, ...] | None:
    """The packages pinned here before; `None` where none were."""
    return base.remembered(store, "interpreter", _KINDS[kind].ref)


def forget(store: Store) -> None:
    """Drop what is remembered, so that the next lock takes today's packages."""
    for kind in _KINDS.values():
        store.drop_ref("interpreter", kind.ref)


def bring(packages: Iterable[Package], store: Store, sink: Sink, kind: Interpreter, *, offline: bool) -> None:
    """See to it that the store has these packages; raises `LockError` where the archive has others by now."""
    missing = [package for package in packages if not store.has(package.digest)]
    if missing and not offline:
        base.resolve(store, sink, _KINDS[kind].flavour, _KINDS[kind].used)
        missing = [package for package in missing if not store.has(package.digest)]
    if missing:
        first = missing[0]
        raise LockError(
            f"the converter is locked to {len(missing)} packages that the Debian archive no longer has, "
            f"the first is {first.name} {first.version}",
            hint="import a bundle that holds the converter, or take today's with: meltrepro lock --upgrade interpreter SPEC",
        )
