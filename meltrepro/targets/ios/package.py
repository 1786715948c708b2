"""The runner as an app's package, for virtual iPhones alone: their bundles are those of other devices with such a CPU.

A phone of Apple's gets the app that a Mac has built and signed; a package of this module says of itself what it is, and
no such phone would take it.
"""

from __future__ import annotations

import contextlib
import hashlib
import plistlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from meltrepro.errors import StoreError

_FORMAT = b"meltrepro runner package 1\n"
_NAME = "melt-runner"


def runner_package_digest(runner: Path) -> str:
    """What stands for the package of a runner; raises `StoreError` where the runner cannot be read."""
    try:
        with runner.open("rb") as file:
            return hashlib.sha256(_FORMAT + hashlib.file_digest(file, "sha256").digest()).hexdigest()
    except OSError as error:
        raise StoreError(f"cannot read {runner}: {error.strerror or error}") from error


@contextlib.contextmanager
def runner_package(runner: Path, app: str) -> Iterator[Path]:
    """A package of this runner, as long as the block runs; raises `StoreError` where it cannot be written."""
    info = {
        "CFBundleExecutable": _NAME,
        "CFBundleIdentifier": app,
        "CFBundleName": _NAME,
        "CFBundlePackageType": "APPL",
        "CFBundleVersion": "1",
        "MeltreproRunner": True,
        "UIFileSharingEnabled": True,
    }
    with tempfile.TemporaryDirectory(prefix="meltrepro-app-") as folder:
        path = Path(folder) / f"{_NAME}.ipa"
        try:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(f"Payload/{_NAME}.app/Info.plist", plistlib.dumps(info))
                archive.writestr(f"Payload/{_NAME}.app/embedded.mobileprovision", b"virtual")
                archive.write(runner, f"Payload/{_NAME}.app/{_NAME}")
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
        yield path
