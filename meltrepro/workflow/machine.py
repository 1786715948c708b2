"""This machine: what the toolkit needs and how to get it, and room in its store.

Each check says what it found, what it is for, and how to get it.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import urlsplit

from meltrepro import settings as settings_module
from meltrepro.errors import EngineError, ManifestError, UsageError
from meltrepro.settings import Settings
from meltrepro.store.names import redact
from meltrepro.store.proxies import proxy_for
from meltrepro.words import counted

if TYPE_CHECKING:
    from meltrepro.store.gc import Cleanup

_POLICY = Path("/usr/sbin/policy-rc.d")
_TRIES = 3
_OPTIONS = ("-q", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", "--no-install-recommends")
_MIN_DISK = 6 * 10**9
_MIN_MEMORY = 2 * 10**9
_ANSWER_S = 3.0
_PORTS = {"https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
_LOOK_S = 0.5
_NOT_BEFORE = 1_790_812_800
"""Unix time of 2026-10-01, when the newest framework that is built came out; a clock before that is wrong."""


class CheckState(StrEnum):
    ok = "ok"
    missing = "missing"
    """The default path does not work without it."""
    optional = "optional"
    """Absent, and only needed for what `purpose` says."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: CheckState
    found: str
    purpose: str
    remedy: str = ""


Need = Literal["tests", "lab", "process"]
"""What somebody may want to do besides the usual: run the test suite, the lab, or work without a container engine."""


@dataclass(frozen=True)
class Tool:
    """A program or file, and the Debian package that has it."""

    name: str
    """What PATH is searched for, or an absolute path, which may be a pattern."""
    package: str
    purpose: str
    required: bool = False
    needed_by: frozenset[Need] = frozenset()
    """What else cannot do without it."""
    offered: bool = False
    """Not required, but small, and `--fix` installs it too."""
    probe: Callable[[], str] | None = None
    """What it must be able to do besides being here; gives what was found, or raises `EngineError`."""


def _sandbox() -> str:
    from meltrepro.build.process_engine import sandbox_version

    return sandbox_version()


def _base() -> str:
    from meltrepro.build.base import mmdebstrap

    return mmdebstrap()


_TESTS, _LAB, _PROCESS = (frozenset[Need]({need}) for need in get_args(Need))
TOOLS = (
    Tool("mmdebstrap", "mmdebstrap", "base image of every build", required=True, probe=_base),
    Tool("dpkg-deb", "dpkg", "base image of every build", required=True),
    Tool(
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
        "base image with the packages of today (meltrepro lock --upgrade base)",
        offered=True,
    ),
    Tool(
        "bwrap",
        "bubblewrap",
        "engine process, for machines without containers",
        needed_by=_TESTS | _PROCESS,
        offered=True,
        probe=_sandbox,
    ),
    Tool("git", "git", "sources of kind git", needed_by=_TESTS),
    Tool(
        "qemu-aarch64-static",
        "qemu-user-static",
        "running aarch64 bundles here: virtual devices (meltrepro lab)",
        needed_by=_TESTS | _LAB,
    ),
    Tool("podman", "podman", "tests of podman in Docker's place", needed_by=_TESTS),
    Tool("c++", "g++", "tests of the runner's shared part, and small programs of other tests", needed_by=_TESTS),
    Tool("chromium", "chromium", "tests of the MLflow pages", needed_by=_TESTS),
    Tool("diffoscope", "diffoscope-minimal", "explaining differences in verify", needed_by=_TESTS),
    Tool("ip", "iproute2", "virtual devices (meltrepro lab)", needed_by=_TESTS | _LAB),
    *(Tool(name, "util-linux", "virtual devices (meltrepro lab)", needed_by=_LAB) for name in ("unshare", "setpriv")),
    Tool("ssh-keygen", "openssh-client", "virtual devices (meltrepro lab)", needed_by=_LAB),
    Tool("idevice_id", "libimobiledevice-utils", "tests of the virtual iPhone", needed_by=_TESTS),
    Tool("ideviceinstaller", "ideviceinstaller", "tests of the virtual iPhone", needed_by=_TESTS),
    Tool("npm", "npm", "tests of the virtual iPhone, for go-ios", needed_by=_TESTS),
    Tool("adb", "adb", "Android devices; without it that of adbutils is used"),
    Tool("ssh-keyscan", "openssh-client", "accepting the keys of boards behind SSH", needed_by=_TESTS),
    Tool("sshd", "openssh-server", "tests of boards behind SSH, which start their own", needed_by=_TESTS),
    Tool(
        "/usr/lib*/python3*/ensurepip/__init__.py", "python3-venv", "tests with Debian's own Python", needed_by=_TESTS
    ),
)
DOCKER = Tool("dockerd", "docker.io", "engine docker, the default")


