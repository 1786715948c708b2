"""Engine `process`: the same recipes without any container engine, in a sandbox of Linux namespaces.

The base's and the toolchain's layers are unpacked once; bubblewrap then shows a build the same file system, paths and
environment that the Docker engine shows it: read-only root, no network, nothing of this machine. Same bytes, or it is
a bug.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from meltrepro import processes, resources, untrusted
from meltrepro.atomic import make_folder
from meltrepro.build import toolchain
from meltrepro.build.image import Layer
from meltrepro.build.log import BuildLog, check_killed, check_space, writing_below
from meltrepro.build.model import Execution, Exit, Recipe
from meltrepro.build.namespaces import remedy
from meltrepro.build.toolchain import USUAL, Conditions
from meltrepro.errors import BuildError, EngineError
from meltrepro.interrupts import held
from meltrepro.plan.identity import digest_of
from meltrepro.steps import Sink, step
from meltrepro.store.archive import unpack_root
from meltrepro.store.cas import Store

_MOUNT_POINTS = ("proc", "dev", "tmp", "src", "build", "out", "inputs", "recipe", "opt/zig-cache")
_FIX = "apt-get install bubblewrap, or meltrepro doctor --fix"
_STOP_S = 10.0
_PROC = ("--proc", "/proc", "--remount-ro", "/proc")
"""Read-only: to the kernel root is root in any namespace, and may set what is below /proc/sys."""
_CLOSED = ("--remount-ro", "/", "--")
_NOT_STARTED = 126


def sandbox_version() -> str:
    """`bubblewrap <version>`; raises `EngineError` where it is missing or may not make namespaces."""
    result = subprocess.run([_bubblewrap(), "--version"], capture_output=True, text=True, check=False)
    probe = subprocess.run(
        [_bubblewrap(), "--unshare-all", "--ro-bind", "/", "/", "/bin/true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode != 0:
        raise EngineError(
            f"bubblewrap may not make namespaces here: {probe.stderr.strip()}",
            hint=f"{remedy() or 'a container has to be allowed namespaces (seccomp, /proc)'}; or use --engine docker",
        )
    return result.stdout.strip()


class ProcessEngine:
    """Executes recipes and commands as ordinary processes in namespaces of their own."""

    name = "process"

    def __init__(
        self,
        layers: Callable[[], Sequence[Layer]],
        store: Store,
        jobs: int,
        sink: Sink,
        conditions: Conditions = USUAL,
    ) -> None:
        """`layers` gives the base's and the toolchain's, in this order; `jobs` is the number of parallel compilers."""
        self._layers = layers
        self._store = store
        self._jobs = jobs
        self._sink = sink
        self._conditions = conditions

    def version(self) -> str:
        """`bubblewrap <version>`; raises `EngineError` where it is missing or may not make namespaces."""
        return sandbox_version()

    def build(self, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False) -> Mapping[str, str]:
        """Run the recipe's phases in the sandbox; its `/out` is the folder `out`. Always fresh: nothing is kept."""
        root = self.root()
        cache = self._warm_cache(root, recipe.triple, log, sink) if toolchain.uses_zig(recipe.triple) else None
        with (
            self._store.scratch() as scratch,
            step(sink, "build", recipe.name),
            BuildLog(log, recipe.name, sink) as build_log,
        ):
            with writing_below(scratch):
                for name, content in recipe.files.items():
                    path = scratch / "recipe" / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                    path.chmod(0o644)
                for name in ("src", "build"):
                    (scratch / name).mkdir()
            for phase in recipe.phases or ("",):
                build_log.write(f"-- {phase or 'build'}\n")
                script = f"{self._conditions.folders['recipe']}/build.sh"
                command = ["/bin/sh", script, *([phase] if phase else [])]
                status = _stream(
                    [*self._sandbox(recipe, root, cache, out, scratch), *command], build_log, self._conditions.umask
                )
                _check_status(status, f"building {recipe.name}: {phase or 'build.sh'}", scratch, build_log)
        return {}

    def execute(self, execution: Execution) -> Exit:
        """Run the command with the bundle and its mounts as the only files there are."""
        owner = execution.owner or uuid.uuid4().hex  # nobody's own is anybody's to stop
        ended = processes.run(
            [*_program(execution, owner), *_PROC, *_CLOSED, *execution.argv],
            stdout=execution.stdout,
            stderr=execution.stderr,
            timeout_s=execution.timeout_s,
            owner=owner,
        )
        return Exit(_NOT_STARTED) if ended.status == 1 and _complained(execution.stderr) else ended

    @contextlib.contextmanager
    def beside(self, execution: Execution) -> Iterator[str]:
        """Keep the command running; it sees all processes of this machine, none of which it can touch.

        They belong to other namespaces of users than its own, so that the kernel shows it no more than their names and sizes.
        """
        machine = ("--ro-bind", "/proc", "/proc", "--as-pid-1")  # as first process it hears the signal that ends it
        command = [*_program(execution, execution.owner), *machine, *_CLOSED, *execution.argv]
        with processes.beside(command, log=execution.stdout, owner=execution.owner):
            yield ""

    def stop_strays(self, owner: str) -> int:
        """Stop executions of this owner that outlived the process that started them; returns how many processes."""
        return processes.stop_strays(owner)

    # -- what builds share ----------------------------------------------------------------------------------------

    def _sandbox(self, recipe: Recipe, root: Path, cache: Path | None, out: Path, scratch: Path) -> list[str]:
        """The start of a command line that shows a build its root, its compiler cache and its folders."""
        conditions = self._conditions
        folders = conditions.folders
        environment = {
            **toolchain.environment(recipe.triple),
            "JOBS": str(self._jobs),
            **{name.upper(): folder for name, folder in folders.items()},
            **conditions.environment,
        }
        return [
            *(_bubblewrap(), *_isolation(environment, conditions)),
            *("--ro-bind", str(root), "/", *_PROC, "--dev", "/dev", "--tmpfs", "/tmp"),
            *(("--bind", str(cache), toolchain.CACHE) if cache is not None else ()),
            *("--bind", str(scratch / "src"), folders["src"], "--bind", str(scratch / "build"), folders["build"]),
            *("--bind", str(out), folders["out"], "--ro-bind", str(scratch / "recipe"), folders["recipe"]),
            *("--tmpfs", folders["inputs"]),
            *(
                part
                for name, path in recipe.inputs.items()
                for part in ("--ro-bind", str(path), f"{folders['inputs']}/{name}")
            ),
            "--",
        ]

    def root(self) -> Path:
        """The unpacked base and toolchain; made once, under a lock, in place at once."""
        layers = self._layers()
        key = digest_of([layer.digest for layer in layers])[:16]
        root = self._store.root / "rootfs" / key
        with self._store.lock(f"rootfs-{key}"):
            if root.exists():
                return root
            with step(self._sink, "rootfs.unpack", key), self._store.scratch() as scratch:
                make_folder(root.parent)
                with writing_below(scratch):
                    unpack_root([layer.path for layer in layers], scratch / "root", "base and toolchain", _MOUNT_POINTS)
                    (scratch / "root").rename(root)
        return root

    def _warm_cache(self, root: Path, triple: str, log: Path, sink: Sink) -> Path:
        """A compiler cache that holds the C and C++ libraries of `triple`."""
        warm = resources.image_file("toolchain/warm.sh")
        key = digest_of({"root": root.name, "warm": warm.decode(), "triple": triple})[:16]
        cache = self._store.place / "zig-cache" / f"{triple}-{key}"
        with self._store.lock(f"zig-cache-{key}"):
            if cache.exists():
                return cache
            name = f"builder for {triple}"
            with self._store.scratch() as scratch, step(sink, "build", name), BuildLog(log, name, sink) as build_log:
                make_folder(cache.parent)
                with writing_below(scratch):
                    (scratch / "cache").mkdir()
                    (scratch / "warm.sh").write_bytes(warm)
                sandbox = [
                    *_isolation(toolchain.environment(triple)),
                    *("--ro-bind", str(root), "/", *_PROC, "--dev", "/dev", "--tmpfs", "/tmp"),
                    *("--bind", str(scratch / "cache"), toolchain.CACHE, "--ro-bind", str(scratch), "/recipe"),
                ]
                status = _stream([_bubblewrap(), *sandbox, "--", "/bin/sh", "/recipe/warm.sh"], build_log)
                _check_status(status, name, scratch, build_log)
                with writing_below(scratch):
                    (scratch / "cache").rename(cache)
        return cache


