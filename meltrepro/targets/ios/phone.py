"""One iPhone behind synchronous calls: every one ends by its deadline, and fails as `TargetLost` or `TargetError`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, TypeVar

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.base import Progress, silent
from meltrepro.targets.ios import errors as ios_errors
from meltrepro.targets.ios.files import Files
from meltrepro.targets.ios.link import Instruments, ProcessExit, Services
from meltrepro.targets.ios.loop import Loop, Silent, shared
from meltrepro.targets.ios.reports import Report, parse_report, report_time

T = TypeVar("T")
ANSWER_S = 15.0
"""A question to a phone that works is answered in milliseconds."""
PIECE_S = 30.0
"""A piece of a file may wait so long: a slow tunnel moves less than a mebibyte a second."""
OPEN_S = 60.0
"""Sessions, tunnels and disk images take their time."""
INSTALL_S = 600.0
_CLOCK_S = 5.0
_SOON_S = 0.5
_STAGING = "PublicStaging"
_REPORT_BYTES = 16 << 20
_REPORTS = 50
"""No more reports than this are looked into, newest first."""


class Phone:
    """One phone; connections are opened when they are needed, and anew after a loss."""

    def __init__(
        self,
        services: Services,
        loop: Loop | None = None,
        *,
        answer_s: float = ANSWER_S,
        piece_s: float = PIECE_S,
        open_s: float = OPEN_S,
    ) -> None:
        self._services = services
        self._loop = loop or shared()
        self._answer_s = answer_s
        self._piece_s = piece_s
        self._open_s = open_s
        self.name = f"iPhone {services.udid[:8]}..."

    def ask(self, action: Callable[[], Coroutine[Any, Any, T]], what: str, limit_s: float | None = None) -> T:
        """Run something to its end; raises `TargetLost` or `Garbled`, after which all is connected anew, or `TargetError`."""
        limit_s = self._answer_s if limit_s is None else limit_s
        try:
            return self._loop.run(action(), limit_s, self._services.abort)
        except Silent:
            raise ios_errors.silent(self.name, what, limit_s) from None
        except Exception as error:
            explained = ios_errors.explain(error, self.name, what, self._services.version)
            if isinstance(explained, TargetLost | ios_errors.Garbled):
                self._loop.call(self._services.abort)
            if explained is error:
                raise
            raise explained from error

    # -- what it is -----------------------------------------------------------------------------------------------

    def values(self, domain: str | None = None) -> Mapping[str, Any]:
        """What the phone tells of itself."""
        return self.ask(lambda: self._services.values(domain), "ask what it is", self._open_s)

    def pair(self, wait_s: float) -> None:
        """Ask the phone's user to trust this computer, for at most so long."""
        self.ask(lambda: self._services.pair(wait_s), "pair", wait_s + self._open_s)

    def battery(self) -> Mapping[str, Any]:
        """The battery as the registry of the phone's kernel shows it."""
        return self.ask(self._services.battery, "read the battery", self._open_s)

    def hardware(self) -> Mapping[str, Any]:
        """What developer services tell of the hardware."""
        return self._developer(lambda tools: tools.hardware(), "ask for its hardware")

    def clock_ns(self) -> int:
        """The phone's uptime clock."""
        return self._developer(lambda tools: tools.clock_ns(), "read its clock", _CLOCK_S)

    def free_bytes(self) -> int | None:
        """Free space on the phone; `None` where it does not say."""
        with self._files(self._services.media, "open its media folder") as files:
            return files.free_bytes()

    # -- apps -----------------------------------------------------------------------------------------------------

    def apps(self) -> Mapping[str, Mapping[str, Any]]:
        """Apps of the user by bundle id."""
        return self.ask(self._services.apps, "list its apps", self._open_s)

    def install(self, package: Path, digest: str, progress: Progress = silent) -> None:
        """Install a package: sent in pieces and verified, as any file is. Raises `TargetError` where it is refused."""
        with self._files(self._services.media, "open its media folder") as files:
            files.make_folder(_STAGING)
            name = f"{_STAGING}/{digest}.ipa"
            try:
                files.push(package, name, digest, progress)
                self.ask(lambda: self._services.install(name), f"install {package.name}", INSTALL_S)
            finally:
                with contextlib.suppress(TargetError):
                    files.remove(name)

    def launch(self, app: str, environment: Mapping[str, str]) -> int:
        """Start an app, or find the one that runs; returns its process id."""
        return self._developer(lambda tools: tools.launch(app, environment), f"launch {app}", self._open_s)

    def pid(self, app: str) -> int:
        """The process of an app; 0 where it does not run."""
        return self._developer(lambda tools: tools.pid(app), f"look for {app}")

    def kill(self, pid: int) -> None:
        """End a process at once."""
        self._developer(lambda tools: tools.kill(pid), "end the app")

    def memory_bytes(self) -> int | None:
        """The phone's memory; `None` where it does not say."""
        return self._developer(lambda tools: tools.memory_bytes(), "ask for its memory")

    def footprint(self, pid: int) -> int | None:
        """Bytes that a process is charged for; `None` where the phone does not show it."""
        return self._developer(lambda tools: tools.footprint(pid), "read its memory")

    def wait(self, pid: int, limit_s: float) -> ProcessExit | None:
        """How a process ended, as soon as the phone tells; `None` where it has not within `limit_s`."""

        async def wait() -> ProcessExit | None:
            import asyncio

            tools = await self._services.instruments()
            # After a loss its end may have been told to nobody, and somebody should soon look whether it runs.
            wait_s = min(limit_s, _SOON_S) if await tools.watch(pid) else limit_s
            with contextlib.suppress(asyncio.TimeoutError):
                return await asyncio.wait_for(tools.ended(pid), wait_s)
            return None

        return self.ask(wait, "wait for the app", limit_s + self._open_s)

    def keep_awake(self, seconds: float) -> None:
        """Ask the phone not to sleep by itself for so long; a phone that does not know how is left alone."""
        with contextlib.suppress(TargetError):
            self.ask(lambda: self._services.keep_awake(seconds), "keep it awake")

    # -- files ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def documents(self, app: str, root: str) -> Iterator[Files]:
        """The folder `root` of an app's documents, by a connection of its own."""
        with self._files(
            lambda: self._services.documents(app), f"open the files of {app}", f"Documents/{root}"
        ) as files:
            yield files

    def reports(self, app: str, programs: AbstractSet[str], since_wall_s: float) -> list[Report]:
        """What the phone has written down about the ends of an app since then (of its own Unix time), newest first."""
        with self._files(self._services.crash_files, "open its crash reports") as files:
            named = {name: at for name in files.names("/") if (at := report_time(name, programs)) is not None}
            found = []
            for name in sorted(named, key=lambda name: named[name], reverse=True)[:_REPORTS]:
                look = files.stat(name)
                # Names have seconds of the phone's own time zone, so that only the file's time decides.
                if look is None or look.changed_us / 1e6 < since_wall_s - 1:
                    continue
                report = parse_report(files.read(name, _REPORT_BYTES) or b"", app, programs)
                if report is not None:
                    found.append(report)
        return found

    # -- parts ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _files(self, open_: Callable[[], Coroutine[Any, Any, Any]], what: str, root: str = "") -> Iterator[Files]:
        afc = self.ask(open_, what, self._open_s)

        def ask(action: Callable[[], Coroutine[Any, Any, T]], what: str) -> T:
            return self.ask(action, what, self._piece_s)

        try:
            yield Files(afc, ask, self.name, root)
        finally:
            self._loop.call(lambda: self._services.close(afc))

    def _developer(
        self, action: Callable[[Instruments], Coroutine[Any, Any, T]], what: str, limit_s: float | None = None
    ) -> T:
        """Ask a developer service; opening them may take longer than an answer."""
        tools = self.ask(self._services.instruments, "reach its developer services", self._open_s)
        return self.ask(lambda: action(tools), what, limit_s)
