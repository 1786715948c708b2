"""A target behind a link: what all such devices have in common. What is particular to a kind comes from its `Platform`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from meltrepro.build.model import MODEL, Artifact, Input
from meltrepro.errors import TargetError, TargetLost
from meltrepro.interrupts import held
from meltrepro.record import trial as record
from meltrepro.targets.base import (
    AGENT,
    LIBRARIES,
    RUNNER,
    SAMPLER,
    Addressed,
    DeviceFacts,
    DeviceState,
    Progress,
    Source,
    TrialJob,
    TrialResult,
    TriedSetting,
    silent,
    writing,
)
from meltrepro.targets.remote import affinity
from meltrepro.targets.remote import procfs as linux
from meltrepro.targets.remote.containers import Containers
from meltrepro.targets.remote.controls import Control, Controls
from meltrepro.targets.remote.deploy import DeviceCache, digest_of, members
from meltrepro.targets.remote.jobs import Ended, Job, Jobs, JobVanished
from meltrepro.targets.remote.link import retried
from meltrepro.targets.remote.shell import Running, Shell
from meltrepro.targets.remote.snapshot import snapshot

_MEMORY = "meltrepro-settings.json"
"""How settings were, beside the root: there is one for a device, whichever roots it has."""
_LEASE = "meltrepro-lease"
"""Who has taken the device, beside the root too."""
_MARK = 'mkdir -p "${1%/*}" && printf "%s\\n" "$2" > "$1.part" && mv "$1.part" "$1"'
_LONGEST_SAMPLING_S = 7 * 24 * 3600.0
_CLOCK_S = 5.0
_CLOCK_BYTES = 1000
_FED = """
for moment in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    for file in "$1"/*; do [ -f "$file" ] && [ "${file%.part}" = "$file" ] && exit; done
    sleep 0.2
done
"""
"""Waits until a feeder has written its first numbers; a sampler would take their absence for a fault."""
T = TypeVar("T")


class Platform(Protocol):
    """What one kind of device does in its own way. `tree` is a snapshot of its files (snapshot.py)."""

    @property
    def controls(self) -> Sequence[Control]:
        """The settings that can be changed and put back."""
        ...

    def facts(self, shell: Shell, tree: Path, root: str) -> DeviceFacts:
        """What the device is."""
        ...

    def state(self, shell: Shell, tree: Path, state: DeviceState) -> DeviceState:
        """A state as /proc and /sys show it, completed by what the device has other ways to tell."""
        ...

    def sources(self, shell: Shell, tree: Path, root: str) -> Sequence[Source]:
        """What a sampler can read."""
        ...

    def feeder(self, sources: Sequence[Source]) -> str | None:
        """A script that, while it runs, writes into the folder which is its argument what some of these sources read;
        `None` where none needs it."""
        ...


@dataclass(frozen=True)
class Requested:
    """How a device is to be while trials run."""

    settings: Mapping[str, str] = field(default_factory=dict)
    """Values of the platform's controls, in the order in which they are set."""
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What is done before each trial and cannot be put back, by what records call it."""
    cores: str | None = None
    """CPUs that the runner may use, as Linux lists them."""
    container: bool | str = False
    """Whether runners run in a container; a text names an image that the device has."""


class RemoteTarget:
    """Runs trials on a device behind a link, in a folder `root` there."""

    def __init__(
        self,
        shell: Shell,
        platform: Platform,
        root: str,
        *,
        reconnect_s: float = 60.0,
        requested: Requested = Requested(),
        wireless: Callable[[], bool] = lambda: False,
    ) -> None:
        """`reconnect_s` is how long a device that went away is waited for, in the middle of a trial too.

        `wireless` tells whether some of the device's own settings could cut it off now.
        """
        self._shell = shell
        self._platform = platform
        self._root = root
        self._reconnect_s = reconnect_s
        self._requested = requested
        self._controls = Controls(
            shell, platform.controls, f"{PurePosixPath(root).parent}/{_MEMORY}", wireless=wireless
        )
        self._cache = DeviceCache(shell, root)
        self._jobs = Jobs(shell, root)
        self._containers: Containers | None = None
        if requested.container is not False:
            image = requested.container if isinstance(requested.container, str) else None
            self._containers = Containers(shell, root, image, requested.cores)
        self._agent: str | None = None
        self._clock: Running | None = None
        self._clock_guard = threading.Lock()
        self._feeder: str | None = None

    def identify(self) -> DeviceFacts:
        with snapshot(self._shell) as tree:
            facts = self._platform.facts(self._shell, tree, self._root)
        if self._containers is None:
            return facts
        return replace(facts, facts={**facts.facts, "sandbox": "container"})

    def state(self) -> DeviceState:
        """How the device is now; raises `TargetLost`, and `TargetError` before anything was deployed."""
        return self._retried(self._state)

    def _state(self) -> DeviceState:
        monotonic_ns, _, wall_ns = self._clocks()
        with snapshot(self._shell) as tree:
            state = linux.state(tree, wall_ns=wall_ns, monotonic_ns=monotonic_ns)
            return self._platform.state(self._shell, tree, state)

    def clock_ns(self) -> int:
        """CLOCK_MONOTONIC of the device, asked of a program that waits there; raises as `state` does."""
        return self._retried(self._clocks)[0]

    def deploy(
        self,
        bundle: Artifact,
        model: Artifact,
        progress: Progress = silent,
        *,
        program: str = RUNNER,
        inputs: Sequence[Input] = (),
    ) -> None:
        programs = [bundle.path / member for member in dict.fromkeys((AGENT, RUNNER, SAMPLER, program))]
        wanted = {digest_of(local): local for local in programs if local.exists()}
        folders = {model.digest: members(model.path)} if model.is_folder else {}
        if (bundle.path / LIBRARIES).is_dir():
            folders[bundle.digest] = members(bundle.path / LIBRARIES)
        wanted |= {digest_of(path): path for files in folders.values() for path in files.values()}
        wanted |= {} if model.is_folder else {model.digest: model.path}
        wanted |= {each.digest: each.path for each in inputs}
        present = self._retried(partial(self._cache.present, list(wanted)))
        if programs[0].exists() and digest_of(programs[0]) not in present:
            self._cache.agent = None  # it is about to be sent, and can store nothing meanwhile
        for digest, local in wanted.items():
            if digest not in present:
                self._retried(partial(self._cache.deploy, local, digest, progress))
            if local == programs[0]:
                self._agent = self._cache.agent = self._cache.path(digest)
        for digest, files in folders.items():
            parts = {name: digest_of(path) for name, path in files.items()}
            self._retried(partial(self._cache.make_folder, digest, parts))
        if self._containers is not None:
            self._retried(partial(self._containers.load, bundle, self._cache, progress))

    def adjust(self) -> Mapping[str, str]:
        requested = self._requested
        self._retried(partial(self._controls.adjust, requested.settings))
        for what, argv in requested.commands.items():
            reply = self._retried(partial(self._shell.run, argv))
            self._shell.expect(reply, f"do what is wanted: {what}")
        done = dict.fromkeys(requested.commands, "done")
        return {**requested.settings, **done, **({"cores": requested.cores} if requested.cores else {})}

    def restore(self) -> Mapping[str, str]:
        return self._retried(self._controls.restore)

    def try_out(self) -> Sequence[TriedSetting]:
        """Set each control to another value and back, and see whether a program can be kept to one CPU."""
        tried = self._retried(self._controls.try_out)
        return (*tried, self._retried(partial(affinity.try_out, self._shell)))

    def address(self) -> str:
        link = self._shell.link
        if not isinstance(link, Addressed):
            raise TargetError(f"{link.name}: its link says of no address", hint="name it: offload.address")
        return link.address()

    def run_trial(self, job: TrialJob) -> TrialResult:
        """Run one trial detached on the device, waiting for it across lost links.

        Where the link is gone for good the trial goes on until its deadline; `stop_strays` ends it earlier.
        """
        program, name = self._program(job.bundle, job.program), PurePosixPath(job.program).name
        model = (self._cache.folder if job.model.is_folder else self._cache.path)(job.model.digest)
        files = {MODEL: model, **{name: self._cache.path(each.digest) for name, each in job.inputs.items()}}
        started = time.monotonic()
        libraries = {LIBRARIES: self._cache.folder(job.bundle.digest)} if (job.bundle.path / LIBRARIES).is_dir() else {}
        with self._job("trial", job.bundle, {name: program, **libraries}) as there:
            text = job.written(lambda file: files[file])
            with writing(job.folder):
                (job.folder / record.REQUEST).write_text(text, encoding="utf-8")
            self._retried(partial(there.write, record.REQUEST, text.encode()))
            argv = job.argv(f"{there.path}/{name}", lambda file: files.get(file, f"{there.path}/{file}"))
            boot_id = self._retried(self._boot_id)
            if self._containers is not None:
                ended = self._in_container(self._containers, job, there, boot_id, argv[1:])
            else:
                self._retried(partial(there.start, [*self._confining(), *argv], job.timeout_s))
                if self._requested.cores is not None:
                    self._retried(partial(affinity.require, self._shell, there.path, self._requested.cores, name))
                ended = self._until_ended(there, boot_id)
            for file in (record.EVENTS, record.STDOUT, record.STDERR):
                self._retried(partial(there.fetch, file, job.folder / file))
        return TrialResult(ended.exit, time.monotonic() - started, ended.timed_out, ended.out_of_memory)

    def _in_container(
        self, containers: Containers, job: TrialJob, there: Job, boot_id: str, arguments: Sequence[str]
    ) -> Ended:
        """Run the program in a container, of which nothing is left whatever happens, as far as the device can be reached."""
        command = partial(containers.command, job.bundle, job.program, there.path, arguments, network=job.network)
        argv = self._retried(command)
        try:
            self._retried(partial(there.start, argv, job.timeout_s))
            return self._until_ended(there, boot_id)
        finally:
            with held(), contextlib.suppress(TargetError):  # else the next campaign's `stop_strays` does it
                containers.clear()

    def sources(self) -> Sequence[Source]:
        with snapshot(self._shell) as tree:
            found = tuple(self._platform.sources(self._shell, tree, self._root))
        self._feeder = self._platform.feeder(found)
        return found

    @contextlib.contextmanager
    def sampling(self, bundle: Artifact, plan: bytes, folder: Path) -> Iterator[None]:
        """Run the sampler detached on the device while the block runs, then fetch what it wrote."""
        sampler = self._program(bundle, SAMPLER)
        with writing(folder):
            (folder / record.SENSOR_PLAN).write_bytes(plan)
        with self._fed(bundle), self._job("sampler", bundle, {"melt-sampler": sampler}) as there:
            self._retried(partial(there.write, record.SENSOR_PLAN, plan))
            files = (f"{there.path}/{name}" for name in (record.SENSOR_PLAN, record.SAMPLES))
            argv = [f"{there.path}/melt-sampler", *files]
            self._retried(partial(there.start, argv, _LONGEST_SAMPLING_S))
            yield
            self._retried(there.stop)
            self._retried(partial(there.fetch, record.SAMPLES, folder / record.SAMPLES))
            self._retried(partial(there.fetch, record.STDERR, folder / record.SAMPLER_LOG))

    @contextlib.contextmanager
    def _fed(self, bundle: Artifact) -> Iterator[None]:
        """Keep the platform's feeder running on the device, where sources need one."""
        if self._feeder is None:
            yield
            return
        folder = f"{self._root}/feed"
        with self._job("feeder", bundle, {}) as there:
            self._retried(partial(there.write, "feed.sh", self._feeder.encode()))
            shell = self._shell.expect(self._shell.script("command -v sh"), "find its shell").text
            self._retried(partial(there.start, [shell, f"{there.path}/feed.sh", folder], _LONGEST_SAMPLING_S))
            try:
                self._retried(partial(self._shell.script, _FED, folder))
                yield
                if not self._retried(there.stop):
                    raise TargetLost(f"{self._shell.link.name}: what feeds the sampler had ended before it")
            finally:
                with (
                    held(),
                    contextlib.suppress(TargetError),
                ):  # numbers of an earlier trial must not be taken for new ones
                    self._shell.run(["rm", "-rf", folder])

    def mark(self, text: str) -> None:
        """Leave the mark of who has the device beside what is kept of its settings, whole or not at all."""
        reply = self._retried(lambda: self._shell.script(_MARK, f"{PurePosixPath(self._root).parent}/{_LEASE}", text))
        self._shell.expect(reply, "marking the device as taken")

    def marked(self) -> str:
        path = f"{PurePosixPath(self._root).parent}/{_LEASE}"
        return self._retried(lambda: self._shell.run(["cat", path])).text.strip()

    def clean(self) -> int:
        """Remove everything that was deployed; returns how many bytes that freed. Raises as `stop_strays` does."""
        self.stop_strays()
        return self._retried(self._cache.clean)

    def stop_strays(self) -> int:
        """Stop every job, and remove those of a campaign that was killed."""
        left = self._retried(self._jobs.stop_all)
        if self._containers is not None:
            self._retried(self._containers.clear)
        return left

    @contextlib.contextmanager
    def _job(self, kind: str, bundle: Artifact, programs: dict[str, str]) -> Iterator[Job]:
        """A job's folder on the device, stopped and removed at the end as far as the device can be reached."""
        agent = self._program(bundle, AGENT)
        there = self._jobs.new(kind)
        try:
            self._retried(partial(there.create, {"agent": agent, **programs}))
            yield there
        except BaseException:
            with contextlib.suppress(TargetError):
                self._jobs.end(there)
            raise
        with contextlib.suppress(TargetError):
            self._retried(partial(self._jobs.end, there))

    def _until_ended(self, there: Job, boot_id: str) -> Ended:
        try:
            return self._retried(there.wait)
        except JobVanished as error:
            if boot_id and self._retried(self._boot_id) != boot_id:
                raise TargetLost(
                    f"{self._shell.link.name}: the device was rebooted in the middle of a trial"
                ) from error
            raise

    def _confining(self) -> Sequence[str]:
        cores = self._requested.cores
        return [] if cores is None else self._retried(partial(affinity.confining, self._shell, cores))

    def _boot_id(self) -> str:
        return self._shell.run(["cat", "/proc/sys/kernel/random/boot_id"]).text

    def _program(self, bundle: Artifact, member: str) -> str:
        """Where a program of a bundle is on the device."""
        return self._cache.path(digest_of(bundle.path / member))

    def _clocks(self) -> tuple[int, int, int]:
        """CLOCK_MONOTONIC, CLOCK_BOOTTIME and Unix time of the device; asked by one thread at a time, as answers have no names."""
        with self._clock_guard:
            return self._ask_clocks()

    def _ask_clocks(self) -> tuple[int, int, int]:
        if self._agent is None:
            raise TargetError(f"{self._shell.link.name}: nothing was deployed yet, so that its clocks cannot be read")
        if self._clock is None:
            self._clock = self._shell.open([self._agent, "clock"])
        try:
            self._clock.send(b"?")
            answer = b""
            while not answer.endswith(b"\n") and len(answer) < _CLOCK_BYTES:
                answer += self._clock.receive(_CLOCK_S)
            monotonic_ns, boot_ns, wall_ns = map(int, answer.split())
        except TargetError:
            self._forget_clock()
            raise
        except ValueError as error:
            self._forget_clock()
            raise TargetError(f"{self._shell.link.name}: a garbled time: {answer[:80]!r}") from error
        return monotonic_ns, boot_ns, wall_ns

    def _forget_clock(self) -> None:
        clock, self._clock = self._clock, None
        if clock is not None:
            clock.close()

    def _retried(self, action: Callable[[], T]) -> T:
        return retried(action, self._reconnect_s, (JobVanished,))
