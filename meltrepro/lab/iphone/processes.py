"""Programs that really run: a virtual iPhone's apps are processes of this machine, in the folders of their containers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from meltrepro.interrupts import held
from meltrepro.lab.iphone import crashes, runner_app
from meltrepro.lab.iphone.apps import App
from meltrepro.lab.iphone.faults import Faults
from meltrepro.lab.power import Power

Output = Callable[[int, str], None]
"""Told the process id and what it wrote."""
Exit = Callable[[int, int | None, int | None], None]
"""Told the process id, and its exit code or the signal that ended it."""
_CRASHES = {
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS),
}
"""Signals of which a report is written."""
_TICK_S = 0.05
_LAST_WORDS_S = 1.0
_MODEL_S = 0.5
"""How often the battery follows what the apps do."""
_HOT_C = (38.0, 41.0, 45.0)
"""From which temperatures of the case on its thermal state is fair, serious, critical."""


@dataclass
class RunningApp:
    app: App
    process: subprocess.Popen[bytes]
    since: float
    """Of CLOCK_MONOTONIC."""
    ended: threading.Event = field(default_factory=threading.Event)
    reason: str = ""
    """Why the phone itself ended it."""
    cpu_s: float = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(frozen=True)
class Usage:
    footprint: int
    """Bytes that are its own and written to; mapped files do not count, as on a real phone."""
    resident: int
    virtual: int
    cpu_s: float
    threads: int


class LaunchRefused(Exception):
    """An app that is not started, with the phone's reason."""


