"""The surroundings of a build, and others in which the same bytes must come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_FOLDERS = ("src", "build", "out", "inputs", "recipe")


@dataclass(frozen=True)
class Conditions:
    """What a build may not depend on: where it runs, as whom, and in which surroundings."""

    folders: Mapping[str, str] = field(default_factory=lambda: {name: f"/{name}" for name in _FOLDERS})
    """Where the sandbox shows the script's folders, by name."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the toolchain's environment, or in place of it."""
    user: int = 0
    hostname: str = "builder"
    umask: int = 0o022


USUAL = Conditions()
VARIED = Conditions(
    # Below /tmp, because the sandbox's root can only be read.
    folders={name: f"/tmp/elsewhere/{name}-of-somebody" for name in _FOLDERS},
    environment={
        "HOME": "/tmp/home",
        "USER": "somebody",
        "LC_ALL": "C.UTF-8",
        "LANG": "tr_TR.UTF-8",
        "TZ": "Pacific/Kiritimati",
        "COLUMNS": "40",
        "CFLAGS": "-O0 -g",
        "CXXFLAGS": "-O0 -g",
        "LDFLAGS": "-Wl,--build-id=sha1",
    },
    user=4711,
    hostname="elsewhere",
    umask=0o077,
)
"""Different in everything, as reprotest does it; the same bytes must come out."""
