"""Packages of apps: what is checked of those that somebody else has made, and the runner's own for virtual iPhones."""

from __future__ import annotations

import hashlib
import plistlib
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from meltrepro.errors import BuildError, StoreError

_MOST_BYTES = 4 << 30
"""An app without models is a thousandth of it."""
_MOST_FILES = 20_000
_SMALL = 16 << 20
_SLICE = "ios-arm64"
# Headers of Mach-O files (Apple's mach-o/loader.h and mach-o/fat.h); nothing of them is executed.
_THIN, _FAT = 0xFEEDFACF, 0xCAFEBABE
_ARM64 = 0x0100000C
_BUILD_VERSION = 0x32
PLATFORMS = {1: "macOS", 2: "iOS", 3: "tvOS", 4: "watchOS", 6: "Mac Catalyst", 7: "the iOS simulator", 11: "visionOS"}
_MOST_COMMANDS, _MOST_SLICES = 4096, 16
_FORMAT = b"meltrepro runner package 1\n"
_RUNNER_NAME = "melt-runner"


@dataclass(frozen=True)
class AppFacts:
    """What a signed app says of itself."""

    app: str
    version: str
    executable: str
    executable_sha256: str


def check_app(path: Path, app: str, label: str) -> AppFacts:
    """What an `.ipa` is, which messages call `label`; raises `BuildError` where it is no signed app of this bundle id for iPhones."""
    with _zip(path, "signed app", label) as archive:
        plists = [name for name in archive.namelist() if _is_plist_of_app(name)]
        if len(plists) != 1:
            raise _wrong(label, f"holds {len(plists)} apps at Payload/*.app, expected one")
        root = plists[0].removesuffix("Info.plist")
        info = _plist(archive, label, plists[0])
        found, program = info.get("CFBundleIdentifier"), info.get("CFBundleExecutable")
        if found != app:
            raise _wrong(
                label, f"is the app {found!r}, expected {app!r}", "name it in options.ios.app and the target's app"
            )
        if not isinstance(program, str) or "/" in program or f"{root}{program}" not in archive.namelist():
            raise _wrong(label, f"has no program {program!r}")
        for name in ("embedded.mobileprovision", "_CodeSignature/CodeResources"):
            if f"{root}{name}" not in archive.namelist():
                raise _wrong(label, f"is not signed: it has no {name}", "export it with a development profile")
        code = archive.read(f"{root}{program}")
        _require_ios(label, program, code)
        return AppFacts(app, str(info.get("CFBundleVersion", "")), program, hashlib.sha256(code).hexdigest())


def framework_files(path: Path, label: str) -> dict[str, bytes]:
    """The files of an xcframework that iPhones need, by their path below its own folder; raises `BuildError`.

    Its list of libraries is cut down to the one for iPhones, so that nothing is missed.
    """
    with _zip(path, "xcframework", label) as archive:
        plists = [name for name in archive.namelist() if name.endswith(".xcframework/Info.plist")]
        if len(plists) != 1:
            raise _wrong(label, f"holds {len(plists)} xcframeworks, expected one")
        root = plists[0].removesuffix("Info.plist")
        info = _plist(archive, label, plists[0])
        libraries = info.get("AvailableLibraries")
        fitting = [each for each in libraries if _is_for_phones(each)] if isinstance(libraries, list) else []
        if len(fitting) != 1:
            raise _wrong(label, f"lists {len(fitting)} libraries for iPhones with arm64, expected one")
        library = PurePosixPath(str(fitting[0].get("LibraryPath", "")))
        folder = str(fitting[0].get("LibraryIdentifier", ""))
        program = f"{root}{folder}/{library}/{library.stem}"
        if folder != _SLICE or len(library.parts) != 1 or program not in archive.namelist():
            raise _wrong(label, f"has no library at {folder}/{library}")
        _require_ios(label, program, archive.read(program))

        files = {"Info.plist": plistlib.dumps({**info, "AvailableLibraries": fitting})}
        for name in sorted(archive.namelist()):
            if name.startswith(f"{root}{folder}/") and not name.endswith("/"):
                files[name.removeprefix(root)] = archive.read(name)
        return files


