"""Engines that speak Docker's API and are no classic Docker: containerd's image store, podman, rootless, remapped, SELinux."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meltrepro import settings
from meltrepro.build import daemon
from meltrepro.build.docker_engine import DockerEngine
from meltrepro.build.docker_facts import facts_of
from meltrepro.build.image import Image, Layer
from meltrepro.build.model import Artifact, Execution, Recipe
from meltrepro.errors import EngineError
from meltrepro.resources import image_file
from meltrepro.steps import Step, silent
from tests.fault.engine_server import EngineServer, engine_server


class Served:
    """An engine behind a server, and what is asked of it."""

    def __init__(self, folder: Path, server: EngineServer) -> None:
        self.server = server
        self.steps: list[Step] = []
        self.folder = folder
        environment = {"HOME": str(folder), "DOCKER_HOST": f"unix://{folder}/e.sock"}
        self.client = daemon.connect(settings.load(), environment)
        self.engine = DockerEngine(self.client, lambda: [layer(folder)], 1, self.steps.append)

    def asked(self, kind: str) -> list[dict[str, Any]]:
        return [what for each, what in self.server.asked if each == kind]

    def loads(self) -> int:
        return sum(step.name == "image.load" and step.phase == "begin" for step in self.steps)


def layer(folder: Path, name: str = "file") -> Layer:
    file = folder / f"{name}.tar"
    with tarfile.open(file, "w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    return Layer(file, hashlib.sha256(file.read_bytes()).hexdigest())


@pytest.fixture
def state() -> EngineServer:
    return EngineServer({"bin/tool": b"tool"}, b"model")


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory, state: EngineServer) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("e")
    with engine_server(folder / "e.sock", state):
        yield Served(folder, state)


@pytest.mark.parametrize("kind", ["docker", "containerd", "podman"])
def test_an_image_is_loaded_once_and_known_by_the_engines_own_id(
    served: Served, state: EngineServer, kind: str
) -> None:
    state.kind = kind
    image = served.engine.toolchain_image()
    found = served.engine.load(image)
    assert (found == image.id) is (kind != "containerd")
    assert served.engine.load(image) == found == state.loaded[image.reference]["Id"]
    assert served.loads() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"RootFS": {"Layers": ["sha256:" + "0" * 64]}},
        {"Architecture": "arm64"},
        {"Config": {"Cmd": ["/bin/sh"], "Env": ["LD_PRELOAD=/x"]}},
        {"Config": {"Cmd": ["/bin/sh"], "Entrypoint": ["/x"]}},
        {"Config": {"Cmd": ["/bin/sh"], "User": "1"}},
        {"RootFS": None},
    ],
)
def test_another_image_under_our_name_is_not_ours(
    served: Served, state: EngineServer, change: dict[str, object]
) -> None:
    """A name can be moved by anybody who may use the engine."""
    state.kind = "containerd"
    image = served.engine.toolchain_image()
    served.engine.load(image)
    known = state.loaded[image.reference]
    state.loaded[image.reference] = {**known, "Id": "sha256:" + "f" * 64, **change}
    assert served.engine.load(image) == known["Id"]
    assert served.loads() == 2


def test_an_engine_that_stores_something_else_is_an_error(served: Served, state: EngineServer) -> None:
    image = Image("meltrepro/x", [layer(served.folder)])
    state.kind = "containerd"
    state.mangled = True
    with pytest.raises(EngineError, match=f"expected {image.id}") as caught:
        served.engine.load(image)
    assert caught.value.hint


def recipe() -> Recipe:
    return Recipe("test/tool", {"build.sh": b""}, image_file("Dockerfile.j2").decode(), {}, {}, "x86_64-linux-musl")


@pytest.mark.parametrize(
    ("kind", "network"), [("docker", "none"), ("containerd", "none"), ("podman", "NetworkDisabled")]
)
def test_a_build_has_no_network_in_the_words_of_its_engine(
    served: Served, state: EngineServer, tmp_path: Path, kind: str, network: str
) -> None:
    """Podman takes Docker's word for none as one for the network that it uses by default: it knows its own alone."""
    state.kind = kind
    (tmp_path / "out").mkdir()
    served.engine.build(recipe(), tmp_path / "out", tmp_path / "log", silent)
    builds = served.asked("build")
    assert [build["networkmode"] for build in builds] == [[network]] * 2, "the compiler's cache, and the recipe"
    assert {"ulimits" in build for build in builds} == {kind == "podman"}


