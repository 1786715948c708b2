"""The base image of every build: a minimal Debian, pinned package by package, made without a registry.

The essential packages of one Debian suite are pinned by name, version and sha256 and kept in the store. The root file
system is then always assembled by `mmdebstrap` from exactly those files, offline and at a fixed epoch, so that the
same pins give the same layer on every machine. Where a registry can be reached, an image pinned by digest can stand
in its place: artifacts do not depend on which base they were built in.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meltrepro.build.image import Layer, normalize
from meltrepro.build.log import check_space, writing_below
from meltrepro.build.model import Package
from meltrepro.errors import EngineError, LockError
from meltrepro.interrupts import held
from meltrepro.plan.identity import digest_of
from meltrepro.steps import Sink, step
from meltrepro.store.archive import EPOCH
from meltrepro.store.cas import Store
from meltrepro.words import counted, plural

SUITE = "trixie"
"""Debian 13."""
INCLUDED = ("libstdc++6",)
"""Packages besides the essential ones: the cmake of the toolchain is linked with it."""
VOLATILE = (
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "etc/apt",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "var/cache",
    "var/lib/apt",
    "var/log",
)
"""What says more of the machine that assembled the file system than of the packages in it."""
_STOP_S = 10.0
_INSTALL = "apt-get install mmdebstrap, or meltrepro doctor --fix"


@dataclass(frozen=True)
class Flavour:
    """Which packages make a file system."""

    variant: str
    """Of mmdebstrap."""
    included: tuple[str, ...]
    architecture: str | None = None
    """That of this machine where absent."""

    @property
    def hook(self) -> str:
        """When the package files of this variant are all there and not removed yet."""
        return "extract-hook" if self.variant == "extract" else "customize-hook"

    @property
    def options(self) -> tuple[str, ...]:
        """For mmdebstrap."""
        architecture = (f"--architectures={self.architecture}",) if self.architecture else ()
        return (f"--variant={self.variant}", f"--include={','.join(self.included)}", *architecture)


BASE = Flavour("essential", INCLUDED)
"""That of the base image."""


def resolve(store: Store, sink: Sink, flavour: Flavour = BASE) -> tuple[Package, ...]:
    """Fetch the packages of today into the store and pin them, ordered by name.

    Raises `EngineError` where `mmdebstrap` is missing or its archive cannot be reached.
    """
    with _scratch(store) as scratch, step(sink, "base.resolve", f"Debian {SUITE}, {flavour.variant} packages"):
        debs = scratch / "debs"
        debs.mkdir()
        _mmdebstrap(
            scratch,
            *flavour.options,
            "--skip=essential/unlink,cleanup",
            f"--{flavour.hook}=sync-out /var/cache/apt/archives {debs}",
            SUITE,
            "/dev/null",
        )
        return tuple(sorted(_pin(store, deb) for deb in debs.glob("*.deb")))


def is_own(layer: str, store: Store) -> bool:
    """Whether this machine has made a base layer itself, or taken it out of an image that it pulled."""
    return any(known["digest"] == layer for known in store.own.list_refs("base-layer").values())


def assemble(packages: Sequence[Package], store: Store, sink: Sink) -> Layer:
    """The base layer made of exactly these packages; taken from the store where it was made before.

    Raises `LockError` where a package file is not in the store, and `EngineError` where `mmdebstrap` fails.
    """
    key = digest_of([[p.name, p.version, p.architecture, p.digest] for p in packages])
    known = store.get_ref("base-layer", key)
    if known is not None and store.has(known["digest"]):
        return Layer(store.path(known["digest"]), known["digest"])
    missing = [package for package in packages if not store.has(package.digest)]
    if missing:
        names = ", ".join(f"{package.name} {package.version}" for package in missing[:3])
        raise LockError(
            f"the base image is locked to {counted(len(missing), 'package file')} that {plural(len(missing), 'is', 'are')} not here: {names}"
            + (", ..." if len(missing) > 3 else ""),
            hint="import a bundle that holds them, or take today's packages with: meltrepro lock --upgrade base SPEC",
        )
    with (
        _scratch(store) as scratch,
        step(sink, "base.assemble", f"Debian {SUITE}, {counted(len(packages), 'package')}"),
    ):
        repository = scratch / "repository"
        with writing_below(scratch):
            _write_repository(packages, store, repository)
        _mmdebstrap(scratch, *BASE.options, SUITE, str(scratch / "root.tar"), f"deb [trusted=yes] copy:{repository} ./")
        with tarfile.open(scratch / "root.tar") as root, writing_below(scratch):
            if "./bin" not in root.getnames():
                raise EngineError("mmdebstrap made a file system without /bin: it did not take the pinned packages")
            digest = normalize(root, scratch / "layer.tar", drop=VOLATILE)
        store.put_file(scratch / "layer.tar", move=True)
        store.put_ref("base-layer", key, {"digest": digest})
        return Layer(store.path(digest), digest)


def _write_repository(packages: Sequence[Package], store: Store, repository: Path) -> None:
    """An archive for apt that holds exactly these packages."""
    repository.mkdir()
    stanzas = []
    for package in packages:
        name = f"{package.name}_{package.digest[:16]}.deb"
        shutil.copyfile(store.path(package.digest), repository / name)
        size = (repository / name).stat().st_size
        stanzas.append(f"{_control(repository / name)}\nFilename: ./{name}\nSize: {size}\nSHA256: {package.digest}\n")
    listing = "\n".join(stanzas).encode()
    (repository / "Packages").write_bytes(listing)
    (repository / "Release").write_text(_release(packages, listing), encoding="utf-8")


def _release(packages: Sequence[Package], listing: bytes) -> str:
    """What makes apt take the repository for the suite: mmdebstrap looks for essential packages by its code name."""
    architectures = sorted({package.architecture for package in packages} - {"all"})
    return (
        f"Suite: {SUITE}\nCodename: {SUITE}\nArchitectures: {' '.join(architectures)}\n"
        f"SHA256:\n {hashlib.sha256(listing).hexdigest()} {len(listing)} Packages\n"
    )


def _pin(store: Store, deb: Path) -> Package:
    fields = dict(line.split(": ", 1) for line in _control(deb).splitlines() if ": " in line and line[0] != " ")
    return Package(fields["Package"], fields["Version"], fields["Architecture"], store.put_file(deb))


def _control(deb: Path) -> str:
    # In a session of its own: a Ctrl-C would kill it too, and what it unpacks would stay where TMPDIR is.
    return subprocess.run(
        ["dpkg-deb", "--field", str(deb)],
        check=True,
        capture_output=True,
        text=True,
        env={**_environment(), "TMPDIR": str(deb.parent)},
        start_new_session=True,
    ).stdout.strip()


def _mmdebstrap(scratch: Path, *arguments: str) -> None:
    """Run `mmdebstrap`; its own log is part of the error where it fails."""
    program = shutil.which("mmdebstrap")
    if program is None:
        raise EngineError("cannot make the base image: mmdebstrap is not installed", hint=_INSTALL)
    process: subprocess.Popen[str] | None = None
    try:
        with held():
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**_environment(), "TMPDIR": str(scratch)},
                start_new_session=True,
            )
        _, said = process.communicate()
    finally:
        _stop(process)
    if process.returncode != 0:
        check_space(scratch, said)
        tail = "\n".join(said.strip().splitlines()[-8:])
        raise EngineError(
            f"mmdebstrap could not make the base image:\n{tail}",
            hint="see that the Debian archive can be reached (apt-get update) and that this user may use namespaces",
        )


def _stop(process: subprocess.Popen[str] | None) -> None:
    """Let mmdebstrap, if it runs, put its mounts and processes in order; end it where it takes too long."""
    with held():
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment() -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(EPOCH),
        **{name: value for name, value in os.environ.items() if name.lower() in ("http_proxy", "https_proxy")},
    }


@contextmanager
def _scratch(store: Store) -> Iterator[Path]:
    """A scratch folder that apt's own user can read."""
    with store.scratch() as folder:
        folder.chmod(0o755)
        yield folder
