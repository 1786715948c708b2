"""Which CPU level a CPU can run, and which of those it should."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace

from meltrepro.manifest.schema import Ndk
from meltrepro.plan.model import IOS, CudaBuild, Isa

_ALIASES = {"arm64": "aarch64", "amd64": "x86_64"}


def machine(arch: str) -> str:
    """The name under which triples know a machine: `arm64` and `aarch64` are the same."""
    return _ALIASES.get(arch.lower(), arch.lower())


def machine_of(triple: str) -> str:
    """The machine that a triple is for; an iPhone is a kind of its own."""
    return triple if triple == IOS else machine(triple.split("-", 1)[0])


def for_machine(arch: str, offered: Iterable[Isa]) -> tuple[Isa, ...]:
    """The levels for this machine, best first."""
    wanted = machine(arch)
    fitting = (isa for isa in offered if machine_of(isa.triple) == wanted)
    return tuple(sorted(fitting, key=lambda isa: (-isa.rank, isa.name)))


def built_with(level: Isa, ndk: Ndk | None) -> Isa:
    """The level as a framework's toolchain builds it: an NDK makes what is for aarch64, and nothing else."""
    if ndk is None or machine_of(level.triple) != "aarch64":
        return level
    return replace(level, triple=f"aarch64-linux-android{ndk.api}")


def built_with_cuda(level: Isa, cuda: CudaBuild | None) -> Isa:
    """The level as it is built for a Jetson board: with its own C library, which NVIDIA's libraries need."""
    if cuda is None or machine(level.triple.split("-", 1)[0]) != "aarch64":
        return level
    return replace(level, triple=cuda.triple)


def missing(isa: Isa, features: AbstractSet[str]) -> tuple[str, ...]:
    """What a CPU lacks to run a level, in alphabetical order."""
    return tuple(sorted(isa.requires - features))


def choose(features: AbstractSet[str], arch: str, offered: Iterable[Isa]) -> Isa | None:
    """The highest level that a CPU can run; `None` where it can run none."""
    return next((isa for isa in for_machine(arch, offered) if not missing(isa, features)), None)