def execution(folder: Path, **more: Any) -> Execution:
    bundle = layer(folder, "bundle")
    artifact = Artifact("f/run/any", "bundle", "0" * 64, bundle.digest, bundle.path, folder, 1, platform="x86_64")
    return Execution(argv=["/bundle/bin/tool"], bundle=artifact, memory_bytes=1 << 30, **more)


@pytest.mark.parametrize("traits", [(), ("rootless",), ("userns",), ("selinux",)])
@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_a_container_may_use_its_mounts_and_nothing_else(
    served: Served, state: EngineServer, kind: str, traits: tuple[str, ...]
) -> None:
    """Whoever the engine makes of its user, and whatever it labels: what is mounted stays as it is."""
    state.kind, state.traits = kind, traits
    out = served.folder / "out"
    out.mkdir()
    owner = out.stat().st_uid
    served.engine.execute(execution(served.folder, writable={"/out": out}))
    (asked,) = served.asked("create")
    user = os.getuid() or 65534
    group = os.getgid() if os.getuid() else user
    assert asked["User"] == ("0:0" if "rootless" in traits else f"{user}:{group}")
    host = asked["HostConfig"]
    assert host["UsernsMode"] == "host"
    assert host["SecurityOpt"] == ["no-new-privileges", "label=disable"]
    assert (host["NetworkMode"], host["CapDrop"], host["ReadonlyRootfs"]) == ("none", ["ALL"], True)
    assert out.stat().st_uid == owner


@pytest.mark.parametrize(
    ("says", "traits", "groups", "limits"),
    [
        (True, (), "1", True),
        (True, ("rootless",), "2", True),
        (False, ("rootless",), "2", False),
        (True, ("rootless",), "1", False),
    ],
)
def test_limits_are_asked_of_engines_that_have_them(
    served: Served, state: EngineServer, says: bool, traits: tuple[str, ...], groups: str, limits: bool
) -> None:
    """Podman without root says that it can limit, and refuses a container for a limit that its control groups cannot hold."""
    state.limits, state.traits, state.groups = says, traits, groups
    served.engine.execute(execution(served.folder))
    (asked,) = served.asked("create")
    assert bool(asked["HostConfig"].get("Memory")) is bool(asked["HostConfig"].get("PidsLimit")) is limits


def test_proxies_of_the_users_docker_stay_out_of_containers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    file = served.folder / "config.json"
    file.write_text('{"proxies": {"default": {"httpProxy": "http://user:secret@proxy:1"}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(served.folder))
    again = Served(served.folder, served.server)
    again.engine.execute(execution(served.folder))
    assert "secret" not in str(served.asked("create"))


@pytest.mark.parametrize(
    ("kind", "traits", "shown"),
    [
        ("docker", (), "docker 1.0, storage overlayfs"),
        ("containerd", ("rootless",), "docker 1.0, storage containerd's store (overlayfs), without root"),
        ("podman", ("selinux", "userns"), "podman 1.0, storage overlayfs, userns-remap, SELinux"),
    ],
)
def test_what_an_engine_is(served: Served, state: EngineServer, kind: str, traits: tuple[str, ...], shown: str) -> None:
    state.kind, state.traits = kind, traits
    assert str(facts_of(served.client)) == shown
    assert served.engine.version() == ("podman 1.0" if kind == "podman" else "docker 1.0")
