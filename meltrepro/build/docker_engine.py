"""Engine `docker`: recipes as images, through docker-py and the classic builder that every engine has.

Network is off during builds and executions. Base, toolchain and runtime images are loaded from deterministic archives
(`build.image`), so that their ids are the same everywhere; only the builder images, which hold a warm compiler cache,
are made by `docker build`, and nothing depends on their ids.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from resource import RLIMIT_NOFILE, RLIMIT_NPROC, getrlimit
from typing import Any, BinaryIO, cast

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import LogConfig, Mount, Ulimit

from meltrepro import resources, untrusted
from meltrepro.atomic import write_bytes, writing
from meltrepro.build import toolchain
from meltrepro.build.base import root_layer
from meltrepro.build.docker_facts import DockerFacts, facts_of, name_of
from meltrepro.build.handover import handed_over
from meltrepro.build.image import Image, Layer, archive
from meltrepro.build.log import BuildLog, writing_below
from meltrepro.build.model import PLAIN_ALONE, PROCESSES, Artifact, Execution, Exit, Recipe
from meltrepro.build.render import render, render_text
from meltrepro.errors import BuildError, EngineError, OfflineError, SourceError
from meltrepro.interrupts import held
from meltrepro.plan.identity import digest_of
from meltrepro.steps import Sink, step
from meltrepro.store.archive import EPOCH, unpack_below
from meltrepro.store.cas import Store

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Machine names of the kernel and of container images."""
_LABEL = "io.meltrepro.recipe"
_OWNER = "io.meltrepro.owner"
_NOBODY = 65534
"""Who programs are in containers where this process is root: the user that owns nothing."""
_STOP_S = 10
_OPEN_FILES = 4096
"""In podman, which allows a build 1024 unless told otherwise: the compiler opens more."""
_FIX = "meltrepro doctor --fix starts one where it may, and says how where it may not"


