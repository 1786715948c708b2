"""The file systems of virtual devices: Debian's arm64 packages, pinned, and our stand-ins for what hardware brings along."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meltrepro import resources
from meltrepro.build import base
from meltrepro.build.model import Package
from meltrepro.errors import EngineError
from meltrepro.plan.identity import digest_of
from meltrepro.steps import Sink, step
from meltrepro.store.cas import Store
from meltrepro.store.locks import exclusive
from meltrepro.workflow.machine import missing_tools

EMULATOR = "qemu-aarch64-static"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
Arch = Literal["arm64", "amd64"]


@dataclass(frozen=True)
class System:
    """What the file system of one kind of device is made of."""

    name: str
    """Its folder among the images, with the pins and, in `stand_ins`, our own files."""
    packages: tuple[str, ...]
    stand_ins: Mapping[str, str]
    """Folders of the image, by the folders of the file system in which their files go."""
    finish: Callable[[Path], None]
    """Makes of unpacked packages a system that runs, without their own scripts."""
    folders: tuple[str, ...] = ()
    """Folders that it needs besides."""
    arch: Arch = "arm64"
    """As Debian calls it; one of this machine's own needs no emulation, which tests of protocols can do without."""

    @property
    def pins(self) -> str:
        return f"{self.name}/packages.json" if self.arch == "arm64" else f"{self.name}/packages-{self.arch}.json"

    @property
    def flavour(self) -> base.Flavour:
        """The packages as mmdebstrap takes them."""
        return base.Flavour("extract", self.packages, self.arch)

    def pinned(self) -> tuple[Package, ...]:
        """The packages that the lab is tested with; `make lock-lab` takes today's instead."""
        return tuple(Package(**entry) for entry in json.loads(resources.image_file(self.pins)))

    def own_files(self) -> dict[str, bytes]:
        """Our stand-ins by where they go."""
        return {
            f"{place}/{file.name}": file.read_bytes()
            for place, folder in self.stand_ins.items()
            for file in sorted((resources.images() / self.name / folder).iterdir())
        }

    def key(self, packages: Sequence[Package]) -> str:
        """The name of a file system made of these packages."""
        own = [[name, data.decode()] for name, data in self.own_files().items()]
        return f"{self.name}-{digest_of([[p.name, p.digest] for p in packages] + own)[:16]}"


def device_root(system: System, store: Store, folder: Path, sink: Sink, *, offline: bool = False) -> Path:
    """The file system of every virtual device of a kind, made where it is not there yet; devices never write to it.

    It is made of the pinned packages; of today's where the archive has moved on and the store has not kept them. Raises
    `EngineError` where packages cannot be had, which is so when `offline`, or programs are missing.
    """
    packages = system.pinned()
    if not all(store.has(package.digest) for package in packages):
        if offline:
            raise EngineError(
                f"offline, and the store does not hold the packages of a virtual {system.name}",
                hint="start the lab once without MELTREPRO_OFFLINE",
            )
        today = base.resolve(store, sink, system.flavour)
        if not all(store.has(package.digest) for package in packages):
            packages = today
    root = folder / system.key(packages)
    with exclusive(folder / f"{system.name}.lock", f"making a virtual {system.name}'s file system", lambda text: None):
        if not root.is_dir():
            part = root.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            with step(sink, "lab.system", f"Debian {base.SUITE} {system.arch}, {len(packages)} packages"):
                _make(system, packages, store, part)
            part.rename(root)
    return root


def is_pinned(system: System, root: Path) -> bool:
    return root.name == system.key(system.pinned())


def remark(system: System, store: Store) -> str:
    """What to tell of a device that is not made of the pinned packages: which ones those are, and what to do."""
    gone = [f"{each.name} {each.version}" for each in system.pinned() if not store.has(each.digest)]
    command = resources.make("lock-lab")
    return (
        f"Debian's archive has moved on and no longer has {', '.join(gone)}, which it was tested with: it is made of today's "
        f"packages, and can be used; {f'pin those with: {command}' if command else 'a newer version of meltrepro pins those'}"
    )


def require_emulation() -> None:
    """See to it that the kernel runs arm64 programs here; raises `EngineError` with what is missing.

    The entry is as Debian's package writes it, and is never taken away: others may use it by then.
    """
    if os.geteuid() != 0:
        raise EngineError("virtual devices need root: they live in namespaces of their own")
    if missing := missing_tools("lab"):
        raise EngineError(
            f"virtual devices need {', '.join(missing)}, which this machine lacks", hint="meltrepro doctor --fix --lab"
        )
    if not (_BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)], capture_output=True, check=False)
    if (_BINFMT / "qemu-aarch64").exists():
        return
    entry = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")
    try:
        (_BINFMT / "register").write_bytes(entry.read_bytes())
    except OSError as error:
        raise EngineError(
            f"the kernel cannot be told how to run arm64 programs: {error}", hint="it needs the module binfmt_misc"
        ) from error


def _make(system: System, packages: Sequence[Package], store: Store, root: Path) -> None:
    root.mkdir(parents=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", str(store.path(package.digest)), str(root)], check=True)
    for name in ("dev", "proc", "sys", "tmp", *system.folders):
        (root / name).mkdir(parents=True, exist_ok=True)
    for link in ("bin", "lib", "lib64", "sbin"):
        if (root / "usr" / link).is_dir() and not (root / link).exists():
            (root / link).symlink_to(f"usr/{link}")
    system.finish(root)
    for name, data in system.own_files().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        (root / name).chmod(0o755)


def _finish_phone(root: Path) -> None:
    """Give the shell and the tools the names and places that they have on phones."""
    (root / "system/bin").symlink_to("../usr/bin")
    bin_ = root / "usr/bin"
    said = subprocess.run(["chroot", str(root), "/usr/bin/toybox"], capture_output=True, text=True, check=True)
    for name in said.stdout.split():
        with contextlib.suppress(FileExistsError):
            (bin_ / name).symlink_to("toybox")
    (bin_ / "sh").unlink(missing_ok=True)
    (bin_ / "sh").symlink_to("mksh")


def _finish_board(root: Path) -> None:
    """Accounts and a shell; what the packages' own scripts would have set up besides, an SSH server does without."""
    (root / "usr/bin/sh").unlink(missing_ok=True)
    (root / "usr/bin/sh").symlink_to("dash")
    with contextlib.suppress(FileExistsError):
        (root / "usr/bin/awk").symlink_to("mawk")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"
    )
    (root / "etc/group").write_text("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
    (root / "etc/shadow").write_text("root:*:20000:0:99999:7:::\nsshd:*:20000::::::\n")
    (root / "etc/meltrepro-virtual").write_text("1\n")


PHONE = System("phone", ("adbd", "mksh", "toybox"), {"usr/bin": "bin"}, _finish_phone, ("system", "data"))
BOARD = System(
    "jetson",
    ("openssh-server", "base-files", "coreutils", "dash", "grep", "procps", "sed", "util-linux"),
    {"usr/bin": "bin", "usr/sbin": "sbin", "etc": "etc"},
    _finish_board,
    ("root", "run", "var/tmp", "var/lib/nvpmodel"),
)
