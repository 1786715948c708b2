"""Programs of tests as forks of one process that has imported them: a start takes milliseconds and not a second.

Each is a process of its own in a session of its own, with pipes, signals and an exit status; only its imports are shared.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.fault.building", "tests.fault.hosts", "tests.integration.adbd_campaign"])


class Fork:
    """What `subprocess.Popen` is of a program with two pipes, for a function that returns an exit status."""

    def __init__(self, main: Callable[..., int], *arguments: object, env: Mapping[str, str] | None = None) -> None:
        (out, its_out), (err, its_err) = _SERVER.Pipe(duplex=False), _SERVER.Pipe(duplex=False)
        environment = dict(os.environ if env is None else env)
        self._process = _SERVER.Process(target=_program, args=(main, arguments, environment, its_out, its_err))
        self._process.start()
        its_out.close()
        its_err.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.stdout = os.fdopen(os.dup(out.fileno()), encoding="utf-8")
        self.stderr = os.fdopen(os.dup(err.fileno()), encoding="utf-8")
        out.close()
        err.close()

    @property
    def returncode(self) -> int | None:
        """Negative where a signal ended it; `None` as long as it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it still says, once it has ended."""
        deadline = time.monotonic() + (timeout or 3600)
        with ThreadPoolExecutor(2) as pool:
            said = [pool.submit(pipe.read) for pipe in (self.stdout, self.stderr) if not pipe.closed]
            try:
                out, err = [each.result(deadline - time.monotonic()) for each in said] or ("", "")
            except TimeoutError:
                self.kill()  # the threads that read would not end either
                raise
        self.stdout.close()
        self.stderr.close()
        self.wait(deadline - time.monotonic())
        return out, err

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and nobody has told it yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _program(
    main: Callable[..., int],
    arguments: tuple[object, ...],
    environment: Mapping[str, str],
    out: Connection,
    err: Connection,
) -> None:
    os.setsid()
    for number, (name, pipe) in enumerate([("stdout", out), ("stderr", err)], 1):
        os.dup2(pipe.fileno(), number)
        pipe.close()
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))  # the old one knows of a file
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(main(*arguments))