def _is_plist_of_app(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return len(parts) == 3 and parts[0] == "Payload" and parts[1].endswith(".app") and parts[2] == "Info.plist"


def _is_for_phones(library: object) -> bool:
    return (
        isinstance(library, dict)
        and library.get("SupportedPlatform") == "ios"
        and "SupportedPlatformVariant" not in library
        and "arm64" in (library.get("SupportedArchitectures") or ())
    )


def _require_ios(label: str, name: str, code: bytes) -> None:
    try:
        require_ios(code)
    except NoMachO as error:
        raise _wrong(label, f"its {PurePosixPath(name).name} {error}") from error


@contextmanager
def _zip(path: Path, what: str, label: str) -> Iterator[zipfile.ZipFile]:
    """A zip in which no name leads anywhere else, whose files are whole and of a sane size."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_FILES or sum(entry.file_size for entry in entries) > _MOST_BYTES:
                raise _wrong(label, "unpacks to more than a package may")
            for entry in entries:
                name = PurePosixPath(entry.filename)
                if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
                    raise _wrong(label, f"has a file that would lie elsewhere: {entry.filename!r}")
                if stat.S_ISLNK(entry.external_attr >> 16) and what == "signed app":
                    raise _wrong(label, f"has a link: {entry.filename!r}")
            if len({entry.filename for entry in entries}) != len(entries):
                raise _wrong(label, "has two files of one name")
            damaged = archive.testzip()
            if damaged is not None:
                raise _wrong(label, f"is damaged at {damaged!r}")
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError) as error:
        raise _wrong(label, f"cannot be read as the zip of a {what}: {error}") from error


def _plist(archive: zipfile.ZipFile, label: str, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > _SMALL:
        raise _wrong(label, f"has an Info.plist of {archive.getinfo(name).file_size:,} bytes")
    try:
        found = plistlib.loads(archive.read(name))
    except Exception as error:  # whatever its parser makes of bytes that are no property list
        raise _wrong(label, f"has an Info.plist that cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise _wrong(label, "has an Info.plist that is no dictionary")
    return found


def _wrong(label: str, what: str, hint: str | None = None) -> BuildError:
    return BuildError(f"{label}: {what}", hint=hint or "see docs/devices/ios.md for what it must be")


class NoMachO(ValueError):
    """A file is none, or is for something else; says what it is."""


def require_ios(data: bytes) -> None:
    """Raise `NoMachO` unless this is a Mach-O file with code for arm64 on iPhones."""
    for part in _slices(data):
        found = _platform(part)
        if found is not None:
            if found != 2:
                raise NoMachO(f"is for {PLATFORMS.get(found, f'platform {found}')}, not for iPhones")
            return
    raise NoMachO("holds no code for arm64")


def _slices(data: bytes) -> list[bytes]:
    """The file, or the files in a universal one."""
    try:
        (magic,) = struct.unpack_from(">I", data)
        if magic != _FAT:
            return [data]
        (count,) = struct.unpack_from(">I", data, 4)
        if count > _MOST_SLICES:
            raise NoMachO("is no Mach-O file")
        entries = [struct.unpack_from(">5I", data, 8 + 20 * place) for place in range(count)]
    except struct.error:
        raise NoMachO("is no Mach-O file") from None
    return [data[offset : offset + size] for _, _, offset, size, _ in entries]


def _platform(data: bytes) -> int | None:
    """The platform of an arm64 file; `None` for one of another machine."""
    try:
        magic, machine, _, _, count = struct.unpack_from("<5I", data)
        if magic != _THIN:
            raise NoMachO("is no Mach-O file of 64 bits")
        if machine != _ARM64:
            return None
        offset = 32
        for _ in range(min(count, _MOST_COMMANDS)):
            command, size = struct.unpack_from("<2I", data, offset)
            if command == _BUILD_VERSION:
                return int(struct.unpack_from("<I", data, offset + 8)[0])
            if size < 8:
                break
            offset += size
    except struct.error:
        raise NoMachO("is a Mach-O file that was cut short") from None
    raise NoMachO("does not say which platform it is for")


def runner_package_digest(runner: Path) -> str:
    """What stands for the package of a runner; raises `StoreError` where the runner cannot be read."""
    try:
        with runner.open("rb") as file:
            return hashlib.sha256(_FORMAT + hashlib.file_digest(file, "sha256").digest()).hexdigest()
    except OSError as error:
        raise StoreError(f"cannot read {runner}: {error.strerror or error}") from error


@contextmanager
def runner_package(runner: Path, app: str) -> Iterator[Path]:
    """A package of this runner for virtual iPhones, whose bundles are those of other devices with such a CPU.

    It says of itself what it is, and no phone of Apple's would take it. Raises `StoreError` where it cannot be written."""
    info = {
        "CFBundleExecutable": _RUNNER_NAME,
        "CFBundleIdentifier": app,
        "CFBundleName": _RUNNER_NAME,
        "CFBundlePackageType": "APPL",
        "CFBundleVersion": "1",
        "MeltreproRunner": True,
        "UIFileSharingEnabled": True,
    }
    with tempfile.TemporaryDirectory(prefix="meltrepro-app-") as folder:
        path = Path(folder) / f"{_RUNNER_NAME}.ipa"
        try:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(f"Payload/{_RUNNER_NAME}.app/Info.plist", plistlib.dumps(info))
                archive.writestr(f"Payload/{_RUNNER_NAME}.app/embedded.mobileprovision", b"virtual")
                archive.write(runner, f"Payload/{_RUNNER_NAME}.app/{_RUNNER_NAME}")
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
        yield path