def check_machine(*, needs: Collection[Need] = (), settings: Settings | None = None) -> list[Check]:
    """Look at everything; what only these needs need counts as required. Changes and raises nothing."""
    settings = settings or settings_module.load()
    engine = _engine(settings)
    if "process" in needs and engine.state is CheckState.missing:
        engine = replace(engine, state=CheckState.optional)
    return [
        Check("python", CheckState.ok, platform.python_version(), "everything"),
        _clock(),
        engine,
        _disk(settings),
        _memory(),
        _load(),
        _writable("store", settings.cache, "everything that is fetched or built", "set MELTREPRO_CACHE"),
        _writable("records", settings.home, "results", "set MELTREPRO_HOME"),
        _tracking(settings),
        *([] if settings.mirrors is None else [_mirrors(settings)]),
        *(_tool(replace(tool, required=_needed(tool, needs))) for tool in TOOLS),
    ]


def missing_tools(need: Need) -> list[str]:
    """The programs that a need cannot do without, as far as they are not here."""
    return [tool.name for tool in TOOLS if need in tool.needed_by and find(tool.name) is None]


def _needed(tool: Tool, needs: Collection[Need]) -> bool:
    return tool.required or not tool.needed_by.isdisjoint(needs)


def find(name: str) -> str | None:
    """Where a program is, also where only root's PATH would look; of an absolute path, the first file that it means."""
    if name.startswith("/"):
        return next((str(path) for path in sorted(Path("/").glob(name[1:])) if path.is_file()), None)
    return shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin")


def _tool(tool: Tool) -> Check:
    where = find(tool.name)
    without = CheckState.missing if tool.required else CheckState.optional
    name = tool.package if tool.name.startswith("/") else tool.name
    if where is None:
        return Check(name, without, "not here", tool.purpose, f"apt-get install {tool.package}")
    try:
        found = tool.probe() if tool.probe else where
    except EngineError as error:
        return Check(name, without, error.message, tool.purpose, error.hint or "")
    return Check(name, CheckState.ok, found, tool.purpose)


def _clock() -> Check:
    now = time.time()
    found = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    state = CheckState.ok if now >= _NOT_BEFORE else CheckState.missing
    return Check("clock", state, found, "encrypted downloads, and the times in records", "set the clock")


def _engine(settings: Settings) -> Check:
    from meltrepro.build import daemon
    from meltrepro.build.docker_facts import facts_of

    name, purpose = "docker engine", "builds and containers"
    try:
        client, address = daemon.find(settings)
    except EngineError as error:
        usual = error.hint is None or error.hint == daemon.HINT
        remedy = "start one, or work without: --engine process" if usual else str(error.hint)
        return Check(name, CheckState.missing, error.message, purpose, remedy)
    try:
        facts = facts_of(client)
    finally:
        client.close()
    pid = daemon.running(settings)
    private = f", private, process {pid}" if pid and address.way == daemon.OURS else ""
    return Check(name, CheckState.ok, f"{facts}{private}; {address}", purpose)


def _disk(settings: Settings) -> Check:
    free = shutil.disk_usage(_existing(settings.cache)).free
    state = CheckState.ok if free >= _MIN_DISK else CheckState.missing
    found = f"{free / 1e9:.1f} GB free at {settings.cache}"
    wanted = f"free {_MIN_DISK / 1e9:.0f} GB, e.g. with meltrepro gc; or set MELTREPRO_CACHE"
    return Check("disk", state, found, "sources, toolchain, models", wanted)


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    state = CheckState.ok if total >= _MIN_MEMORY else CheckState.missing
    return Check("memory", state, f"{total / 1e9:.1f} GB", "compiling and models", "use a larger machine")


def _load() -> Check:
    """What else keeps its CPUs busy: a trial with as many threads as CPUs would wait for them."""
    import psutil

    from meltrepro.measure.validity import BUSY

    cpus = os.cpu_count() or 1
    busy = psutil.cpu_percent(interval=_LOOK_S) / 100 * cpus
    state = CheckState.ok if busy <= BUSY else CheckState.optional
    found, purpose = f"{busy:.1f} of {counted(cpus, 'CPU')} busy", "trials that wait for no other program"
    return Check(
        "load", state, found, purpose, "end what runs beside; --set protocol.gates.busy_cores=0.5 waits for it"
    )


def _mirrors(settings: Settings) -> Check:
    """Its entries too: one that leads nowhere fails only when its source is wanted."""
    from meltrepro.store.mirror import load_mirrors

    name, purpose = "mirror map", "sources without internet"
    try:
        paths = load_mirrors(settings.mirrors).paths or {}
    except (UsageError, ManifestError) as error:
        return Check(name, CheckState.missing, error.message, purpose, error.hint or "")
    gone = [str(path) for path in paths.values() if not _is_there(path)]
    if gone:
        found = f"{settings.mirrors}: {len(gone)} of {len(paths)} entries lead nowhere: {', '.join(gone[:3])}"
        return Check(name, CheckState.missing, found, purpose, "mend their paths, or remove them")
    return Check(name, CheckState.ok, f"{settings.mirrors}, {counted(len(paths), 'entry', 'entries')}", purpose)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a place that this user may not look at
        return False


