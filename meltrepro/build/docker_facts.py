"""What kind of engine speaks Docker's API, and how it keeps images and users: for `doctor`, and where engines differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker


@dataclass(frozen=True)
class DockerFacts:
    """What an engine says of itself."""

    kind: str
    """`docker` or `podman`."""
    version: str
    storage: str
    """What its images lie in: a graph driver, or containerd's store."""
    traits: frozenset[str]
    """Of `rootless`, `userns` and `selinux` what it has on."""
    memory: bool
    """Whether it can limit a container's memory."""
    pids: bool
    """Whether it can limit a container's processes."""

    @property
    def rootless(self) -> bool:
        return "rootless" in self.traits

    def __str__(self) -> str:
        names = {"rootless": "without root", "userns": "userns-remap", "selinux": "SELinux"}
        shown = [name for trait, name in names.items() if trait in self.traits]
        return ", ".join([f"{self.kind} {self.version}", f"storage {self.storage}", *shown])


def name_of(client: docker.DockerClient) -> tuple[str, str]:
    """Kind (`docker` or `podman`) and version of an engine; raises what docker-py does where it does not answer."""
    said = client.version()
    parts = [str(part.get("Name")) for part in said.get("Components") or ()]
    return "podman" if any("podman" in part.lower() for part in parts) else "docker", str(said["Version"])


def facts_of(client: docker.DockerClient) -> DockerFacts:
    """Ask an engine; raises what docker-py does where it does not answer."""
    (kind, version), info = name_of(client), client.info()
    traits = {option.partition("name=")[2].partition(",")[0] for option in info.get("SecurityOptions") or ()}
    rootless = "rootless" in traits or bool(info.get("Rootless"))
    governed = not (
        rootless and info.get("CgroupVersion") == "1"
    )  # whose groups are root's alone, whatever podman says
    return DockerFacts(
        kind=kind,
        version=version,
        storage=_storage(info),
        traits=frozenset({*traits, *(("rootless",) if rootless else ())}),
        memory=bool(info.get("MemoryLimit", True)) and governed,
        pids=bool(info.get("PidsLimit", True)) and governed,
    )


def _storage(info: Mapping[str, Any]) -> str:
    driver = str(info.get("Driver", "unknown"))
    kinds = dict(pair for pair in info.get("DriverStatus") or () if len(pair) == 2)
    snapshotter = str(kinds.get("driver-type", "")).startswith("io.containerd.snapshotter")
    return f"containerd's store ({driver})" if snapshotter else driver
