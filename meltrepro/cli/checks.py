"""What a machine needs for the toolkit's work: each check says what it found, what it is for, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from meltrepro.errors import EngineError
from meltrepro.settings import Settings

_MIN_DISK = 6 * 10**9
_MIN_MEMORY = 2 * 10**9


class State(StrEnum):
    ok = "ok"
    missing = "missing"
    """The default path does not work without it."""
    optional = "optional"
    """Absent, and only needed for what `purpose` says."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    purpose: str
    remedy: str = ""


@dataclass(frozen=True)
class Tool:
    """A program and the Debian package that has it."""

    program: str
    package: str
    purpose: str
    required: bool = False
    for_tests: bool = False


TOOLS = (
    Tool("dockerd", "docker.io", "engine docker, the default", for_tests=True),
    Tool("mmdebstrap", "mmdebstrap", "base image of every build", required=True),
    Tool("dpkg-deb", "dpkg", "base image of every build", required=True),
    Tool("bwrap", "bubblewrap", "engine process, for machines without containers", for_tests=True),
    Tool("git", "git", "sources of kind git", for_tests=True),
    Tool("qemu-aarch64-static", "qemu-user-static", "running aarch64 bundles here", for_tests=True),
    Tool("chromium", "chromium", "tests of the MLflow pages", for_tests=True),
    Tool("diffoscope", "diffoscope-minimal", "explaining differences in verify"),
    Tool("adb", "adb", "Android devices (a later version)"),
    Tool("ssh", "openssh-client", "boards behind SSH (a later version)"),
)


def run_checks(settings: Settings) -> list[Check]:
    """Look at everything; changes nothing."""
    checks: list[Callable[[Settings], Check]] = [_python, _engine, _disk, _memory, _store, _tracking]
    return [check(settings) for check in checks] + [_tool(tool) for tool in TOOLS]


def find(program: str) -> str | None:
    """Where a program is, also where only root's PATH would look."""
    return shutil.which(program, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin")


def _tool(tool: Tool) -> Check:
    where = find(tool.program)
    state = State.ok if where else State.missing if tool.required else State.optional
    return Check(tool.program, state, where or "not here", tool.purpose, f"apt-get install {tool.package}")


def _python(_: Settings) -> Check:
    return Check("python", State.ok, platform.python_version(), "everything")


def _engine(settings: Settings) -> Check:
    from meltrepro.build.daemon import connect

    remedy = "meltrepro doctor --fix, or use --engine process"
    try:
        client = connect(settings)
    except EngineError as error:
        return Check("docker engine", State.missing, error.message, "builds and containers", remedy)
    info = client.info()
    found = f"{info['ServerVersion']}, {info['Driver']}, {client.api.base_url.removeprefix('http+docker://')}"
    client.close()
    return Check("docker engine", State.ok, found, "builds and containers")


def _disk(settings: Settings) -> Check:
    folder = next(path for path in (settings.cache, *settings.cache.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    state = State.ok if free >= _MIN_DISK else State.missing
    return Check(
        "disk", state, f"{free / 1e9:.1f} GB free at {settings.cache}", "sources, toolchain, models", "meltrepro gc"
    )


def _memory(_: Settings) -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    state = State.ok if total >= _MIN_MEMORY else State.missing
    return Check("memory", state, f"{total / 1e9:.1f} GB", "compiling and models", "use a larger machine")


def _store(settings: Settings) -> Check:
    folder = next(path for path in (settings.cache, *settings.cache.parents) if path.exists())
    writable = os.access(folder, os.W_OK)
    state = State.ok if writable else State.missing
    return Check("store", state, str(settings.cache), "everything that is fetched or built", "set MELTREPRO_CACHE")


def _tracking(settings: Settings) -> Check:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking_uri
    return Check("tracking", State.ok, uri.rpartition("@")[2], "results in MLflow")


def debian() -> bool:
    """Whether packages come from apt here."""
    return Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def systemd() -> bool:
    """Whether systemd runs here, and so starts services."""
    return Path("/run/systemd/system").is_dir()


def apt(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run apt-get without questions and without starting services that it installs."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(["apt-get", "-q", *arguments], env=environment, capture_output=True, text=True, check=False)