class DockerEngine:
    """Executes recipes as `docker build` and commands as `docker run`, both without network."""

    name = "docker"

    def __init__(
        self, client: docker.DockerClient, layers: Callable[[], Sequence[Layer]], jobs: int, sink: Sink
    ) -> None:
        """`layers` gives the base's and the toolchain's, in this order; `jobs` is the number of parallel compilers."""
        self._client = client
        self._layers = layers
        self._jobs = jobs
        self._sink = sink

    def version(self) -> str:
        """`docker <version>`, or `podman <version>`; raises `EngineError` where the engine does not answer."""
        return " ".join(self._name)

    @cached_property
    def _name(self) -> tuple[str, str]:
        with _engine_errors():
            return name_of(self._client)

    def _limits(self) -> Mapping[str, int]:
        """What has to be limited in podman, whose own limits are too high for some machines, and too low for compilers."""
        if not self._podman:
            return {}
        wanted = {"nofile": (RLIMIT_NOFILE, _OPEN_FILES), "nproc": (RLIMIT_NPROC, PROCESSES)}
        hard = {name: getrlimit(kind)[1] for name, (kind, _) in wanted.items()}
        return {name: most if hard[name] < 0 else min(most, hard[name]) for name, (_, most) in wanted.items()}

    @property
    def _podman(self) -> bool:
        return self._name[0] == "podman"

    @cached_property
    def _facts(self) -> DockerFacts:
        with _engine_errors():
            return facts_of(self._client)

    def toolchain_image(self) -> Image:
        """The image of base and toolchain, with the same id wherever the same pins are used."""
        return Image("meltrepro/toolchain", self._layers())

    def build(self, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False) -> Mapping[str, str]:
        """Build the recipe's image and copy its `/out` into the empty folder `out`."""
        builder = self._builder(recipe.triple, log, sink)
        labels = {**recipe.labels, _LABEL: recipe.name}
        dockerfile = render_text(
            recipe.dockerfile,
            {
                "builder": builder,
                "env": toolchain.environment(recipe.triple),
                "phases": recipe.phases or ("",),
                "labels": labels,
            },
            name=f"{recipe.name}: Dockerfile",
        )
        files: dict[str, bytes | Path] = {"Dockerfile": dockerfile.encode()}
        files |= {f"recipe/{name}": content for name, content in recipe.files.items()}
        files |= {f"inputs/{name}": path for name, path in recipe.inputs.items()}
        image = self._docker_build(files, recipe.name, log, sink, tag=None, args={"JOBS": str(self._jobs)}, fresh=fresh)
        with _engine_errors():
            try:
                self._copy_out(image, recipe.name, out)
            finally:
                # The result is in `out`; what made it is worth keeping only while it may have to be resumed.
                self._client.images.remove(image, force=True)
                self._client.images.prune(filters={"dangling": True, "label": f"{_LABEL}={recipe.name}"})
        return {"Dockerfile": dockerfile}

    def execute(self, execution: Execution) -> Exit:
        """Run the command in a container of the bundle's runtime image as an ordinary user."""
        user = os.getuid() if self._facts.rootless else os.getuid() or _NOBODY
        with _engine_errors(), handed_over(execution, user), self._container(execution, user) as container:
            status = _finished(container, execution.timeout_s)
            if timed_out := status is None:
                container.kill()
            container.reload()
            same = execution.stderr == execution.stdout
            _save(container, execution.stdout, stdout=True, stderr=same)
            _save(container, None if same else execution.stderr, stdout=False, stderr=True)
            return Exit(124 if status is None else status, timed_out, bool(container.attrs["State"]["OOMKilled"]))

    @contextlib.contextmanager
    def beside(self, execution: Execution) -> Iterator[str]:
        """Keep the command running in a container, whose processes those that it watches join.

        It runs as the user of this process, without any capability, because some sensors can be read by root alone.
        """
        with contextlib.ExitStack() as stack:
            with _engine_errors():
                container = stack.enter_context(self._container(execution, os.getuid()))
                container.start()
            try:
                yield container.id
            finally:
                with _engine_errors():
                    with contextlib.suppress(NotFound):
                        container.stop(timeout=_STOP_S)
                        _save(container, execution.stdout, stdout=True, stderr=True)
                    stack.close()

    @contextlib.contextmanager
    def _container(self, execution: Execution, user: int) -> Iterator[Any]:
        """A container of an execution that is not started yet; nothing of it is left after the block."""
        image = self.load(runtime_image(execution.bundle))
        with held():  # an interrupt between creating and remembering would leave the container behind
            container = self._client.containers.create(
                image,
                command=list(execution.argv),
                network_mode="host" if execution.network else "none",
                user=self._inside(user),
                # Mounts have the owners that they have here, also where users are remapped or SELinux labels files: what is
                # mounted is not relabelled, because some of it belongs to others.
                userns_mode="host",
                security_opt=["no-new-privileges", "label=disable"],
                use_config_proxy=False,
                mounts=[
                    *(_bind(inside, outside, read_only=True) for inside, outside in execution.readonly.items()),
                    *(_bind(inside, outside, read_only=False) for inside, outside in execution.writable.items()),
                ],
                # The runtime images hold no shell and no other program; capabilities have nothing to do in them.
                cap_drop=["ALL"],
                read_only=True,
                log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "64m"}),
                mem_limit=execution.memory_bytes if self._facts.memory else None,
                pids_limit=PROCESSES if self._facts.pids else None,
                pid_mode=f"container:{execution.watcher}" if self._runs(execution.watcher) else None,
                ulimits=[Ulimit(name=name, soft=most, hard=most) for name, most in self._limits().items()],
                labels={_LABEL: "execution", _OWNER: execution.owner},
            )
        try:
            yield container
        finally:
            with contextlib.suppress(NotFound):
                container.remove(force=True, v=True)

    def _inside(self, user: int) -> str:
        """Who is a user of this machine in a container; to an engine without root, its own is root, and without any power."""
        if self._facts.rootless:
            return "0:0"
        return f"{user}:{os.getgid() if user == os.getuid() else user}"

    def _runs(self, watcher: str) -> bool:
        """Whether a program that watches others is still there to be joined; it may have ended early."""
        with contextlib.suppress(NotFound):
            return bool(watcher) and self._client.containers.get(watcher).status == "running"
        return False

    def stop_strays(self, owner: str) -> int:
        """Remove the containers of this owner that outlived the process that started them; returns how many."""
        with _engine_errors():
            strays = self._client.containers.list(all=True, filters={"label": f"{_OWNER}={owner}"}, ignore_removed=True)
            for container in strays:
                with contextlib.suppress(NotFound):
                    container.remove(force=True, v=True)
        return len(strays)

    # -- images ---------------------------------------------------------------------------------------------------

    def _builder(self, triple: str, log: Path, sink: Sink) -> str:
        """Reference of the image with a warm C library for `triple`, made once per toolchain and base.

        Where zig has nothing to compile, the toolchain's own image.
        """
        base = self.toolchain_image()
        if not toolchain.uses_zig(triple):
            with _engine_errors():
                self.load(base)
            return base.reference
        files: dict[str, bytes | Path] = {"warm.sh": resources.image_file("toolchain/warm.sh")}
        env = toolchain.environment(triple)
        variables = {"toolchain": base.reference, "triple": triple, "env": env}
        files["Dockerfile"] = render("toolchain/Dockerfile.j2", variables).encode()
        key = digest_of({name: content.decode() for name, content in files.items() if isinstance(content, bytes)})
        tag = f"meltrepro/builder:{triple}-{key[:16]}"
        with _engine_errors():
            with contextlib.suppress(ImageNotFound):
                self._client.images.get(tag)
                return tag
            self.load(base)
        self._docker_build(files, f"builder for {triple}", log, sink, tag=tag, args={})
        return tag

    def load(self, image: Image) -> str:
        """Load an image that we made ourselves unless the engine has it; returns the engine's id of it.

        That is the digest of its configuration, as is `Image.id`, or of a manifest that the engine wrote around it.
        """
        for name in (image.id, image.reference):
            with contextlib.suppress(ImageNotFound):
                found = self._client.images.get(name)
                if found.id == image.id or image.is_described_by(found.attrs):
                    return str(found.id)
        with step(self._sink, "image.load", image.reference), _temporary_file() as file:
            with writing(Path(tempfile.gettempdir())):
                file.writelines(archive(image))
                file.seek(0)
            loaded = self._client.images.load(file)
        for found in loaded:
            if found.id == image.id or "RootFS" not in found.attrs or image.is_described_by(found.attrs):
                return str(found.id)
        raise EngineError(
            f"the engine made {', '.join(str(each.id) for each in loaded) or 'nothing'} of {image.reference}, expected {image.id}",
            hint=f"what it stores is not what it was given: see its log, or use another engine; {_FIX}",
        )

    def _docker_build(
        self,
        files: Mapping[str, bytes | Path],
        name: str,
        log: Path,
        sink: Sink,
        *,
        tag: str | None,
        args: Mapping[str, str],
        fresh: bool = False,
    ) -> str:
        """Run the classic builder with the network off; returns the image's id."""
        identifier: str | None = None
        with (
            step(sink, "build", name),
            _engine_errors(),
            _context(files) as context,
            BuildLog(log, name, sink) as out,
            contextlib.ExitStack() as limits,
        ):
            if wanted := self._limits():  # docker-py has no argument for limits; requests adds these to every query
                limits.callback(setattr, self._client.api, "params", {})
                self._client.api.params = {
                    "ulimits": json.dumps([f"{name}={most}:{most}" for name, most in wanted.items()])
                }
            stream = self._client.api.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                nocache=fresh,
                rm=True,
                forcerm=True,
                network_mode="NetworkDisabled" if self._podman else "none",
                buildargs=dict(args),
                decode=True,
            )
            for message in stream:
                out.write(message.get("stream", ""))
                if "error" in message:
                    raise BuildError(
                        f"building {name} failed: {message['error']}\n{out.tail()}",
                        hint=_space_hint(message["error"]) or f"the whole log is in {log}",
                    )
                if "aux" in message:
                    identifier = message["aux"].get("ID", identifier)
                if self._podman and message.get("stream", "").startswith("Successfully built "):
                    break  # its answers do not always end
        if identifier is None:
            raise EngineError(f"the Docker engine stopped in the middle of building {name}", hint=f"{_FIX}; log: {log}")
        return identifier

    def _copy_out(self, image: str, name: str, out: Path) -> None:
        container = self._client.containers.create(image, command=["none"])
        try:
            chunks, _ = container.get_archive("/out")
            with _temporary_file() as file:
                for chunk in chunks:
                    with writing(Path(tempfile.gettempdir())):
                        file.write(chunk)
                file.seek(0)
                with tarfile.open(fileobj=file) as tar, writing_below(out):
                    unpack_below(tar, "out", out, f"what {name} left")
        except (tarfile.TarError, EOFError) as error:
            raise EngineError(f"the Docker engine stopped in the middle of handing over {image}", hint=_FIX) from error
        except SourceError as error:
            raise BuildError(error.message, hint=PLAIN_ALONE) from error
        finally:
            container.remove(force=True)


