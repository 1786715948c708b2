"""Everything that building needs, set up from settings and a lock: store, fetcher, pins, layers, engine.

Nothing is made before it is asked for, so that looking up finished artifacts touches neither network nor engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from meltrepro.build import toolchain
from meltrepro.build.base import BaseImage, is_own
from meltrepro.build.image import Image, Layer
from meltrepro.build.model import Engine, Maker, Recipe
from meltrepro.build.pins import Pins
from meltrepro.build.toolchain import USUAL, Conditions
from meltrepro.errors import BuildError, LockMismatch
from meltrepro.frameworks.base import Weights
from meltrepro.manifest.lock import Lock, LockedToolchain
from meltrepro.settings import Settings
from meltrepro.steps import Sink
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher

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
        store = Store(self.settings.store)
        layer = lock.base.layer if lock.base is not None else None
        if self.record is not None:
            store = store.scoped(self.record)
        elif layer is not None and store.has(layer) and not is_own(layer, store):
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
            engine = self.engine()
            self.base().require(self.pins.lock.base)
            return engine
        makers = self.makers()
        if recipe.maker not in makers:
            raise BuildError(f"{recipe.name}: nothing here executes recipes of kind {recipe.maker}")
        return makers[recipe.maker]()

    def layers(self) -> list[Layer]:
        """The base's and the toolchain's layers, pinned and made where they are missing."""
        if self._layers is None:
            wheels = {name: self.fetcher.get(source, Path()) for name, source in toolchain.SOURCES.items()}
            entry = self.base().pinned(self.pins.lock.base)
            self.pins.set(base=entry)
            self._layers = [Layer.stored(entry.layer, self.store), toolchain.layer(wheels, self.store, self.sink)]
            for layer in self._layers:
                self.store.verify(layer.digest)
            self._pin_toolchain(self._layers)
        return self._layers

    def base(self) -> BaseImage:
        return BaseImage(self.store, self.settings, self.sink, self.pins.frozen, self.record is not None)

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
