"""A program, not a module: becomes its arguments, and dies with the process that started it.

`python -I -S supervise.py <parent's pid> <program> [argument ...]`. It replaces itself by the program, so that nothing
of it is left to disturb a measurement; the kernel then kills the program as soon as the parent is gone, be it by
SIGKILL. Exit status 126: the program cannot be started.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: str, *argv: str) -> int:
    """Replace this process by `argv`; returns only where that fails."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return 126  # the parent died before the kernel was told
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
    return 126


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
