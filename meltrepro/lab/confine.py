"""A program, not a module: becomes its arguments on a virtual device, out of which nothing leads.

`python -I -S confine.py ROOT PROGRAM [ARGUMENT ...]`, started by root in a mount namespace of its own. ROOT, a mount point,
becomes the root of all paths and what was there before is gone, so that not even a `chroot` finds back. Of root's
capabilities those stay that accounts and servers need; none of them reaches beyond the namespaces.
"""

import ctypes
import os
import platform
import sys
from pathlib import Path

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MNT_DETACH = 2
_PR_CAPBSET_DROP = 24
# chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, sys_chroot, audit_write
_KEPT = {0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29}


def main(root: str, *argv: str) -> None:
    """Replace this process by `argv`; raises `OSError` where that fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    os.chdir(root)
    _check(libc.syscall(_PIVOT_ROOT[platform.machine()], b".", b"."))
    _check(libc.umount2(b".", _MNT_DETACH))
    os.chdir("/")
    for capability in set(range(last + 1)) - _KEPT:
        _check(libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))
    os.execv(argv[0], argv)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main(*sys.argv[1:])
