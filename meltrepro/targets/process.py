"""A runner as a plain process: in its own session, with a clean environment, stopped with everything it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from meltrepro.build.model import Exit
from meltrepro.errors import TargetError
from meltrepro.interrupts import held
from meltrepro.targets import supervise

_OWNER = "MELTREPRO_OWNER"
_STOP_WITHIN_S = 10.0
_LONGEST_POLL_MS = 2**31 - 1


def run(argv: Sequence[str], *, folder: Path, stdout: Path, stderr: Path, timeout_s: float, owner: str) -> Exit:
    """Run a program to its end and return how it ended; nothing that it started is alive afterwards.

    `argv[0]` is an absolute path, `folder` its working folder, `owner` marks its processes for `stop_strays`. Exit
    status 126 means that it could not be started. Raises `OSError` where the logs cannot be written, and `TargetError`
    where a process survives.
    """
    process: subprocess.Popen[bytes] | None = None
    ooms = _out_of_memory_kills()
    timed_out = False
    with stdout.open("wb") as out, stderr.open("wb") as err:
        try:
            with held():
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", supervise.__file__, str(os.getpid()), *argv],
                    cwd=folder,
                    env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", _OWNER: owner},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            timed_out = not _ends_within(process.pid, timeout_s)
        finally:
            with held():
                if process is not None:
                    # The leader is not reaped yet, so that its number cannot belong to another group by now.
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    stop_strays(owner)
    status = process.returncode
    killed = status == -signal.SIGKILL and not timed_out
    return Exit(
        status if status >= 0 else 128 - status,
        timed_out=timed_out,
        out_of_memory=killed and _out_of_memory_kills() > ooms,
    )


@contextlib.contextmanager
def beside(argv: Sequence[str], *, folder: Path, log: Path, owner: str) -> Iterator[None]:
    """Keep a program running while the block runs, then ask it to end, and see to it that it does.

    `argv[0]` is an absolute path; `log` takes what it prints. Whether it ended earlier, its own output must show. Raises
    `OSError` where the log cannot be written.
    """
    process: subprocess.Popen[bytes] | None = None
    with log.open("wb") as output:
        try:
            with held():
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", supervise.__file__, str(os.getpid()), *argv],
                    cwd=folder,
                    env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", _OWNER: owner},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            yield
        finally:
            with held():
                if process is not None:
                    _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def stop_strays(owner: str) -> int:
    """Kill every process of this owner, whichever session it fled to; returns how many there were.

    Raises `TargetError` where one of them survives.
    """
    seen: set[int] = set()
    deadline = time.monotonic() + _STOP_WITHIN_S
    while alive := list(_owned(owner)):
        if time.monotonic() > deadline:
            raise TargetError(f"processes {sorted(alive)}, started by a trial, cannot be stopped")
        for pid in alive:
            seen.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return len(seen)


def _owned(owner: str) -> Iterator[int]:
    mark = f"{_OWNER}={owner}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            # It may be gone by now, or be somebody else's.
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def _ends_within(pid: int, timeout_s: float) -> bool:
    """Wait without polling, so that nothing runs beside a measurement; a timeout of 0 or less just looks."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(min(_LONGEST_POLL_MS, max(0, int(timeout_s * 1000)))))
    finally:
        os.close(descriptor)


def _out_of_memory_kills() -> int:
    """Processes that the kernel has killed for lack of memory since boot."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
