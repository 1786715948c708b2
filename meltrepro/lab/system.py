"""The file system of a virtual phone: Debian's arm64 packages of adbd, mksh and toybox, and our stand-ins for services."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

from meltrepro import resources
from meltrepro.build import base
from meltrepro.errors import EngineError
from meltrepro.plan.identity import digest_of
from meltrepro.steps import Sink, step
from meltrepro.store.cas import Store
from meltrepro.store.locks import exclusive

EMULATOR = "qemu-aarch64-static"
PACKAGES = base.Flavour("extract", ("adbd", "mksh", "toybox"), "arm64")
_NEEDED = {EMULATOR: "qemu-user-static", "ip": "iproute2", "unshare": "util-linux", "setpriv": "util-linux"}
"""Programs and the packages that have them."""
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_SERVICES = ("getprop", "dumpsys", "settings", "cmd", "input", "am")


def phone_root(store: Store, folder: Path, sink: Sink) -> Path:
    """The file system of every virtual phone, made where it is not there yet; phones never write to it.

    It is made of the pinned packages; of today's where the archive has moved on and the store has not kept them. Raises
    `EngineError` where packages cannot be had or programs are missing.
    """
    packages = pinned()
    if not all(store.has(package.digest) for package in packages):
        today = base.resolve(store, sink, PACKAGES)
        if not all(store.has(package.digest) for package in packages):
            packages = today
    services = _services()
    root = folder / f"phone-{_key(packages, services)[:16]}"
    with exclusive(folder / "phone.lock", "making a virtual phone's file system", lambda text: None):
        if not root.is_dir():
            part = root.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            with step(sink, "lab.system", f"Debian {base.SUITE} arm64, {len(packages)} packages"):
                _make(packages, services, store, part)
            part.rename(root)
    return root


def pinned() -> tuple[base.Package, ...]:
    """The packages that the lab is tested with; `python -m meltrepro.lab.system` prints today's for that file."""
    return tuple(base.Package(**entry) for entry in json.loads(resources.image_file("phone/packages.json")))


def is_pinned(root: Path) -> bool:
    """Whether a phone's file system is made of the pinned packages."""
    return root == root.with_name(f"phone-{_key(pinned(), _services())[:16]}")


def _services() -> dict[str, bytes]:
    return {name: resources.image_file(f"phone/bin/{name}") for name in _SERVICES}


def _key(packages: tuple[base.Package, ...], services: dict[str, bytes]) -> str:
    return digest_of(
        [[p.name, p.digest] for p in packages] + [[name, data.decode()] for name, data in services.items()]
    )


def require_emulation() -> None:
    """See to it that the kernel runs arm64 programs here; raises `EngineError` with what is missing.

    The entry is as Debian's package writes it, and is never taken away: others may use it by then.
    """
    if os.geteuid() != 0:
        raise EngineError("virtual phones need root: they live in namespaces of their own")
    for tool, package in _NEEDED.items():
        if shutil.which(tool) is None:
            raise EngineError(f"virtual phones need {tool}, which is not installed", hint=f"apt-get install {package}")
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


def _make(packages: tuple[base.Package, ...], services: dict[str, bytes], store: Store, root: Path) -> None:
    root.mkdir(parents=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", str(store.path(package.digest)), str(root)], check=True)
    for name in ("dev", "proc", "sys", "system", "data", "tmp"):
        (root / name).mkdir(exist_ok=True)
    for link, place in (("bin", "usr/bin"), ("lib", "usr/lib"), ("sbin", "usr/sbin"), ("system/bin", "../usr/bin")):
        with contextlib.suppress(FileExistsError):
            (root / link).symlink_to(place)
    bin_ = root / "usr/bin"
    for name in _tools(root):
        with contextlib.suppress(FileExistsError):
            (bin_ / name).symlink_to("toybox")
    (bin_ / "sh").unlink(missing_ok=True)
    (bin_ / "sh").symlink_to("mksh")
    for name, data in services.items():
        (bin_ / name).write_bytes(data)
        (bin_ / name).chmod(0o755)


def _tools(root: Path) -> list[str]:
    """What toybox can be called."""
    said = subprocess.run(
        [EMULATOR, "-L", str(root), str(root / "usr/bin/toybox")], capture_output=True, text=True, check=True
    )
    return [name for name in said.stdout.split() if name not in ("sh", "[") or name == "["]


if __name__ == "__main__":
    from meltrepro import settings
    from meltrepro.steps import silent

    found = base.resolve(Store(settings.load().cache / "store"), silent, PACKAGES)
    print(json.dumps([asdict(package) for package in found], indent=1))
