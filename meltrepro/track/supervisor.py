"""A program, not a module: runs a command and stops it, with everything it started, when the holder lets go.

`python -I -S supervisor.py <program> [argument ...]`. The holder keeps the other end of this process's standard input open;
when it closes, be it by SIGKILL of the holder, every descendant is told to end, and killed after `GRACE_S`. The exit
status is the command's, 126 where it cannot be started.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

GRACE_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36


def main(*argv: str) -> int:
    """Run the command to its end, or to the end of standard input; returns the exit status."""
    # Whatever loses its parent becomes our child, so that no descendant is out of sight.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # the holder alone decides
    try:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
        return 126
    _wait(child)
    _stop_descendants()
    status = child.wait()
    return status if status >= 0 else 128 - status


def _wait(child: "subprocess.Popen[bytes]") -> None:
    """Return when the child has ended or the holder has let go."""
    poll = select.poll()
    poll.register(os.pidfd_open(child.pid), select.POLLIN)
    poll.register(sys.stdin.fileno(), select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if ready != {sys.stdin.fileno()} or not os.read(sys.stdin.fileno(), 4096):
            return


def _stop_descendants() -> None:
    deadline = time.monotonic() + GRACE_S
    asked: set[int] = set()
    while alive := set(_descendants()):
        late = time.monotonic() > deadline
        for pid in alive if late else alive - asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= alive
        time.sleep(0.05)


def _descendants() -> Iterator[int]:
    """Every living process that has this one among its ancestors; dead ones that nobody waits for are left out."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            if state != b"Z":
                parents[int(folder.name)] = int(parent)
    family = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    yield from family - {os.getpid()}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
