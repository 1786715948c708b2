"""Installing Debian packages for `meltrepro doctor --fix`, without questions and without starting services."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from meltrepro.errors import EngineError

_POLICY = Path("/usr/sbin/policy-rc.d")
_TRIES = 3
_OPTIONS = ("-q", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "--no-install-recommends")


def install(packages: Sequence[str], announce: Callable[[str], None]) -> None:
    """Install packages; raises `EngineError` with the commands to run where that is not possible or not allowed."""
    names = " ".join(packages)
    line = f"apt-get update && apt-get install --no-install-recommends {names}"
    if not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
        raise EngineError(
            f"not here: {names}", hint="this is neither Debian nor Ubuntu: install what these packages hold by hand"
        )
    if os.geteuid() != 0:
        raise EngineError(f"not here: {names}", hint=f"run as root: {line}")
    announce(f"installing: {line}")
    with _no_services():
        for attempt in range(1, _TRIES + 1):
            update, result = _run("update"), _run("install", *packages)
            if result.returncode == 0:
                return
            announce(f"apt-get failed, try {attempt} of {_TRIES}")
    text = (update.stdout if update.returncode else "") + result.stdout
    tail = "\n".join("    " + line for line in text.strip().splitlines()[-10:])
    raise EngineError(f"apt-get could not install {names}:\n{tail}", hint=f"run by hand: {line}")


def systemd() -> bool:
    """Whether systemd runs here, and so starts services."""
    return Path("/run/systemd/system").is_dir()


@contextmanager
def _no_services() -> Iterator[None]:
    """Without systemd, packages start services by init scripts that fail in containers and with them the installation.

    A policy that denies it is Debian's own way to prevent that; an existing policy is left alone.
    """
    if systemd() or _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _run(command: str, *packages: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        ["apt-get", *_OPTIONS, command, *packages],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
