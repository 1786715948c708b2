"""The apps of a virtual iPhone: a bundle that cannot be changed, and a container that belongs to the app.

apps/<bundle id>/bundle/       what was installed
apps/<bundle id>/container/    Documents, Library, tmp; the app's home
apps/<bundle id>/app.json      what it is
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import stat
import sys
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from meltrepro.atomic import remove, write_bytes
from meltrepro.lab.iphone import runner_app
from meltrepro.lab.iphone.frames import Malformed, read_plist


class PackageRefused(Exception):
    """A package that the phone does not take, in the phone's own words."""


_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,154}")


@dataclass(frozen=True)
class App:
    identifier: str
    name: str
    program: tuple[str, ...]
    """What really runs when it is launched."""
    place: str
    version: str = "1"
    sharing: bool = True
    """Whether its documents can be had without a developer's signature (`UIFileSharingEnabled`)."""
    development: bool = True
    """Whether it was signed for development, which opens its whole container."""
    executable: str = ""
    """What its bundle calls its program, where that is not what really runs."""

    @property
    def container(self) -> Path:
        return Path(self.place) / "container"

    @property
    def documents(self) -> Path:
        return self.container / "Documents"

    def describe(self) -> dict[str, Any]:
        return {
            "ApplicationType": "User",
            "CFBundleDisplayName": self.name,
            "CFBundleExecutable": self.executable or PurePosixPath(self.program[0]).name,
            "CFBundleIdentifier": self.identifier,
            "CFBundleName": self.name,
            "CFBundleShortVersionString": self.version,
            "CFBundleVersion": self.version,
            "Container": str(self.container),
            "Entitlements": {"get-task-allow": self.development},
            "MeltreproVirtual": True,
            "Path": str(Path(self.place) / "bundle"),
            "SignerIdentity": "Meltrepro Virtual Developer",
            "UIFileSharingEnabled": self.sharing,
        }


class Apps:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def all(self) -> list[App]:
        found = (self.get(path.parent.name) for path in sorted(self._folder.glob("*/app.json")))
        return [app for app in found if app is not None]

    def get(self, identifier: str) -> App | None:
        if not _IDENTIFIER.fullmatch(identifier):
            return None
        try:
            known = json.loads((self._folder / identifier / "app.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return App(**{**known, "program": tuple(known["program"])})

    def put(
        self,
        identifier: str,
        program: Sequence[str],
        *,
        name: str = "",
        version: str = "1",
        sharing: bool = True,
        development: bool = True,
        executable: str = "",
    ) -> App:
        """Install an app that runs a program of this machine; its container stays as it was."""
        if not _IDENTIFIER.fullmatch(identifier):
            raise ValueError(f"{identifier!r} cannot name an app")
        place = self._folder / identifier
        app = App(identifier, name or identifier, tuple(program), str(place), version, sharing, development, executable)
        with self._guard:
            for folder in ("bundle", "container/Documents", "container/Library", "container/tmp"):
                (place / folder).mkdir(parents=True, exist_ok=True)
            write_bytes(place / "app.json", json.dumps(asdict(app)).encode(), durable=False)
        return app

    def install(self, package: Path) -> App:
        """Install an `.ipa`; its executable must run on this machine. Raises `PackageRefused`."""
        try:
            with zipfile.ZipFile(package) as archive:
                root, info = _bundle(archive)
                identifier = str(info.get("CFBundleIdentifier", ""))
                executable = PurePosixPath(str(info.get("CFBundleExecutable", "")))
                if not _IDENTIFIER.fullmatch(identifier) or len(executable.parts) != 1:
                    raise PackageRefused("MissingBundleIdentifier")
                if f"{root}embedded.mobileprovision" not in archive.namelist():
                    raise PackageRefused("ApplicationVerificationFailed")
                bundle = self._folder / identifier / "bundle"
                part = bundle.with_suffix(".part")
                shutil.rmtree(part, ignore_errors=True)
                _extract(archive, root, part)
        except (Malformed, zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
            raise PackageRefused("PackageExtractionFailed") from error
        if not (part / executable).is_file():
            raise PackageRefused("MissingBundleExecutable")
        (part / executable).chmod(0o755)
        shutil.rmtree(bundle, ignore_errors=True)
        part.rename(bundle)
        program = [str(bundle / executable)]
        if info.get("MeltreproRunner") is True:  # a runner alone, which the lab's own app goes around
            program = [sys.executable, "-P", runner_app.__file__, *program]
        return self.put(
            identifier,
            program,
            name=str(info.get("CFBundleName", identifier)),
            version=str(info.get("CFBundleVersion", "1")),
            sharing=bool(info.get("UIFileSharingEnabled", False)),
            executable=executable.name,
        )

    def remove(self, identifier: str) -> bool:
        """Remove an app and everything that it stored; returns whether it was there."""
        if self.get(identifier) is None:
            return False
        remove(self._folder / identifier)
        return True


def _bundle(archive: zipfile.ZipFile) -> tuple[str, dict[str, Any]]:
    """Where the bundle lies in a package, and its Info.plist."""
    for name in archive.namelist():
        parts = PurePosixPath(name).parts
        if len(parts) == 3 and parts[0] == "Payload" and parts[1].endswith(".app") and parts[2] == "Info.plist":
            return f"Payload/{parts[1]}/", read_plist(archive.read(name))
    raise PackageRefused("MissingInfoPlist")


def _extract(archive: zipfile.ZipFile, root: str, folder: Path) -> None:
    for entry in archive.infolist():
        inside = PurePosixPath(entry.filename.removeprefix(root))
        if entry.is_dir() or not entry.filename.startswith(root):
            continue
        if inside.is_absolute() or ".." in inside.parts:
            raise PackageRefused("PackageExtractionFailed")
        path = folder / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, path.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        if (entry.external_attr >> 16) & stat.S_IXUSR:
            path.chmod(0o755)


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder, in which an app may work meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total
