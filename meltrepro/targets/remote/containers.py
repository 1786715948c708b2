"""Trials in a container on a device: its image brought there once, no network, nothing writable but the trial's folder.

A container is no child of whoever asks for it, so that it outlives the client that the agent ends; it carries the
device's folder as a label, by which every later command finds and removes it.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from meltrepro.build.image import Image, archive
from meltrepro.build.model import Artifact
from meltrepro.errors import TargetError
from meltrepro.targets.base import LIBRARIES, Progress
from meltrepro.targets.remote.deploy import DeviceCache
from meltrepro.targets.remote.shell import Reply, Shell

_LABEL = "meltrepro.root"
_LOAD_S = 600.0
_HINT = "see that docker runs there and that this user may use it (group docker), or leave `container` out"
_CLEAR = (
    'docker ps -aq --filter "label=$1" | while read -r each; do docker rm -f "$each" > /dev/null && echo "$each"; done'
)
_LOOK = "command -v docker && id -u && id -g && docker info --format '{{json .Runtimes}}'"


class Containers:
    """The container engine of one device."""

    def __init__(self, shell: Shell, root: str, image: str | None, cores: str | None) -> None:
        """`image` is one that the device has, by digest; the bundle's own where absent."""
        self._shell = shell
        self._root = root
        self._image = image
        self._cores = cores
        if any(letter in root for letter in ',"'):
            raise TargetError(f"{shell.link.name}: {root!r} cannot be shown to a container", hint="name another root")

    def load(self, bundle: Artifact, cache: DeviceCache, progress: Progress) -> None:
        """Bring the image there, unless it is; raises `TargetError`, `TargetLost`."""
        reference = self._reference(bundle)
        if self._docker("image", "inspect", "--format", "{{.Id}}", reference).status == 0:
            return
        if self._image is not None:
            raise TargetError(
                f"{self._shell.link.name}: has no image {reference}", hint=f"fetch it there: docker pull {reference}"
            )
        found = hashlib.sha256()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.tar"
            with path.open("wb") as file:
                for block in archive(_image_of(bundle)):
                    found.update(block)
                    file.write(block)
            there = cache.deploy(path, found.hexdigest(), progress)
        reply = self._docker("load", "-i", there, silence_s=_LOAD_S)
        self._shell.expect(reply, "load the image of its programs")
        cache.forget(found.hexdigest())

    def command(
        self, bundle: Artifact, program: str, job: str, arguments: Sequence[str], *, network: bool = False
    ) -> list[str]:
        """What runs a program of a bundle, named by its path there, in a container; `job` is its working folder, in which its name leads to it."""
        docker, user, group, runtimes = self._engine()
        own = self._image is None
        options = [
            *("--rm", f"--name=melt-{job.rpartition('/')[2]}", f"--label={_LABEL}={self._root}"),
            f"--network={'host' if network else 'none'}",
            *("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", f"--user={user}:{group}"),
            f"--mount=type=bind,source={self._root},target={self._root},readonly",
            f"--mount=type=bind,source={job},target={job}",
            *((f"--cpuset-cpus={self._cores}",) if self._cores else ()),
        ]
        if '"nvidia"' in runtimes:
            options += [
                "--runtime=nvidia",
                "--env=NVIDIA_VISIBLE_DEVICES=all",
                "--env=NVIDIA_DRIVER_CAPABILITIES=compute",
            ]
        entry = f"/bundle/{program}" if own else f"{job}/{program.rpartition('/')[2]}"
        return [docker, "run", *options, f"--entrypoint={entry}", self._reference(bundle), *arguments]

    def clear(self) -> int:
        """Remove every container of trials in this folder; returns how many there were. Raises `TargetLost`."""
        reply = self._shell.script(_CLEAR, f"{_LABEL}={self._root}")
        return len(reply.text.splitlines())

    def _reference(self, bundle: Artifact) -> str:
        return self._image or _image_of(bundle).reference

    def _engine(self) -> tuple[str, str, str, str]:
        reply = self._shell.script(_LOOK)
        lines = reply.text.splitlines()
        if reply.status != 0 or len(lines) != 4:
            raise TargetError(
                f"{self._shell.link.name}: cannot use docker: {(reply.err.strip() or reply.text or 'it is not there')[:200]}",
                hint=_HINT,
            )
        return lines[0], lines[1], lines[2], lines[3]

    def _docker(self, *words: str, silence_s: float | None = None) -> Reply:
        docker = self._engine()[0]
        return self._shell.run([docker, *words], silence_s=silence_s)


def _image_of(bundle: Artifact) -> Image:
    """The image of a bundle's programs, which hold all that they need; raises `TargetError` where they do not."""
    from meltrepro.build.docker_engine import runtime_image  # not before it is needed: it loads a large library

    try:
        libc = json.loads((bundle.path / "bundle.json").read_text(encoding="utf-8")).get("libc", "musl")
    except (OSError, ValueError):
        libc = "musl"  # bundles of before there was more than one
    if libc != "musl" and not (bundle.path / LIBRARIES).is_dir():
        raise TargetError(
            f"{bundle.id}: its programs need the device's own C library, which the image of a bundle does not have",
            hint="name an image that the device has, by digest: container: NAME@sha256:...",
        )
    return runtime_image(bundle)
