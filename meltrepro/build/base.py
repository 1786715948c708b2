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
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

from meltrepro.atomic import writing
from meltrepro.build.image import Layer, normalize
from meltrepro.build.log import check_space, writing_below
from meltrepro.build.model import Package
from meltrepro.build.namespaces import remedy
from meltrepro.errors import EngineError, LockError, LockMismatch, OfflineError
from meltrepro.interrupts import held
from meltrepro.manifest.lock import LockedBase, LockedPackage
from meltrepro.plan.identity import digest_of
from meltrepro.settings import Settings
from meltrepro.steps import Sink, Step, step
from meltrepro.store.archive import EPOCH
from meltrepro.store.cas import Store
from meltrepro.store.proxies import for_apt, without_logins
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


@dataclass(frozen=True)
class BaseImage:
    """How one command comes by its base image."""

    store: Store
    settings: Settings
    sink: Sink
    frozen: bool
    """Pin nothing that the lock does not hold."""
    recorded: bool
    """Whether the lock is that of a recorded campaign, which may be a stranger's."""

    def pinned(self, locked: LockedBase | None) -> LockedBase:
        """The base of a lock, or another one where that has none or may change; its layer is in the store.

        Raises `LockError` and `LockMismatch` where the lock cannot be followed, and what making or pulling it raises.
        """
        if locked is None and self.frozen:
            raise LockError("the lock does not pin the base image", hint="write it with: meltrepro lock SPEC")
        if locked is not None and self.store.has(locked.layer):
            return locked
        image = locked.image if locked is not None else self.settings.base_image
        if image is not None:
            return self._of_image(image, locked)
        packages = self._locked_packages(locked) if locked is not None else self._known_packages()
        layer = assemble(packages, self.store, self.sink)
        if self.frozen and locked is not None and layer.digest != locked.layer:
            raise LockMismatch(
                f"the base image's packages are the locked ones, but its layer is {layer.digest}, "
                f"and the lock has {locked.layer}: mmdebstrap or dpkg of this machine lay files out differently",
                hint="import a bundle, which holds the layer itself; artifacts do not depend on the base",
            )
        return LockedBase(suite=SUITE, layer=layer.digest, packages=as_locked(packages))

    def require(self, locked: LockedBase | None) -> None:
        """Raise `EngineError` where the base of a lock would have to be made here, and cannot be."""
        if (locked is not None and (locked.image or self.store.has(locked.layer))) or self.settings.base_image:
            return
        packages = of_lock(locked.packages) if locked is not None else self._kept_packages()
        if self.store.result("base-layer", _key(packages)) is None:
            mmdebstrap()

    def forget(self) -> None:
        """Drop the packages, so that the next build takes today's; raises `OfflineError` where it could not."""
        self._require_network()
        self.store.drop_ref("base", SUITE)

    def _of_image(self, image: str, locked: LockedBase | None) -> LockedBase:
        """The base out of a container image instead of packages."""
        from meltrepro.build.daemon import connect
        from meltrepro.build.docker_engine import base_layer

        pull = not self.recorded or image == self.settings.base_image
        offline = self.settings.offline
        layer = base_layer(connect(self.settings), image, self.store, self.sink, offline=offline, pull=pull)
        if locked is not None and layer.digest != locked.layer:
            raise LockMismatch(
                f"the image {image} gives the layer {layer.digest}, and the lock has {locked.layer}",
                hint="if the change is wanted, move the pin with: meltrepro lock --upgrade base SPEC",
            )
        self.store.put_ref("base-layer", image, {"digest": layer.digest})
        return LockedBase(suite=SUITE, layer=layer.digest, image=image)

    def _locked_packages(self, locked: LockedBase) -> tuple[Package, ...]:
        """The packages of the lock, fetched where they are missing.

        A Debian archive keeps one version of each package, so a lock outlives its packages. Artifacts do not depend on
        the base: without `--locked` today's packages are taken instead, and the lock says so. Assembling runs the scripts
        of packages outside of any sandbox: only what this machine took from its archive may be among them.
        """
        packages = of_lock(locked.packages)
        taken = set(remembered(self.store.own, "base", SUITE) or ())
        if taken.issuperset(packages) and all(self.store.has(package.digest) for package in packages):
            return packages
        today = self._todays_packages()
        foreign = [package for package in packages if package not in taken | set(today)]
        if not foreign:
            return packages
        if self.frozen or self.recorded:
            raise LockError(
                f"the locked base image is not here, and this machine's Debian archive does not have "
                f"{counted(len(foreign), 'package')} of it: {foreign[0].name} {foreign[0].version}",
                hint="import a bundle, which holds the image's layer, or take today's packages with: "
                "meltrepro lock --upgrade base SPEC",
            )
        moved = sorted({p.name for p in today} - {p.name for p in packages if p in today})
        self.sink(Step("base", "note", f"{', '.join(moved)}: the archive has moved on; the base is pinned anew"))
        remember(today, self.store, "base", SUITE)
        return today

    def _known_packages(self) -> tuple[Package, ...]:
        """Packages pinned here before, so that two manifests of one machine share a base; today's otherwise."""
        packages = self._kept_packages()
        if not packages:
            packages = self._todays_packages()
            remember(packages, self.store, "base", SUITE)
        return packages

    def _todays_packages(self) -> tuple[Package, ...]:
        """Those of the archive; offline, those that this machine took from it last."""
        packages = self._kept_packages() if self.settings.offline else ()
        if packages:
            return packages
        self._require_network()
        return resolve(self.store, self.sink)

    def _kept_packages(self) -> tuple[Package, ...]:
        packages = remembered(self.store, "base", SUITE) or ()
        return packages if all(self.store.has(package.digest) for package in packages) else ()

    def _require_network(self) -> None:
        if self.settings.offline:
            raise OfflineError(
                "offline, and the store does not hold the packages of the base image that are wanted",
                hint="fetch them once without MELTREPRO_OFFLINE, or import a bundle that holds them",
            )