def base_layer(
    client: docker.DockerClient,
    reference: str,
    store: Store,
    sink: Sink,
    *,
    offline: bool = False,
    pull: bool = True,
) -> Layer:
    """The file system of an image, pulled by digest where the engine lacks it, as one deterministic layer.

    Raises `EngineError` where it cannot be had, `OfflineError` where it would have to be pulled when `offline`, and
    `SourceError` where it may not be pulled.
    """
    with step(sink, "base.pull", reference), _engine_errors():
        try:
            image = client.images.get(reference)
        except ImageNotFound as error:
            if offline:
                raise OfflineError(
                    f"offline, and the container engine does not hold the image {reference}",
                    hint="pull it once without MELTREPRO_OFFLINE, or load it into the engine",
                ) from error
            if not pull:
                raise SourceError(
                    f"the container engine does not hold the image {reference}, and only the record names it",
                    hint=f"if you trust where it comes from: MELTREPRO_BASE_IMAGE={reference}",
                ) from error
            image = client.images.pull(reference)
        container = client.containers.create(image, command=["none"])
        try:
            with store.scratch() as scratch:
                with writing_below(scratch):
                    file = (scratch / "root.tar").open("wb")
                with file:
                    for chunk in cast("Iterable[bytes]", container.export()):
                        with writing_below(scratch):
                            file.write(chunk)
                with tarfile.open(scratch / "root.tar") as root:
                    return root_layer(root, scratch, store)
        finally:
            container.remove(force=True)


