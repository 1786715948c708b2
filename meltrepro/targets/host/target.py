"""Target `host`: the machine that the toolkit runs on."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from meltrepro import processes
from meltrepro.atomic import write_bytes
from meltrepro.build.model import MODEL, PROCESSES, Artifact, Engine, Execution, Exit, Input
from meltrepro.errors import EngineError, TargetError
from meltrepro.interrupts import held
from meltrepro.record import trial as record
from meltrepro.settings import Settings
from meltrepro.targets.base import (
    RUNNER,
    SAMPLER,
    Attached,
    DeviceFacts,
    DeviceState,
    Engines,
    Progress,
    Source,
    TrialJob,
    TrialResult,
    device_id,
    silent,
    writing,
)
from meltrepro.targets.device_lock import lock_path
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.remote import procfs as linux
from meltrepro.targets.remote.sensors import linux_sources

_MODEL, _RECORD, _INPUTS, _SYS = "/model", "/record", "/inputs", "/host/sys"
"""Where model, record folder, what else a program reads, and the sensors of this machine are inside a sandbox."""
_SANDBOXES = {"docker": "container", "process": "bubblewrap"}
"""What facts call the sandbox of an engine."""
_SPARED_BYTES = 1 << 30
"""Memory of this machine, at most a tenth of it, that no container may take."""


def open_target(entry: HostOptions, settings: Settings, engines: Engines | None) -> HostTarget:
    """The target as campaigns use it; its lock file names it to the processes that it starts."""
    return HostTarget(entry, disk=settings.cache, owner=str(lock_path(host_id())), engines=engines)


def attached(settings: Settings) -> list[Attached]:
    return [Attached("host", "", "device", open_target(HostOptions(), settings, None).identify().described, None)]


def host_id(root: Path = Path("/")) -> str:
    """An id of this machine that stays when it reboots."""
    machine = linux.read(root / "etc/machine-id") or platform.node()
    return device_id("host", machine)


class HostTarget:
    """Runs trials on this machine: in a sandbox of the engine, or as plain processes where its entry says `bare`."""

    def __init__(
        self, entry: HostOptions, *, disk: Path, owner: str, engines: Engines | None = None, root: Path = Path("/")
    ) -> None:
        """`disk` is a folder on the disk that models are kept on, `owner` marks everything that trials start.

        Without engines it can be looked at, but runs nothing unless its entry says `bare`.
        """
        self._disk = disk
        self._owner = owner
        self._root = root
        self._bare = entry.sandbox == "bare"
        self._engines = None if self._bare else engines
        self._watcher = ""
        """The sensor logger that runs beside the trial, as its engine calls it."""

    def identify(self) -> DeviceFacts:
        """What this machine is; raises `TargetError` where it is not a Linux machine."""
        total = linux.memory(self._root).get("MemTotal")
        if total is None:
            raise TargetError(
                "target host: cannot read /proc/meminfo", hint="the host can only be measured where it runs Linux"
            )
        processor = linux.cpu(self._root)
        quota = linux.cpu_quota(self._root)
        cores = len(os.sched_getaffinity(0))
        return DeviceFacts(
            id=host_id(self._root),
            kind="host",
            here=True,
            model=processor.model,
            arch=platform.machine(),
            features=processor.features,
            cores=cores if quota is None else max(1, min(cores, int(quota))),
            memory_bytes=self._memory(total),
            disk_free_bytes=self._disk_free(),
            facts={**linux.facts(self._root), **self._confinement(self._memory(total))},
        )

    def _memory(self, total: int) -> int:
        return min(total, linux.memory_limit(self._root) or total)

    def _confinement(self, memory_bytes: int) -> Mapping[str, str]:
        """What trials run in, and within which limits, as far as an engine is there to say."""
        sandbox = (
            "bare" if self._bare else _SANDBOXES.get(self._engines.engine_name if self._engines else "", "container")
        )
        if self._engines is None or sandbox != "container":
            return {"sandbox": sandbox}
        limits = {"sandbox_memory_bytes": str(_allowed(memory_bytes)), "sandbox_processes": str(PROCESSES)}
        return {"sandbox": sandbox, **limits}

    def state(self) -> DeviceState:
        return linux.state(self._root, wall_ns=time.time_ns(), monotonic_ns=time.monotonic_ns())

    def clock_ns(self) -> int:
        """The clock that runners on this machine use, also in a container."""
        return time.monotonic_ns()

    def deploy(
        self,
        bundle: Artifact,
        model: Artifact,
        progress: Progress = silent,
        *,
        program: str = RUNNER,
        inputs: Sequence[Input] = (),
    ) -> None:
        """Nothing: everything is where it was built."""

    def run_trial(self, job: TrialJob) -> TrialResult:
        """Run one trial; raises `EngineError` where the container engine goes away in the middle."""
        seen = _on_host(job) if self._bare else _in_container(job)
        with writing(job.folder):
            job.folder.stat()
            write_bytes(job.folder / record.REQUEST, job.written(seen).encode(), durable=False)
            started = time.monotonic()
            ended = self._plainly(job, seen) if self._bare else self._in_sandbox(self._required(), job, seen)
        return TrialResult(ended.status, time.monotonic() - started, ended.timed_out, ended.out_of_memory)

    def sources(self) -> Sequence[Source]:
        return linux_sources(self._root)

    @contextlib.contextmanager
    def sampling(self, bundle: Artifact, plan: bytes, folder: Path) -> Iterator[None]:
        """Run the sampler in the same kind of sandbox as the runner, which it sees beside it."""
        folder = folder.absolute()
        place = folder if self._bare else Path(_RECORD)
        files = [str(place / record.SENSOR_PLAN), str(place / record.SAMPLES)]
        log = folder / record.SAMPLER_LOG
        write_bytes(folder / record.SENSOR_PLAN, plan if self._bare else _as_seen(plan), durable=False)
        if self._bare:
            program = str(bundle.path.absolute() / SAMPLER)
            with processes.beside([program, *files], folder=folder, log=log, owner=self._sampler_owner):
                yield
            return
        execution = Execution(
            argv=[f"/bundle/{SAMPLER}", *files],
            bundle=bundle,
            readonly={_SYS: self._root / "sys"},
            writable={_RECORD: folder},
            stdout=log,
            stderr=log,
            owner=self._sampler_owner,
        )
        with self._stopped(self._sampler_owner), self._required().beside(execution) as self._watcher:
            try:
                yield
            finally:
                self._watcher = ""

    @property
    def _sampler_owner(self) -> str:
        """Not that of the runner, after whose end everything of its owner is stopped."""
        return f"{self._owner}#sampler"

    def stop_strays(self) -> int:
        """Stop runners that a killed campaign left behind; raises `TargetError` where one cannot be stopped."""
        owners = (self._owner, self._sampler_owner)
        plain = sum(map(processes.stop_strays, owners))
        return plain + sum(map(self._required().stop_strays, owners) if self._engines else ())

    def _required(self) -> Engine:
        if self._engines is None:
            raise TargetError(
                "target host: its trials run in a sandbox, and there is no engine", hint="name one with --engine"
            )
        return self._engines.engine()

    def _in_sandbox(self, engine: Engine, job: TrialJob, seen: Callable[[str], str]) -> Exit:
        execution = Execution(
            argv=job.argv(f"/bundle/{job.program}", seen),
            bundle=job.bundle,
            readonly={_MODEL: job.model.path, **{seen(name): each.path for name, each in job.inputs.items()}},
            writable={_RECORD: job.folder},
            timeout_s=job.timeout_s,
            stdout=job.folder / record.STDOUT,
            stderr=job.folder / record.STDERR,
            owner=self._owner,
            memory_bytes=_allowed(self._memory(linux.memory(self._root)["MemTotal"])),
            network=job.network,
            watcher=self._watcher,
        )
        with self._stopped(self._owner):
            return engine.execute(execution)

    @contextlib.contextmanager
    def _stopped(self, owner: str) -> Iterator[None]:
        """See to it that nothing of an owner is left where the block fails."""
        try:
            yield
        except BaseException:
            # An interrupt can hit between the engine making a container and telling us of it. Where the engine
            # itself is gone nothing can be stopped now; the next campaign begins with `stop_strays`.
            with held(), contextlib.suppress(EngineError):
                self._required().stop_strays(owner)
            raise

    def _plainly(self, job: TrialJob, seen: Callable[[str], str]) -> Exit:
        folder = job.folder.absolute()
        return processes.run(
            job.argv(str(job.bundle.path.absolute() / job.program), seen),
            folder=folder,
            stdout=folder / record.STDOUT,
            stderr=folder / record.STDERR,
            timeout_s=job.timeout_s,
            owner=self._owner,
        )

    def _disk_free(self) -> int:
        folder = next(folder for folder in (self._disk, *self._disk.parents) if folder.exists())
        return shutil.disk_usage(folder).free


def _allowed(memory_bytes: int) -> int:
    """What a container may use of so much memory."""
    return memory_bytes - min(_SPARED_BYTES, memory_bytes // 10)


def _as_seen(plan: bytes) -> bytes:
    """A sampler's plan with the paths that it has in a sandbox, where the sensors of this machine lie aside."""
    document = json.loads(plan)
    for channel in document["channels"]:
        if channel["path"].startswith("sys/"):
            channel["path"] = f"{_SYS[1:]}{channel['path'].removeprefix('sys')}"
    return json.dumps(document, indent=1).encode() + b"\n"


def _in_container(job: TrialJob) -> Callable[[str], str]:
    """Where a program in a trial's container sees a file."""
    return lambda name: _MODEL if name == MODEL else f"{_INPUTS if name in job.inputs else _RECORD}/{name}"


def _on_host(job: TrialJob) -> Callable[[str], str]:
    """Where a program without a container does."""
    folder = job.folder.absolute()
    files = {MODEL: job.model.path.absolute(), **{name: each.path.absolute() for name, each in job.inputs.items()}}
    return lambda name: str(files.get(name, folder / name))