class Processes:
    """What runs on one phone, how it is ended, and the power that it draws."""

    def __init__(self, folder: Path, power: Power, faults: Callable[[], Faults]) -> None:
        """`folder` is for crash reports and the truth about power."""
        self.truth = folder / "truth.csv"
        self.meter = folder / "meter.csv"
        self._thermal = folder / "thermal"
        self._crashes = folder / "crashes"
        self._power = power
        self._faults = faults
        self._guard = threading.Lock()
        self._launching = threading.Lock()
        self._running: dict[int, RunningApp] = {}
        self._exits: list[Exit] = []
        self._outputs: list[Output] = []
        # A program dies with the thread that started it, so there is one such thread, as long as the phone is on.
        self._starter: ThreadPoolExecutor | None = None
        self._off = threading.Event()
        self._model: threading.Thread | None = None

    # -- the phone's life -------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._off.clear()
        self._starter = ThreadPoolExecutor(1, "starter of apps")
        self._model = threading.Thread(target=self._live, name="battery", daemon=True)
        self._model.start()

    def stop(self) -> None:
        self._off.set()
        starter, self._starter = self._starter, None
        if starter is not None:
            starter.shutdown()  # before the rest, so that nothing is started any more
        for each in self.all():
            _kill(each.process)
            each.ended.wait()
        if self._model is not None:
            self._model.join()
            self._model = None

    # -- apps -------------------------------------------------------------------------------------------------------

    def all(self) -> list[RunningApp]:
        with self._guard:
            return list(self._running.values())

    def get(self, pid: int) -> RunningApp | None:
        """One app that runs; other processes of this machine are none of the phone's."""
        with self._guard:
            return self._running.get(pid)

    def launch(
        self,
        app: App,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        kill_existing: bool,
        suspended: bool,
    ) -> int:
        """Start an app; returns its process id. One that runs already is ended first, or raises `LaunchRefused`."""
        refused = self._faults().launch_refused
        if refused is not None:
            raise LaunchRefused(refused)
        with self._launching:
            pid = self._launch(app, [*app.program, *arguments], environment, kill_existing)
        if suspended:
            self.send_signal(pid, signal.SIGSTOP)
        return pid

    def _launch(self, app: App, command: Sequence[str], environment: Mapping[str, str], kill_existing: bool) -> int:
        for each in self.all():
            if each.app.identifier == app.identifier:
                if not kill_existing:
                    return each.pid
                _kill(each.process)
                each.ended.wait()
        try:
            if self._starter is None:
                raise RuntimeError("there is no starter")
            started = self._starter.submit(self._start, app, command, environment)
        except RuntimeError as error:
            raise LaunchRefused("the phone is off") from error
        return started.result()

    def _start(self, app: App, command: Sequence[str], environment: Mapping[str, str]) -> int:
        own = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(app.container),
            "CFFIXED_USER_HOME": str(app.container),
            "TMPDIR": str(app.container / "tmp"),
            runner_app.THERMAL: str(self._thermal),
        }
        if shutil.which(command[0], path=own["PATH"]) is None:
            raise LaunchRefused(f"the app's program {command[0]} cannot be run")
        try:
            with held():
                process = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "--", *command],
                    cwd=app.container,
                    env={**own, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                running = RunningApp(app, process, time.monotonic())
                with self._guard:
                    self._running[process.pid] = running
        except OSError as error:
            raise LaunchRefused(f"the app's program cannot be started: {error}") from error
        threading.Thread(target=self._watch, args=(running,), name=app.identifier, daemon=True).start()
        return process.pid

    def send_signal(self, pid: int, number: int) -> bool:
        """Signal an app; returns whether it runs. Raises `ValueError` for what is no signal."""
        if number not in signal.valid_signals():
            raise ValueError(f"{number} is no signal")
        running = self.get(pid)
        if running is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
        return True

    def subscribe(self, output: Output, exit_: Exit) -> Callable[[], None]:
        """Tell what apps write and how they end; returns how to end that."""
        with self._guard:
            self._outputs.append(output)
            self._exits.append(exit_)

        def end() -> None:
            with self._guard:
                self._outputs.remove(output)
                self._exits.remove(exit_)

        return end

    def _watch(self, running: RunningApp) -> None:
        reader = threading.Thread(target=self._pass_on, args=(running,), daemon=True)
        reader.start()
        status = running.process.wait()
        reader.join(_LAST_WORDS_S)  # what the app started may hold its output open for ever
        with self._guard:
            del self._running[running.pid]
            exits = list(self._exits)
        code, number = (status, None) if status >= 0 else (None, -status)
        if number in _CRASHES:
            crashes.report_crash(self._crashes, running.app, running.pid, number)
        running.ended.set()
        for report in exits:
            report(running.pid, code, number)

    def _pass_on(self, running: RunningApp) -> None:
        pipe = running.process.stdout
        assert pipe is not None
        with pipe:
            for line in iter(pipe.readline, b""):
                with self._guard:
                    outputs = list(self._outputs)
                for tell in outputs:
                    tell(running.pid, line.decode(errors="replace"))

    # -- what it costs ----------------------------------------------------------------------------------------------

    def _live(self) -> None:
        then, drawn = time.monotonic_ns(), 0.0
        with self.truth.open("a", encoding="utf-8") as truth, self.meter.open("w", encoding="utf-8") as meter:
            if truth.tell() == 0:
                truth.write("begin_ns,end_ns,power_w\n")
            meter.write("unix_s,energy_j\n")
            while not self._off.wait(_TICK_S):
                self._watch_memory()
                now = time.monotonic_ns()
                drawn += self._used()
                seconds = (now - then) / 1e9
                if seconds >= _MODEL_S:
                    self._power.advance(seconds, drawn / seconds)
                    truth.write(f"{then},{now},{self._power.power_w:.6f}\n")
                    truth.flush()
                    wall_ns = time.time_ns() - (time.monotonic_ns() - now)
                    meter.write(f"{wall_ns / 1e9:.6f},{self._power.energy_j:.6f}\n")
                    meter.flush()
                    self._thermal.write_text(f"{_thermal_state(self._power.skin_c)}\n")
                    then, drawn = now, 0.0

    def _used(self) -> float:
        """CPU time that apps have used since this was asked last."""
        total = 0.0
        for each in self.all():
            use = usage(each.pid)
            if use is not None:
                total += max(0.0, use.cpu_s - each.cpu_s)
                each.cpu_s = use.cpu_s
        return total

    def _watch_memory(self) -> None:
        """What a phone does to apps that need too much, or when it has been told to do so at a time."""
        faults = self._faults()
        for each in self.all():
            lived = time.monotonic() - each.since
            use = usage(each.pid)
            if use is None:
                continue
            if faults.memory_limit is not None and use.footprint > faults.memory_limit:
                self._jetsam(each, use, "per-process-limit")
            elif faults.jetsam_after_s is not None and lived >= faults.jetsam_after_s:
                self._jetsam(each, use, "vm-pageshortage")

    def _jetsam(self, running: RunningApp, use: Usage, reason: str) -> None:
        if running.reason:
            return
        running.reason = reason
        # Before its death, so that whoever learns of that finds the report.
        crashes.report_jetsam(self._crashes, running.app, running.pid, use.footprint, reason)
        _kill(running.process)


def usage(pid: int) -> Usage | None:
    """What a process and those that it started use; `None` where it is gone."""
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        footprint = resident = virtual = threads = 0
        cpu_s = 0.0
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                times = each.cpu_times()
                cpu_s += times.user + times.system + times.children_user + times.children_system
                status = _status(each.pid)
                footprint += status.get("RssAnon", 0) + status.get("RssShmem", 0) + status.get("VmSwap", 0)
                resident += status.get("VmRSS", 0)
                virtual += status.get("VmSize", 0)
                threads += each.num_threads()
    except (psutil.Error, OSError):
        return None
    return Usage(footprint, resident, virtual, cpu_s, threads)


def _thermal_state(skin_c: float) -> int:
    return sum(skin_c >= limit_c for limit_c in _HOT_C)


def _status(pid: int) -> dict[str, int]:
    """The sizes in a process's status, in bytes."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[2:] == ["kB"]}


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