def runtime_image(bundle: Artifact) -> Image:
    """The image that a bundle runs in. Its only layer is the bundle's own tar, so nothing else can be inside."""
    return Image(
        "meltrepro/runtime",
        [Layer(bundle.file, bundle.digest)],
        labels={"org.opencontainers.image.title": bundle.id, "io.meltrepro.bundle": bundle.digest},
        architecture=_ARCHITECTURES[bundle.platform],
    )


def _bind(inside: str, outside: Path, *, read_only: bool) -> Mount:
    mount = Mount(inside, str(outside.absolute()), type="bind", read_only=read_only)
    mount["BindOptions"] = {"NonRecursive": True}  # older engines would leave what is mounted below it writable
    return mount


def _finished(container: Any, timeout_s: float | None) -> int | None:
    """Start a container and wait for its status; none where it runs on after that time, if any is given."""
    # Its end is seen as the end of its output: podman, asked for the status, looks all the time, and takes a core for that.
    output = threading.Thread(target=_drain, args=[container.attach(stream=True)], daemon=True)
    container.start()
    output.start()
    output.join(timeout_s)
    if output.is_alive():
        return None
    try:
        return int(container.wait(timeout=timeout_s)["StatusCode"])
    except (requests.ReadTimeout, requests.ConnectionError) as error:  # a program may close its output and go on
        if "timed out" not in str(error).lower():
            raise
        return None


def _drain(output: Iterable[bytes]) -> None:
    """Read what a container writes, which the engine keeps, until it has ended; errors are those of who waits."""
    with contextlib.suppress(OSError, DockerException, urllib3.exceptions.HTTPError):
        for _ in output:
            pass


def _save(container: Any, path: Path | None, *, stdout: bool, stderr: bool) -> None:
    if path is not None and untrusted.odd(path) is None:  # a program that could write there may have left a link
        write_bytes(path, container.logs(stdout=stdout, stderr=stderr))


@contextlib.contextmanager
def _temporary_file() -> Iterator[BinaryIO]:
    """A file without a name in the folder for temporary files."""
    with contextlib.ExitStack() as stack:
        with writing(Path(tempfile.gettempdir())):
            file = stack.enter_context(tempfile.TemporaryFile())
        yield cast("BinaryIO", file)


@contextlib.contextmanager
def _context(files: Mapping[str, bytes | Path]) -> Iterator[BinaryIO]:
    """A build context: the files in order, with times and owners fixed, so that the builder's cache can hit."""
    with _temporary_file() as file:
        with (
            writing(Path(tempfile.gettempdir())),
            tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            for name, content in sorted(files.items()):
                entry = tarfile.TarInfo(name)
                entry.mtime, entry.mode = EPOCH, 0o644
                if isinstance(content, bytes):
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
                else:
                    entry.size = content.stat().st_size
                    with content.open("rb") as raw:
                        tar.addfile(entry, raw)
        file.seek(0)
        yield file


@contextlib.contextmanager
def _engine_errors() -> Iterator[None]:
    """Turn what docker-py raises when the engine is gone or refuses into `EngineError`."""
    try:
        yield
    except APIError as error:
        said = str(error.explanation or error)
        raise EngineError(f"the Docker engine refused: {said}", hint=_space_hint(said) or _FIX) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError) as error:
        # Of a stream that breaks off, docker-py lets urllib3's own errors through.
        raise EngineError(f"the Docker engine went away: {_short(error)}", hint=_FIX) from error
    except DockerException as error:
        raise EngineError(f"the Docker engine does not answer: {_short(error)}", hint=_FIX) from error


def _space_hint(said: str) -> str | None:
    """What to do where the engine's disk is full."""
    if "no space left on device" not in said.lower():
        return None
    return (
        "free some space where Docker keeps its data (docker info names its root dir), e.g. with: docker system prune"
    )


def _short(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error))[:300]
