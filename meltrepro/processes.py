"""A program in its own session, with a clean environment, stopped with everything that it started."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from meltrepro import untrusted
from meltrepro.atomic import make_folder, writing
from meltrepro.build.model import Exit
from meltrepro.errors import TargetError
from meltrepro.interrupts import held

_OWNER = "MELTREPRO_OWNER"
_STOP_WITHIN_S, _ASK_EVERY_S = 10.0, 0.1
_LONGEST_POLL_MS = 2**31 - 1
_SUPERVISE = """
import ctypes, os, signal, sys
parent, *argv = sys.argv[1:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() == int(parent):  # else the parent died before the kernel was told
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
sys.exit(126)
"""
"""Becomes its arguments, so that nothing of it is left to disturb a measurement, and dies with the process that started it:
the kernel kills it as soon as the parent is gone, be it by SIGKILL. Exit status 126: it cannot be started."""


def mark(owner: str) -> Mapping[str, str]:
    """The variable that marks what an owner's programs start; it does not tell them who that is."""
    return {_OWNER: hashlib.sha256(owner.encode()).hexdigest()}


def run(
    argv: Sequence[str],
    *,
    stdout: Path | None,
    stderr: Path | None,
    timeout_s: float | None,
    owner: str,
    folder: Path = Path("/"),
) -> Exit:
    """Run a program to its end and return how it ended; nothing that it started is alive afterwards.

    `argv[0]` is an absolute path, `folder` its working folder, `owner` marks its processes for `stop_strays`. Exit
    status 126 means that it could not be started. Raises `StoreError` where the logs cannot be written, and
    `TargetError` where a process survives.
    """
    process: subprocess.Popen[bytes] | None = None
    ooms = _out_of_memory_kills()
    timed_out = False
    same = stderr == stdout
    with _output(stdout) as out, _output(None if same else stderr) as err:
        try:
            with held():
                process = _start(argv, folder, out, subprocess.STDOUT if same else err, owner)
            timed_out = not _ends_within(process.pid, timeout_s)
        finally:
            with held():
                if process is not None:
                    # The leader is not reaped yet, so that its number cannot belong to another group by now.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    stop_strays(owner)
    status = process.returncode if process.returncode >= 0 else 128 - process.returncode
    killed = status == 128 + signal.SIGKILL and not timed_out
    return Exit(124 if timed_out else status, timed_out, out_of_memory=killed and _out_of_memory_kills() > ooms)


@contextlib.contextmanager
def beside(argv: Sequence[str], *, log: Path | None, owner: str, folder: Path = Path("/")) -> Iterator[None]:
    """Keep a program running while the block runs, then ask it to end, and see to it that it does.

    `argv[0]` is an absolute path; `log` takes what it prints. Whether it ended earlier, its own output must show. Raises
    `StoreError` where the log cannot be written, and `TargetError` where a process survives.
    """
    process: subprocess.Popen[bytes] | None = None
    with _output(log) as output:
        try:
            with held():
                process = _start(argv, folder, output, subprocess.STDOUT, owner)
            yield
        finally:
            with held():
                if process is not None:
                    _end(process)
                    stop_strays(owner)


def _start(
    argv: Sequence[str], folder: Path, out: IO[bytes] | int, err: IO[bytes] | int, owner: str
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _SUPERVISE, str(os.getpid()), *argv],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **mark(owner)},
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a program to end; in a sandbox, that is the child of the program that made it, which passes on no signal.

    It is asked again and again: the first process of a namespace does not hear what comes before it has begun to listen.
    """
    import psutil

    deadline = time.monotonic() + _STOP_WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            started = psutil.Process(process.pid)
            for each in started.children() or [started]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_ASK_EVERY_S)
            return
    process.kill()
    process.wait()


def stop_strays(owner: str) -> int:
    """Kill every process of this owner, whichever session it fled to; returns how many there were.

    Raises `TargetError` where one of them survives.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + _STOP_WITHIN_S
    while alive := list(owned(owner)):
        if time.monotonic() > deadline:
            raise TargetError(f"processes {sorted(alive)}, started by a trial, cannot be stopped")
        for pid in alive:
            seen.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return len(seen)


def owned(owner: str) -> Iterator[int]:
    """The processes that this owner's programs are and have started."""
    wanted = "=".join(*mark(owner).items()).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            # It may be gone by now, or be somebody else's.
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def _ends_within(pid: int, timeout_s: float | None) -> bool:
    """Wait without polling, so that nothing runs beside a measurement; a timeout of 0 or less just looks."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        longest = None if timeout_s is None else min(_LONGEST_POLL_MS, max(0, int(timeout_s * 1000)))
        return bool(poll.poll(longest))
    finally:
        os.close(descriptor)


def _out_of_memory_kills() -> int:
    """Processes that the kernel has killed for lack of memory since boot."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[IO[bytes] | int]:
    if path is None:
        yield subprocess.DEVNULL
        return
    make_folder(path.parent)
    with writing(path):
        descriptor = untrusted.opener(str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)  # never through a planted link
        file = os.fdopen(descriptor, "wb")
    with file:
        yield file