# -- packages, in locks and in the store ------------------------------------------------------------------------------


def as_locked(packages: Iterable[Package]) -> dict[str, LockedPackage]:
    """Packages as a lock has them."""
    return {p.name: LockedPackage(version=p.version, architecture=p.architecture, digest=p.digest) for p in packages}


def of_lock(entries: Mapping[str, LockedPackage]) -> tuple[Package, ...]:
    """The packages that a lock names, ordered by name."""
    return tuple(sorted(Package(name, p.version, p.architecture, p.digest) for name, p in entries.items()))


def remember(packages: Iterable[Package], store: Store, kind: str, key: str) -> None:
    store.put_ref(kind, key, {"packages": [astuple(package) for package in packages]})


def remembered(store: Store, kind: str, key: str) -> tuple[Package, ...] | None:
    """The packages pinned here before; `None` where none were."""
    ref = store.get_ref(kind, key)
    return tuple(Package(*fields) for fields in ref["packages"]) if ref is not None else None


# -- making it --------------------------------------------------------------------------------------------------------


def resolve(
    store: Store, sink: Sink, flavour: Flavour = BASE, used: Collection[str] | None = None
) -> tuple[Package, ...]:
    """Fetch the packages of today into the store and pin them, or those of them that are used, ordered by name.

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
        wanted = (deb for deb in debs.glob("*.deb") if used is None or deb.name.partition("_")[0] in used)
        return tuple(sorted(_pin(store, deb) for deb in wanted))


def is_own(layer: str, store: Store) -> bool:
    """Whether this machine has made a base layer itself, or taken it out of an image that it pulled."""
    return any(known["digest"] == layer for known in store.own.list_refs("base-layer").values())


def assemble(packages: tuple[Package, ...], store: Store, sink: Sink) -> Layer:
    """The base layer made of exactly these packages; taken from the store where it was made before.

    Raises `LockError` where a package file is not in the store, and `EngineError` where `mmdebstrap` fails.
    """
    key = _key(packages)
    if (known := store.result("base-layer", key)) is not None:
        return Layer.stored(known, store)
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
        with tarfile.open(scratch / "root.tar") as root:
            if "./bin" not in root.getnames():
                raise EngineError("mmdebstrap made a file system without /bin: it did not take the pinned packages")
            layer = root_layer(root, scratch, store)
        store.put_ref("base-layer", key, {"digest": layer.digest})
        return layer


def root_layer(root: tarfile.TarFile, scratch: Path, store: Store) -> Layer:
    """A root file system as a layer in the store, without what says more of its machine than of its packages."""
    with writing_below(scratch):
        normalize(root, scratch / "layer.tar", drop=VOLATILE)
    return Layer.stored(store.put_file(scratch / "layer.tar", move=True), store)


def _key(packages: Iterable[Package]) -> str:
    return digest_of([astuple(package) for package in packages])


def _write_repository(packages: Iterable[Package], store: Store, repository: Path) -> None:
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


def _release(packages: Iterable[Package], listing: bytes) -> str:
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


def mmdebstrap() -> str:
    """The program that makes base images; raises `EngineError` where it is missing or this user cannot use it."""
    program = shutil.which("mmdebstrap")
    if program is None:
        raise EngineError("cannot make the base image: mmdebstrap is not installed", hint=_INSTALL)
    if os.geteuid() != 0:  # this makes the namespaces that it will need, and says what is in the way
        probe = subprocess.run([program, "--unshare-helper", "true"], capture_output=True, text=True, check=False)
        if probe.returncode != 0 and "unknown option" not in probe.stderr.lower():
            reason = "; ".join(line.partition(": ")[2] or line for line in probe.stderr.strip().splitlines()[-2:])
            raise EngineError(
                f"this user cannot make the base image: mmdebstrap may not use namespaces here: {reason}",
                hint=f"{remedy(ids=True) or _INSTALL}; or import a bundle, which holds the base image",
            )
    return program


def _mmdebstrap(scratch: Path, *arguments: str) -> None:
    """Run `mmdebstrap`; its own log is part of the error where it fails."""
    program = mmdebstrap()
    process: subprocess.Popen[str] | None = None
    try:
        with held():
            process = subprocess.Popen(
                # Of the ways for ordinary users, this one alone runs the suite's own C library, whatever this machine has.
                [program, *(("--mode=unshare",) if os.geteuid() != 0 else ()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**_environment(), "TMPDIR": str(scratch)},
                start_new_session=True,
            )
        said = without_logins(process.communicate()[1])
    finally:
        _stop(process)
    if process.returncode != 0:
        check_space(scratch, said)
        tail = "\n".join(said.strip().splitlines()[-8:])
        raise EngineError(
            f"mmdebstrap could not make the base image:\n{tail}",
            hint="see that the Debian archive can be reached (apt-get update)"
            + (f"; {commands}" if os.geteuid() != 0 and (commands := remedy(ids=True)) else ""),
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
        **for_apt(),
    }


@contextmanager
def _temporary() -> Iterator[Path]:
    with writing(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def _scratch(store: Store) -> Iterator[Path]:
    """A scratch folder that apt's own user can read; an ordinary user's home may let nobody in, his own further ids too."""
    place = store.scratch() if os.geteuid() == 0 else _temporary()
    with place as folder:
        folder.chmod(0o755)
        yield folder