def _writable(name: str, folder: Path, purpose: str, remedy: str) -> Check:
    try:
        tempfile.TemporaryFile(dir=_existing(folder)).close()  # nothing less tells of quotas and read-only mounts
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return Check(name, CheckState.missing, f"{folder} cannot be written: {reason}", purpose, remedy)
    return Check(name, CheckState.ok, str(folder), purpose)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _tracking(settings: Settings) -> Check:
    name, purpose = "tracking", "results in MLflow"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.tracking_uri
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        return Check(name, CheckState.missing, f"no URI: {error}", purpose, "mend or unset MLFLOW_TRACKING_URI")
    shown = redact(uri)
    if parts.scheme not in ("http", "https"):
        return Check(name, CheckState.ok, shown, purpose)
    remedy = "start it, or unset MLFLOW_TRACKING_URI; meltrepro sync logs later what was measured meanwhile"
    proxy = proxy_for(uri)
    if proxy is not None:  # which alone may know the server
        parts, shown, remedy = urlsplit(proxy.url), proxy.named, proxy.mend
    try:
        port = parts.port or _PORTS.get(parts.scheme, 80)
        socket.create_connection((parts.hostname or "", port), timeout=_ANSWER_S).close()
    except (OSError, ValueError) as error:
        return Check(name, CheckState.optional, f"{shown} does not answer: {error}", purpose, remedy)
    return Check(name, CheckState.ok, f"{shown} answers", purpose)


# -- getting what is missing --------------------------------------------------------------------------------------


def repair_machine(
    *, needs: Collection[Need] = (), say: Callable[[str], None] = lambda _: None, settings: Settings | None = None
) -> None:
    """Install what the default path and these needs need, and start an engine, where that is allowed.

    With the need `process` no engine is started. `say` is told what is about to be done. Raises `EngineError` with the commands to run by hand.
    """
    from meltrepro.build import daemon

    settings = settings or settings_module.load()
    wanted = [tool for tool in TOOLS if tool.offered or _needed(tool, needs)]
    refused: EngineError | None = None
    if "process" not in needs:
        try:
            daemon.connect(settings).close()
        except EngineError as error:
            refused = error
            if not _is_named():
                wanted.append(DOCKER)
    packages = sorted({tool.package for tool in wanted if find(tool.name) is None})
    if packages:
        install_packages(packages, say)
    if refused is not None:
        _start_engine(settings, refused, say)


def _is_named() -> bool:
    """Whether the user names an engine, which is not ours to start."""
    from meltrepro.build.contexts import named

    try:
        return named(os.environ) is not None
    except EngineError:
        return True


def _start_engine(settings: Settings, refused: EngineError, say: Callable[[str], None]) -> None:
    from meltrepro.build import daemon

    if _is_named():
        raise refused
    if os.geteuid() != 0:
        how = "systemctl start docker" if systemd() else "meltrepro doctor --fix"
        raise EngineError(refused.message, hint=f"run as root: {how}; or work without: --engine process")
    if not systemd():
        daemon.start(settings, say)
        say("it keeps running; stop it with: meltrepro doctor --stop")
        return
    say("starting: systemctl start docker")
    result = subprocess.run(["systemctl", "start", "docker"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise EngineError(f"systemctl start docker: {result.stderr.strip()}", hint="see: journalctl -u docker -n 20")
    daemon.connect(settings).close()


def stop_engine(*, settings: Settings | None = None) -> bool:
    """Stop the private engine that `repair_machine` started; whether one was running."""
    from meltrepro.build import daemon

    return daemon.stop(settings or settings_module.load())


def install_packages(packages: Sequence[str], say: Callable[[str], None]) -> None:
    """Install packages; raises `EngineError` with the commands to run where that is not possible or not allowed."""
    names = " ".join(packages)
    line = f"apt-get update && apt-get install --no-install-recommends {names}"
    if not Path("/etc/debian_version").exists() or shutil.which("apt-get") is None:
        raise EngineError(
            f"not here: {names}", hint="this is neither Debian nor Ubuntu: install what these packages hold by hand"
        )
    if os.geteuid() != 0:
        raise EngineError(f"not here: {names}", hint=f"run as root: {line}")
    say(f"installing: {line}")
    with _no_services():
        for attempt in range(1, _TRIES + 1):
            update, result = _run("update"), _run("install", *packages)
            if result.returncode == 0:
                return
            say(f"apt-get failed, try {attempt} of {_TRIES}")
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


# -- room in the store --------------------------------------------------------------------------------------------


def collect_garbage(
    *,
    everything: bool = False,
    older_than_s: float | None = None,
    max_bytes: int | None = None,
    dry_run: bool = False,
    settings: Settings | None = None,
) -> Cleanup:
    """Remove unfinished downloads, leftovers and what nothing refers to from the store; `dry_run` removes nothing.

    `everything` takes whatever no lock in use names, `older_than_s` results unused for so long, `max_bytes` what was used
    longest ago. Raises `StoreError` where another process uses the store.
    """
    from meltrepro.store.cas import Store
    from meltrepro.store.gc import Policy, collect

    policy = Policy(everything=everything, older_than_s=older_than_s, max_bytes=max_bytes)
    return collect(Store((settings or settings_module.load()).store), policy, dry_run=dry_run)
