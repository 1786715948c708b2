"""Target `host`: the machine that the toolkit runs on."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from meltrepro.build.model import MODEL, Artifact, Engine, Execution, Exit, Input
from meltrepro.errors import EngineError, StoreError, TargetError
from meltrepro.interrupts import held
from meltrepro.plan.model import DeviceFacts
from meltrepro.settings import Settings
from meltrepro.spec import record
from meltrepro.spec.targets import HostTarget as HostEntry
from meltrepro.targets import linux, process
from meltrepro.targets.base import RUNNER, SAMPLER, DeviceState, Progress, Source, TrialJob, TrialResult, Tried, silent
from meltrepro.targets.lock import lock_path
from meltrepro.targets.sources import cgroup_sources, linux_sources

_MODEL, _RECORD, _INPUTS = "/model", "/record", "/inputs"
"""Where model, record folder and what else a program reads are inside a container."""


def open_target(entry: HostEntry, settings: Settings, engine: Engine | None) -> HostTarget:
    """The target as campaigns use it; its lock file names it to the processes that it starts."""
    return HostTarget(entry, disk=settings.cache, owner=str(lock_path(settings.run, host_id())), engine=engine)


def host_id(root: Path = Path("/")) -> str:
    """An id of this machine that stays when it reboots. The raw machine id should not leave it, a digest may."""
    machine = linux.read(root / "etc/machine-id") or platform.node()
    return "host-" + hashlib.sha256(f"meltrepro {machine}".encode()).hexdigest()[:12]


class HostTarget:
    """Runs trials on this machine, in a container of the bundle's runtime image or as plain processes."""

    def __init__(
        self, entry: HostEntry, *, disk: Path, owner: str, engine: Engine | None = None, root: Path = Path("/")
    ) -> None:
        """`disk` is a folder on the disk that models are kept on, `owner` marks everything that trials start.

        Without an engine, or with engine `process`, trials run as plain processes whatever the entry says.
        """
        self._disk = disk
        self._owner = owner
        self._root = root
        self._engine = engine if entry.sandbox == "container" and engine and engine.name != "process" else None

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
            model=processor.model,
            arch=platform.machine(),
            features=processor.features,
            cores=cores if quota is None else max(1, min(cores, int(quota))),
            memory_bytes=min(total, linux.memory_limit(self._root) or total),
            disk_free_bytes=self._disk_free(),
            facts={**linux.facts(self._root), "sandbox": "container" if self._engine else "bare"},
        )

    def state(self) -> DeviceState:
        """How this machine is now."""
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

    def adjust(self) -> Mapping[str, str]:
        """Nothing: this machine is its users' own, who set it as they like and ask for it by gates."""
        return {}

    def restore(self) -> Mapping[str, str]:
        """Nothing."""
        return {}

    def try_out(self) -> Sequence[Tried]:
        """Nothing."""
        return ()

    def run_trial(self, job: TrialJob) -> TrialResult:
        """Run one trial; raises `EngineError` where the container engine goes away in the middle."""
        seen = _MODEL if self._engine else str(job.model.path.absolute())
        try:
            (job.folder / record.REQUEST).write_text(job.written(seen), encoding="utf-8")
            started = time.monotonic()
            ended = self._in_container(self._engine, job) if self._engine else self._bare(job)
        except OSError as error:
            raise StoreError(f"cannot write the record {job.folder}: {error.strerror or error}") from error
        return TrialResult(ended.status, time.monotonic() - started, ended.timed_out, ended.out_of_memory)

    def sources(self) -> Sequence[Source]:
        """What the kernel of this machine shows; with containers, what it counts for that of the runner too."""
        # Looking into a container's file system takes more rights than its user has.
        contained = cgroup_sources(self._root) if self._engine and os.geteuid() == 0 else ()
        return (*linux_sources(self._root), *contained)

    @contextlib.contextmanager
    def sampling(self, bundle: Artifact, plan: bytes, folder: Path) -> Iterator[None]:
        """Run the sampler as a plain process, also beside a container: it needs to see the machine."""
        folder = folder.absolute()
        argv = [str(bundle.path.absolute() / SAMPLER), str(folder / record.SAMPLING), str(folder / record.SAMPLES)]
        with contextlib.ExitStack() as stack:
            try:
                (folder / record.SAMPLING).write_bytes(plan)
                log = folder / record.SAMPLER_LOG
                stack.enter_context(process.beside(argv, folder=folder, log=log, owner=self._sampler_owner))
            except OSError as error:
                raise StoreError(f"cannot write the record {folder}: {error.strerror or error}") from error
            yield

    @property
    def _sampler_owner(self) -> str:
        """Not that of the runner, after whose end everything of its owner is stopped."""
        return f"{self._owner}#sampler"

    def stop_strays(self) -> int:
        """Stop runners that a killed campaign left behind; raises `TargetError` where one cannot be stopped."""
        left = process.stop_strays(self._owner) + process.stop_strays(self._sampler_owner)
        return left + (self._engine.stop_strays(self._owner) if self._engine else 0)

    def _in_container(self, engine: Engine, job: TrialJob) -> Exit:
        def seen(name: str) -> str:
            return _MODEL if name == MODEL else f"{_INPUTS if name in job.inputs else _RECORD}/{name}"

        execution = Execution(
            argv=job.argv(f"/bundle/{job.program}", seen),
            bundle=job.bundle,
            readonly={_MODEL: job.model.path, **{seen(name): each.path for name, each in job.inputs.items()}},
            writable={_RECORD: job.folder},
            timeout_s=job.timeout_s,
            stdout=job.folder / record.STDOUT,
            stderr=job.folder / record.STDERR,
            owner=self._owner,
        )
        try:
            return engine.execute(execution)
        except BaseException:
            # An interrupt can hit between the engine making a container and telling us of it. Where the engine
            # itself is gone nothing can be stopped now; the next campaign begins with `stop_strays`.
            with held(), contextlib.suppress(EngineError):
                engine.stop_strays(self._owner)
            raise

    def _bare(self, job: TrialJob) -> Exit:
        folder = job.folder.absolute()
        files = {MODEL: job.model.path.absolute(), **{name: each.path.absolute() for name, each in job.inputs.items()}}
        return process.run(
            job.argv(str(job.bundle.path.absolute() / job.program), lambda name: str(files.get(name, folder / name))),
            folder=folder,
            stdout=folder / record.STDOUT,
            stderr=folder / record.STDERR,
            timeout_s=job.timeout_s,
            owner=self._owner,
        )

    def _disk_free(self) -> int:
        folder = next(folder for folder in (self._disk, *self._disk.parents) if folder.exists())
        return shutil.disk_usage(folder).free
