"""What root has to install and set so that an ordinary user may make namespaces, in which builds happen."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

_SWITCHES = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "15000"),
}
"""Of the kernel, what forbids namespaces, and what allows them: Debian's, Ubuntu's since 23.10, everybody's."""
_IDS = 65536
"""How many users and groups a file system of Debian may have."""


def remedy(*, ids: bool = False, system: Path = Path("/")) -> str | None:
    """The commands for root, as one line; `None` where nothing is known to be in the way.

    With `ids`, files of several users are made, which takes users of one's own.
    """
    commands = [
        f"sysctl -w {name}={allows}"
        for name, (forbids, allows) in _SWITCHES.items()
        if _read(system / "proc/sys" / name.replace(".", "/")).strip() == forbids
    ]
    if ids:
        if not (shutil.which("newuidmap") and shutil.which("newgidmap")):
            commands.append("apt-get install uidmap")
        files = {kind: system / f"etc/sub{kind}" for kind in ("uid", "gid")}
        kinds = [kind for kind, file in files.items() if not _has_ids(file)]
        if kinds:
            first = max(100_000, *map(_end, files.values()))
            last = first + _IDS - 1
            commands.append(f"usermod {' '.join(f'--add-sub{kind}s {first}-{last}' for kind in kinds)} {_user()}")
    return f"as root: {' && '.join(commands)}" if commands else None


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user of a container
        return str(os.getuid())


def _ranges(file: Path) -> list[tuple[str, int, int]]:
    found = []
    for line in _read(file).splitlines():
        name, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if first.isdecimal() and count.isdecimal():
            found.append((name, int(first), int(count)))
    return found


def _has_ids(file: Path) -> bool:
    return any(name in (_user(), str(os.getuid())) and count >= _IDS for name, _, count in _ranges(file))


def _end(file: Path) -> int:
    return max((first + count for _, first, count in _ranges(file)), default=0)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
