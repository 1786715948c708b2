"""Everything that building needs, set up from settings and a lock: store, fetcher, pins, layers, engine.

Nothing is made before it is asked for, so that looking up finished artifacts touches neither network nor engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from meltrepro.build import base, toolchain
from meltrepro.build.image import Image, Layer
from meltrepro.build.model import Engine, Maker, Package, Recipe
from meltrepro.build.pins import Pins
from meltrepro.build.toolchain import USUAL, Conditions
from meltrepro.errors import BuildError, LockError, LockMismatch, OfflineError
from meltrepro.frameworks.base import Weights
from meltrepro.manifest.lock import Lock, LockedBase, LockedPackage, LockedToolchain
from meltrepro.settings import Settings
from meltrepro.steps import Sink, Step
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.words import counted

EngineName = Literal["docker", "process"]


@dataclass
class Tools:
    """What one command builds with."""

    settings: Settings
    sink: Sink
    lock: InitVar[Lock]
    engine_name: EngineName = "docker"
    locked: InitVar[bool] = False
    """Refuse to pin anything that the lock does not hold."""
    conditions: Conditions = USUAL
    """Surroundings of builds by the engine `process`; other than usual, the number of jobs is another one too."""
    makers: Callable[[], Mapping[str, Callable[[], Maker]]] = dict
    """What executes recipes that no engine does, by the names that these have for it."""
    record: Path | None = None
    """The lock of a recorded campaign, which may be a stranger's: what comes of it stays in its scope of the store."""
    base_dir: InitVar[Path] = Path()
    """What relative sources count from."""
    weights: InitVar[Mapping[str, Weights]] = MappingProxyType({})
    """What writes the files of synthetic sources, by format."""
    _engine: Engine | None = None
    _layers: list[Layer] | None = None
    store: Store = field(init=False)
    fetcher: Fetcher = field(init=False)
    pins: Pins = field(init=False)

    def __post_init__(self, lock: Lock, locked: bool, base_dir: Path, weights: Mapping[str, Weights]) -> None:
        store = Store(self.settings.cache / "store")
        layer = lock.base.layer if lock.base is not None else None
        if self.record is not None:
            store = store.scoped(self.record)
        elif layer is not None and store.has(layer) and not base.is_own(layer, store):
            store = store.scoped_to(layer)  # what is built on a base of others is believed where that is the base
        self.store = store
        self.fetcher = Fetcher(self.store, self.settings, self.sink, weights=weights)
        self.pins = Pins(lock, self.store, self.fetcher, self.sink, base_dir, locked)

    def engine(self) -> Engine:
        """The engine, with base and toolchain ready; raises `EngineError` where it does not answer."""
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    def maker(self, recipe: Recipe) -> Maker:
        """What executes a recipe; raises `BuildError` where nothing here does."""
        if recipe.by_engine:
            return self.engine()
        makers = self.makers()
        if recipe.maker not in makers:
            raise BuildError(f"{recipe.name}: nothing here executes recipes of kind {recipe.maker}")
        return makers[recipe.maker]()

    def layers(self) -> list[Layer]:
        """The base's and the toolchain's layers, pinned and made where they are missing."""
        if self._layers is None:
            wheels = {name: self.fetcher.get(source, Path()) for name, source in toolchain.SOURCES.items()}
            self._layers = [self._base(), toolchain.layer(wheels, self.store, self.sink)]
            for layer in self._layers:
                self.store.verify(layer.digest)
            self._pin_toolchain(self._layers)
        return self._layers

    def forget_base(self) -> None:
        """Drop the base's packages, so that the next build takes today's; raises `OfflineError` where it could not."""
        self._require_network()
        self.store.drop_ref("base", base.SUITE)
        self._layers = None

    # -- engine, base, toolchain ----------------------------------------------------------------------------------

    def _make_engine(self) -> Engine:
        if self.engine_name == "process":
            from meltrepro.build.process_engine import ProcessEngine

            jobs = self.settings.jobs
            if self.conditions is not USUAL:
                jobs = 1 if jobs > 1 else 2
            process = ProcessEngine(self.layers, self.store, jobs, self.sink, self.conditions)
            process.version()
            return process
        from meltrepro.build.daemon import connect
        from meltrepro.build.docker_engine import DockerEngine

        client = connect(self.settings)
        return DockerEngine(client, self.layers, self.settings.jobs, self.sink)

    def _base(self) -> Layer:
        locked = self.pins.lock.base
        if locked is None and self.pins.frozen:
            raise LockError("the lock does not pin the base image", hint="write it with: meltrepro lock SPEC")
        if locked is not None and self.store.has(locked.layer):
            return Layer(self.store.path(locked.layer), locked.layer)
        image = locked.image if locked is not None else self.settings.base_image
        if image is not None:
            return self._image_base(image, locked)
        packages = self._locked_packages(locked) if locked is not None else self._known_packages()
        layer = base.assemble(packages, self.store, self.sink)
        if self.pins.frozen and locked is not None and layer.digest != locked.layer:
            raise LockMismatch(
                f"the base image's packages are the locked ones, but its layer is {layer.digest}, "
                f"and the lock has {locked.layer}: mmdebstrap or dpkg of this machine lay files out differently",
                hint="import a bundle, which holds the layer itself; artifacts do not depend on the base",
            )
        new = LockedBase(
            suite=base.SUITE,
            layer=layer.digest,
            packages={
                p.name: LockedPackage(version=p.version, architecture=p.architecture, digest=p.digest) for p in packages
            },
        )
        self.pins.set(base=new)
        return layer

    def _image_base(self, image: str, locked: LockedBase | None) -> Layer:
        """The base out of a container image instead of packages."""
        from meltrepro.build.daemon import connect
        from meltrepro.build.docker_engine import base_layer

        pull = self.record is None or image == self.settings.base_image
        offline = self.settings.offline
        layer = base_layer(connect(self.settings), image, self.store, self.sink, offline=offline, pull=pull)
        if locked is not None and layer.digest != locked.layer:
            raise LockMismatch(
                f"the image {image} gives the layer {layer.digest}, and the lock has {locked.layer}",
                hint="if the change is wanted, move the pin with: meltrepro lock --upgrade base SPEC",
            )
        self.store.put_ref("base-layer", image, {"digest": layer.digest})
        new = LockedBase(suite=base.SUITE, layer=layer.digest, image=image)
        self.pins.set(base=new)
        return layer

    def _locked_packages(self, locked: LockedBase) -> tuple[Package, ...]:
        """The packages of the lock, fetched where they are missing.

        A Debian archive keeps one version of each package, so a lock outlives its packages. Artifacts do not depend on
        the base: without `--locked` today's packages are taken instead, and the lock says so. Assembling runs the scripts
        of packages outside of any sandbox: only what this machine took from its archive may be among them.
        """
        packages = tuple(
            Package(name, package.version, package.architecture, package.digest)
            for name, package in locked.packages.items()
        )
        known = self.store.own.get_ref("base", base.SUITE)
        taken = {Package(*fields) for fields in known["packages"]} if known is not None else set()
        if taken.issuperset(packages) and all(self.store.has(package.digest) for package in packages):
            return packages
        today = self._todays_packages()
        foreign = [package for package in packages if package not in taken | set(today)]
        if not foreign:
            return packages
        if self.pins.frozen or self.record is not None:
            raise LockError(
                f"the locked base image is not here, and this machine's Debian archive does not have "
                f"{counted(len(foreign), 'package')} of it: {foreign[0].name} {foreign[0].version}",
                hint="import a bundle, which holds the image's layer, or take today's packages with: "
                "meltrepro lock --upgrade base SPEC",
            )
        moved = sorted({p.name for p in today} - {p.name for p in packages if p in today})
        self.sink(Step("base", "note", f"{', '.join(moved)}: the archive has moved on; the base is pinned anew"))
        self.store.put_ref("base", base.SUITE, _as_ref(today))
        return today

    def _known_packages(self) -> tuple[Package, ...]:
        """Packages pinned here before, so that two manifests of one machine share a base; today's otherwise."""
        remembered = self._remembered_packages()
        if remembered is not None:
            return remembered
        packages = self._todays_packages()
        self.store.put_ref("base", base.SUITE, _as_ref(packages))
        return packages

    def _todays_packages(self) -> tuple[Package, ...]:
        """Those of the archive; offline, those that this machine took from it last."""
        remembered = self._remembered_packages() if self.settings.offline else None
        if remembered is not None:
            return remembered
        self._require_network()
        return base.resolve(self.store, self.sink)

    def _remembered_packages(self) -> tuple[Package, ...] | None:
        known = self.store.get_ref("base", base.SUITE)
        packages = tuple(Package(*fields) for fields in known["packages"]) if known is not None else ()
        return packages if packages and all(self.store.has(package.digest) for package in packages) else None

    def _require_network(self) -> None:
        if self.settings.offline:
            raise OfflineError(
                "offline, and the store does not hold the packages of the base image that are wanted",
                hint="fetch them once without MELTREPRO_OFFLINE, or import a bundle that holds them",
            )

    def _pin_toolchain(self, layers: list[Layer]) -> None:
        image = Image("meltrepro/toolchain", layers).id
        new = LockedToolchain(
            digest=toolchain.identity(),
            image=image,
            wheels={name: source.digest or "" for name, source in toolchain.SOURCES.items()},
        )
        old = self.pins.lock.toolchain
        if self.pins.frozen and old is not None and old != new:
            raise LockMismatch(
                "the lock names another toolchain than this version of meltrepro uses: "
                f"the lock has {old.digest} in image {old.image}, this version {new.digest} in image {new.image}",
                hint="install the version that wrote the lock, or move on with: meltrepro lock --upgrade toolchain SPEC",
            )
        self.pins.set(toolchain=new)


def _as_ref(packages: tuple[Package, ...]) -> dict[str, object]:
    return {"packages": [[p.name, p.version, p.architecture, p.digest] for p in packages]}
