"""The pinned toolchain: zig (a C and C++ compiler for every target), cmake and ninja, as one image layer.

All three come as wheels, are checked against their digests and laid out under `/opt/toolchain`. Nothing in the layer
depends on the base below it, on the machine or on the time.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meltrepro.build.image import Layer
from meltrepro.manifest.sources import PypiSource
from meltrepro.plan.identity import digest_of
from meltrepro.resources import image_file
from meltrepro.steps import Sink, step
from meltrepro.store.archive import EPOCH
from meltrepro.store.cas import Store

SOURCES: Mapping[str, PypiSource] = {
    name: PypiSource(pypi=name, version=version, digest=digest)
    for name, version, digest in (
        ("ziglang", "0.17.1", "ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54"),
        ("cmake", "4.4.4", "f773a0544c66370408f451acd487c2c643b0dfebb48c5d64f3638bc1bb820238"),
        ("ninja", "1.13.2", "65a24341b5ac09fcadcc37082660be40a94174e51a937fabf6e2cae26225fa2c"),
    )
}
WRAPPERS = ("ar", "c++", "cc", "ranlib")
CACHE = "/opt/zig-cache"
MCPU = {"x86_64-linux-musl": "x86_64", "aarch64-linux-musl": "baseline"}
"""The CPU that the C library is compiled for: each triple's lowest, so that one library serves every CPU level."""


def uses_zig(triple: str) -> bool:
    """Whether zig compiles for a target; recipes for others bring their own compilers and C libraries as inputs."""
    return triple in MCPU


def makers(triple: str) -> Mapping[str, PypiSource]:
    """What of the toolchain makes bundles for a target."""
    return {name: source for name, source in SOURCES.items() if name != "ziglang" or uses_zig(triple)}


def environment(triple: str) -> dict[str, str]:
    """The whole environment of a build for one target."""
    common = {"PATH": "/opt/toolchain/bin:/usr/bin:/bin", "HOME": "/tmp", "LC_ALL": "C", "TZ": "UTC"}
    if not uses_zig(triple):
        return common
    return {
        **common,
        "ZIG_TARGET": triple,
        "ZIG_MCPU": MCPU[triple],
        "ZIG_GLOBAL_CACHE_DIR": CACHE,
        "ZIG_LOCAL_CACHE_DIR": "/tmp/zig-local",
    }


def identity() -> str:
    """Digest of everything in the toolchain that can change the bytes of a build."""
    wrappers = {name: image_file(f"toolchain/bin/{name}").decode() for name in WRAPPERS}
    return digest_of({"wheels": {name: source.digest for name, source in SOURCES.items()}, "wrappers": wrappers})


# -- surroundings of a build -----------------------------------------------------------------------------------------

_FOLDERS = ("src", "build", "out", "inputs", "recipe")


@dataclass(frozen=True)
class Conditions:
    """What a build may not depend on: where it runs, as whom, and in which surroundings."""

    folders: Mapping[str, str] = field(default_factory=lambda: {name: f"/{name}" for name in _FOLDERS})
    """Where the sandbox shows the script's folders, by name."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the toolchain's environment, or in place of it."""
    user: int = 0
    hostname: str = "builder"
    umask: int = 0o022


USUAL = Conditions()
VARIED = Conditions(
    # Below /tmp, because the sandbox's root can only be read.
    folders={name: f"/tmp/elsewhere/{name}-of-somebody" for name in _FOLDERS},
    environment={
        "HOME": "/tmp/home",
        "USER": "somebody",
        "LC_ALL": "C.UTF-8",
        "LANG": "tr_TR.UTF-8",
        "TZ": "Pacific/Kiritimati",
        "COLUMNS": "40",
        "CFLAGS": "-O0 -g",
        "CXXFLAGS": "-O0 -g",
        "LDFLAGS": "-Wl,--build-id=sha1",
    },
    user=4711,
    hostname="elsewhere",
    umask=0o077,
)
"""Different in everything, as reprotest does it; the same bytes must come out."""


# -- the layer --------------------------------------------------------------------------------------------------------


def layer(wheels: Mapping[str, Path], store: Store, sink: Sink) -> Layer:
    """The toolchain's layer, made from the verified wheels or taken from the store."""
    if (known := store.result("toolchain", identity())) is not None:
        return Layer.stored(known, store)
    with (
        step(sink, "toolchain.assemble", "zig, cmake, ninja"),
        store.writer() as raw,
        tarfile.open(fileobj=raw, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, content, executable in sorted(_files(wheels), key=lambda file: file[0]):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), EPOCH, 0o755 if executable else 0o644
            tar.addfile(entry, io.BytesIO(content))
    store.put_ref("toolchain", identity(), {"digest": raw.digest})
    return Layer.stored(raw.digest, store)


def _files(wheels: Mapping[str, Path]) -> Iterator[tuple[str, bytes, bool]]:
    """Path below the root, content, and whether it is a program; wheels do not carry that bit for their data."""
    moves = {
        "ziglang": ("ziglang/", "opt/toolchain/zig/", {"zig"}),
        "cmake": ("cmake/data/", "opt/toolchain/cmake/", {"bin/cmake"}),
        "ninja": (f"ninja-{SOURCES['ninja'].version}.data/scripts/", "opt/toolchain/ninja/", {"ninja"}),
    }
    for wheel, (prefix, destination, programs) in moves.items():
        with zipfile.ZipFile(wheels[wheel]) as archive:
            for info in archive.infolist():
                relative = info.filename.removeprefix(prefix)
                if info.is_dir() or relative == info.filename or relative.endswith("__init__.py"):
                    continue
                yield destination + relative, archive.read(info), relative in programs
    for name in WRAPPERS:
        yield f"opt/toolchain/bin/{name}", image_file(f"toolchain/bin/{name}"), True
