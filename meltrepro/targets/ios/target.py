"""iPhones: trials run in an app that somebody has installed and signed; everything else goes by services of iOS.

docs/devices/ios.md says which of it was tried on what.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from meltrepro.build.model import Artifact, Input
from meltrepro.errors import TargetError, TargetLost
from meltrepro.interrupts import held
from meltrepro.record import trial as record
from meltrepro.settings import Settings
from meltrepro.targets.base import (
    PACKAGE,
    RUNNER,
    DeviceFacts,
    DeviceState,
    Progress,
    Source,
    TrialJob,
    TrialResult,
    silent,
    writing,
)
from meltrepro.targets.ios import cache
from meltrepro.targets.ios import state as ios_state
from meltrepro.targets.ios.app_package import runner_package, runner_package_digest
from meltrepro.targets.ios.jobs import DEADLINE, JOB, Observed, PhoneJob, ended, is_done, old_jobs
from meltrepro.targets.ios.link import ProcessExit
from meltrepro.targets.ios.options import IosOptions
from meltrepro.targets.ios.phone import Phone
from meltrepro.targets.remote.deploy import digest_of
from meltrepro.targets.remote.link import retried

_SLICE_S = 5.0
"""In between, the phone is asked whether the app still runs."""
_LAST_WORD_S = 2.0
_GRACE_S = 5.0
"""The app gives up by itself at its deadline; this machine ends it so much later, whichever clock is right."""
_AWAKE_S = 3600.0
T = TypeVar("T")


def open_target(entry: IosOptions, settings: Settings) -> IosTarget:
    """The target as campaigns use it; raises `TargetError` where pymobiledevice3 is not installed."""
    from meltrepro.targets.ios.devices import open_phone

    return IosTarget(open_phone(entry.udid, settings, entry.lab), entry.app, entry.root, reconnect_s=entry.reconnect_s)


class IosTarget:
    """Runs trials in an app of one phone, in the folder `root` of the app's documents."""

    def __init__(self, phone: Phone, app: str, root: str = "meltrepro", *, reconnect_s: float = 60.0) -> None:
        """`reconnect_s` is how long a phone that went away is waited for, in the middle of a trial too."""
        self._phone = phone
        self._app = app
        self._root = root
        self._reconnect_s = reconnect_s
        self._plan: bytes | None = None
        self._programs: frozenset[str] = frozenset()
        self._held: set[str] = set()

    # -- what it is -------------------------------------------------------------------------------------------------

    def identify(self) -> DeviceFacts:
        phone = self._phone
        found = ios_state.facts(phone.values(), phone.hardware(), phone.memory_bytes(), phone.free_bytes(), phone.name)
        return replace(found, facts={**found.facts, "app": self._app})

    def state(self) -> DeviceState:
        return self._retried(self._state)

    def _state(self) -> DeviceState:
        battery = self._phone.battery()
        # Read one after the other, so that the two times are of one moment.
        monotonic_ns, values = self._phone.clock_ns(), self._phone.values()
        return ios_state.state(values, battery, monotonic_ns)

    def clock_ns(self) -> int:
        """The phone's uptime clock, which the runner app uses for its events; raises `TargetLost`."""
        return self._retried(self._phone.clock_ns)

    def sources(self) -> Sequence[Source]:
        """What the runner app samples of itself; the host samples nothing, which would load the phone."""
        return ios_state.SOURCES

    # -- trials -----------------------------------------------------------------------------------------------------

    def deploy(
        self,
        bundle: Artifact,
        model: Artifact,
        progress: Progress = silent,
        *,
        program: str = RUNNER,
        inputs: Sequence[Input] = (),
    ) -> None:
        """Bring the model among the app's documents, and the app to the phone where the bundle has one."""
        self._stay_awake()
        self._retried(partial(self._deploy_app, bundle))
        self._retried(partial(self._deploy_model, model, progress))

    def _deploy_app(self, bundle: Artifact) -> None:
        package, runner = bundle.path / PACKAGE, bundle.path / RUNNER
        installed = self._phone.apps().get(self._app)
        if package.is_file():
            digest = digest_of(package)
            if installed is None or not self._is_app(digest):
                installed = self._install(package, digest)
        elif runner.is_file() and ios_state.linux_programs(self._phone.values()):
            # A virtual phone, whose bundle is that of other devices with such a CPU: the runner is made a package here.
            digest = runner_package_digest(runner)
            if installed is None or not self._is_app(digest):
                with runner_package(runner, self._app) as package:
                    installed = self._install(package, digest)
        if installed is None:
            raise TargetError(
                f"{self._phone.name}: the app {self._app} is not installed",
                hint="build, sign and install it: docs/devices/ios.md",
            )
        names = (installed.get("CFBundleExecutable"), installed.get("CFBundleName"))
        self._programs = frozenset(name for name in names if isinstance(name, str) and name)

    def _install(self, package: Path, mark: str) -> Mapping[str, Any] | None:
        """Install a package and mark the app as made of it; returns what the phone then says of the app."""
        self._phone.install(package, digest_of(package))
        installed = self._phone.apps().get(self._app)
        if installed is not None:
            with self._phone.documents(self._app, self._root) as files:
                files.make_folder(".")
                files.write("app.json", json.dumps({"sha256": mark}).encode())
        return installed

    def _is_app(self, digest: str) -> bool:
        """Whether the app was installed from this package; the mark goes with the app's documents."""
        with self._phone.documents(self._app, self._root) as files:
            content = files.read("app.json", 1 << 16)
        with contextlib.suppress(ValueError, AttributeError):
            return bool(json.loads(content or b"").get("sha256") == digest)
        return False

    def _deploy_model(self, model: Artifact, progress: Progress) -> None:
        with self._phone.documents(self._app, self._root) as files:
            cache.deploy(files, model, progress)

    def run_trial(self, job: TrialJob) -> TrialResult:
        """Run one trial by one launch of the app, waiting for its end across lost links.

        Where the link is gone for good the app goes on until its own deadline; `stop_strays` ends it earlier.
        """
        if job.program != RUNNER:
            raise TargetError(f"{self._phone.name}: the app runs no other program than the runner, not {job.program}")
        text = job.written(lambda _: cache.from_job(job.model.digest))
        with writing(job.folder):
            (job.folder / record.REQUEST).write_text(text, encoding="utf-8")
        self._stay_awake()
        started = time.monotonic()
        since_wall_s = float(self._retried(self._phone.values).get("TimeIntervalSince1970", time.time()))
        since_ns = self.clock_ns()
        there = PhoneJob()
        self._held.add(there.path)
        try:
            self._retried(partial(self._create, there, text.encode()))
            end, timed_out = self._conduct(there, job.timeout_s)
            self._retried(partial(self._fetch, there, job.folder))
            how = ended(self._observed(there, job.folder, end, timed_out, since_wall_s))
            if how is None:
                rebooted = self.clock_ns() < since_ns
                why = "the phone was restarted" if rebooted else "it left neither a status nor a report"
                raise TargetLost(f"{self._phone.name}: the app vanished in the middle of a trial: {why}")
        finally:
            with held(), contextlib.suppress(TargetError):
                self._clean_up(there)
        duration_s = time.monotonic() - started
        return TrialResult(how.exit, duration_s, how.timed_out, how.out_of_memory)

    @contextlib.contextmanager
    def sampling(self, bundle: Artifact, plan: bytes, folder: Path) -> Iterator[None]:
        """Have the app sample itself while trials in the block run; its samples come with the trial's files."""
        with writing(folder):
            (folder / record.SENSOR_PLAN).write_bytes(plan)
        self._plan = plan
        try:
            yield
        finally:
            self._plan = None

    def stop_strays(self) -> int:
        """End the app if it runs, and remove the folders of trials that nobody here waits for."""
        return self._retried(self._stop_strays)

    def _stop_strays(self) -> int:
        pid = self._phone.pid(self._app)
        if pid:
            self._phone.kill(pid)
            self._phone.wait(pid, _LAST_WORD_S)
        if self._app in self._phone.apps():
            with self._phone.documents(self._app, self._root) as files:
                for job in old_jobs(files):
                    if job.path not in self._held:
                        job.remove(files)
        return int(bool(pid))

    def clean(self) -> int:
        """Remove every model that was deployed, and what trials have left; returns how many bytes that freed."""
        self.stop_strays()
        return self._retried(self._clean)

    def _clean(self) -> int:
        if self._app not in self._phone.apps():
            return 0
        with self._phone.documents(self._app, self._root) as files:
            return cache.clean(files)

    # -- parts of a trial -------------------------------------------------------------------------------------------

    def _create(self, there: PhoneJob, request: bytes) -> None:
        with self._phone.documents(self._app, self._root) as files:
            there.create(files, request, self._plan)

    def _conduct(self, there: PhoneJob, timeout_s: float) -> tuple[ProcessExit | None, bool]:
        """Launch the app and wait for its end; returns what the phone told of it, and whether it had to be ended."""
        self._retried(self._end_app)  # one that idles would keep its environment
        pid = self._retried(partial(self._launch, there, timeout_s))
        deadline = time.monotonic() + timeout_s + _GRACE_S
        while pid:
            slice_s = max(0.0, min(_SLICE_S, deadline - time.monotonic()))
            end = self._retried(partial(self._phone.wait, pid, slice_s))
            if end is not None:
                return end, False
            if time.monotonic() >= deadline:
                self._retried(self._end_app)
                return self._retried(partial(self._phone.wait, pid, _LAST_WORD_S)), True
            if self._retried(partial(self._phone.pid, self._app)) != pid:
                # Its end may have been told while this machine asked, or while the link was lost.
                return self._retried(partial(self._phone.wait, pid, _LAST_WORD_S)), False
        return None, False

    def _launch(self, there: PhoneJob, timeout_s: float) -> int:
        """Start the app, never twice: where an earlier call was lost on its way, look what became of it.

        Returns the process id, or 0 where the app has ended already.
        """
        with self._phone.documents(self._app, self._root) as files:
            if there.was_started(files):
                return self._phone.pid(self._app)
        environment = {JOB: f"{self._root}/{there.path}", DEADLINE: f"{timeout_s:.3f}"}
        return self._phone.launch(self._app, environment)

    def _end_app(self) -> None:
        pid = self._phone.pid(self._app)
        if pid:
            try:
                self._phone.kill(pid)
            except TargetLost:
                raise
            except TargetError:
                if self._phone.pid(self._app) == pid:  # it may have ended by itself
                    raise

    def _fetch(self, there: PhoneJob, folder: Path) -> None:
        with self._phone.documents(self._app, self._root) as files:
            for name in (record.EVENTS, record.STDOUT, record.STDERR, record.SAMPLES, record.SAMPLER_LOG):
                files.fetch(f"{there.path}/{name}", folder / name)

    def _observed(
        self, there: PhoneJob, folder: Path, end: ProcessExit | None, timed_out: bool, since_wall_s: float
    ) -> Observed:
        def status() -> Observed:
            with self._phone.documents(self._app, self._root) as files:
                events = folder / record.EVENTS
                done = events.exists() and is_done(events.read_bytes())
                return Observed(end, there.status(files), done, None, timed_out)

        seen = self._retried(status)
        killed = end is not None and end.signal is not None
        known = seen.status is not None or seen.done or (end is not None and end.code is not None)
        if timed_out or (known and not killed):
            return seen
        reports = self._retried(partial(self._phone.reports, self._app, self._programs, since_wall_s))
        report = reports[0] if reports else None
        if report is not None:
            with contextlib.suppress(OSError):
                (folder / record.CRASH).write_bytes(report.content)
                with (folder / record.STDERR).open("a", encoding="utf-8") as log:
                    log.write(f"the phone reports: {report.kind}: {report.detail}\n")
        return Observed(end, seen.status, seen.done, report, timed_out)

    def _clean_up(self, there: PhoneJob) -> None:
        self._held.discard(there.path)
        self._end_app()
        with self._phone.documents(self._app, self._root) as files:
            there.remove(files)

    def _stay_awake(self) -> None:
        """Asked for anew each time: what was asked for before went with the link."""
        self._phone.keep_awake(_AWAKE_S)

    def _retried(self, action: Callable[[], T]) -> T:
        return retried(action, self._reconnect_s)