def _bubblewrap() -> str:
    program = shutil.which("bwrap")
    if program is None:
        raise EngineError("engine process needs bubblewrap, which is not installed", hint=_FIX)
    return program


def _isolation(environment: Mapping[str, str], conditions: Conditions = USUAL) -> list[str]:
    """Namespaces of its own for everything, no capability, no network, this environment and no other."""
    return [
        *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--hostname", conditions.hostname, "--uid", str(conditions.user), "--gid", str(conditions.user)),
        "--clearenv",
        *(part for name, value in sorted(environment.items()) for part in ("--setenv", name, value)),
    ]


def _program(execution: Execution, owner: str) -> list[str]:
    """The start of a command line that shows a program its bundle and its mounts, and nothing else of this machine.

    `/proc` is still to come, and the root to be closed.
    """
    return [
        _bubblewrap(),
        *_isolation({"PATH": "/bundle/bin", "LC_ALL": "C", **processes.mark(owner)}),
        *(("--share-net",) if execution.network else ()),
        *("--dev", "/dev", "--remount-ro", "/dev", "--ro-bind", str(execution.bundle.path.absolute()), "/bundle"),
        *(part for inside, path in execution.readonly.items() for part in ("--ro-bind", str(path.absolute()), inside)),
        *(part for inside, path in execution.writable.items() for part in ("--bind", str(path.absolute()), inside)),
    ]


def _complained(stderr: Path | None) -> bool:
    """Whether it was bubblewrap that ended with status 1, which it does where it cannot start the program."""
    try:
        with untrusted.opened(stderr) if stderr is not None else io.BytesIO() as file:
            return file.read(7) == b"bwrap: "
    except OSError:  # the program has put something else in its place
        return False


def _stream(command: Sequence[str], log: BuildLog, umask: int = USUAL.umask) -> int:
    """Run a command with its output going to the log; it never outlives this call."""
    process: subprocess.Popen[str] | None = None
    try:
        with held():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                umask=umask,
            )
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
        return process.wait()
    finally:
        _stop(process)


def _check_status(status: int, what: str, scratch: Path, log: BuildLog) -> None:
    """Raise what a status other than 0 stands for: `StoreError` (no space), `EngineError` (killed) or `BuildError`."""
    if status != 0:
        check_space(scratch, log.tail())
        check_killed(status, what, log.path)
        raise BuildError(f"{what} failed with status {status}:\n{log.tail()}", hint=f"the whole log is in {log.path}")


def _stop(process: subprocess.Popen[str] | None) -> None:
    """End a sandbox with everything in it, if it runs.

    When the first process in its process namespace has ended, the kernel has ended all others; killing bubblewrap alone
    would leave them to end some time later, while their folders are being removed. A bubblewrap that has only just
    started may be about to make that first process, which does not yet end with its parent: so it is frozen first.
    """
    import psutil

    with held():
        if process is None or process.poll() is not None:
            return
        sandbox = psutil.Process(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        for each in sandbox.children() or [sandbox]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
