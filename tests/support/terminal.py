"""A terminal of a known width, and what a command shows on it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path


def environment(home: Path, **more: str) -> dict[str, str]:
    """Variables for a command whose records are in `home`, on a terminal with colours."""
    known = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return {**known, "MELTREPRO_HOME": str(home), "TERM": "xterm-256color", **more}


def in_terminal(columns: int, *arguments: str, **variables: str) -> str:
    """What a command shows on a terminal of so many columns."""
    return python_in_terminal(columns, "-m", "meltrepro", *arguments, **variables).replace("\r\n", "\n")


def python_in_terminal(columns: int, *arguments: str, **variables: str) -> str:
    """What Python shows on a terminal of so many columns, as it arrives there."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=variables) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # how Linux says that nobody has the other side any more
                break
            if not part:
                break
            shown += part
    os.close(leader)
    assert process.returncode in (0, 2), shown
    return shown.decode()
