"""Files of a trial in the hands of its container's user, and back."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from meltrepro import untrusted
from meltrepro.build.model import Execution
from meltrepro.interrupts import held


@contextlib.contextmanager
def handed_over(execution: Execution, user: int) -> Iterator[None]:
    """Let a container's user read and write what is meant for it, where that is another user than ours.

    Everything in its folders is ours again afterwards. The group stays, so that a program that runs as us beside it,
    without the right to do what it likes, can still write there; what that one does meanwhile leads nowhere.
    """
    if user == os.getuid():
        yield
        return
    folders = list(execution.writable.values())
    for path in (*execution.readonly.values(), *(each for folder in folders for each in folder.iterdir())):
        _let_read(path)
    modes = [folder.stat().st_mode for folder in folders]
    try:
        for folder, mode in zip(folders, modes, strict=True):
            os.chown(folder, user, -1)
            folder.chmod(mode | stat.S_IRWXU | stat.S_IRWXG)
        yield
    finally:
        with held():
            for folder, mode in zip(folders, modes, strict=True):
                folder.chmod(mode)
                for each in (folder, *folder.iterdir()):  # what lies deeper is nobody's to keep
                    with contextlib.suppress(FileNotFoundError):
                        os.chown(each, os.getuid(), os.getgid(), follow_symlinks=False)


def _let_read(path: Path) -> None:
    """Let everybody read a plain file; its folder lets in whom it may concern."""
    with contextlib.suppress(untrusted.NotPlain, FileNotFoundError):
        descriptor = untrusted.opener(str(path), os.O_RDONLY)
        try:
            mode = os.fstat(descriptor).st_mode
            if not mode & stat.S_IROTH:  # else an object of the store would look touched
                os.fchmod(descriptor, mode | stat.S_IROTH)
        finally:
            os.close(descriptor)
