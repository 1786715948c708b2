"""Packages of an npm registry that are pinned by digest: libraries for phones, which no package of Python has.

`npm` fetches them, from whatever registry this machine is set up for; nothing of a package is run.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from meltrepro.errors import DownloadError
from meltrepro.manifest.sources import NpmPackage
from meltrepro.steps import step
from meltrepro.store.proxies import without_logins
from meltrepro.store.source import Context, Pin, Provider, key_of

_TIMEOUT_S = 1800.0


class Npm(Provider[NpmPackage]):
    def resolve(self, source: NpmPackage, context: Context) -> Pin:
        """What its digest says; fetches the package where it is not here, to know its size."""
        digest = source.digest or ""
        if not context.store.has(digest):
            _bring(source, context)
        return Pin(source=key_of(source), digest=digest, size=context.store.size(digest), filename=f"{source.file}.tgz")

    def fetch(self, source: NpmPackage, pin: Pin, context: Context) -> None:
        """Fetch the package."""
        _bring(source, context)


def _bring(source: NpmPackage, context: Context) -> None:
    """Fetch a package; raises `DigestMismatch` where the registry has other bytes, and `DownloadError` where it has none."""
    key = key_of(source)
    context.downloader.require_network(key)
    program = shutil.which("npm")
    if program is None:
        raise DownloadError(
            f"{key}: npm is not installed", hint="apt-get install npm, or name a copy of the file in a mirror map"
        )
    with context.store.scratch() as scratch, step(context.sink, "fetch", key):
        said = _pack(program, source.file, scratch)
        for file in scratch.glob("*.tgz"):
            context.store.put_file(file, expected=source.digest, subject=key)
            return
    last = without_logins(said).strip().splitlines()[-1:] or ["npm says nothing"]
    raise DownloadError(f"{key}: npm cannot fetch it: {last[0]}", hint="its registry is what `npm config` says")


def _pack(program: str, package: str, scratch: Path) -> str:
    """Have npm fetch a package's file, and keep no copy of its own; returns its complaints."""
    command = [program, "pack", "--ignore-scripts", "--loglevel=error", f"--cache={scratch / 'cache'}", package]
    try:
        done = subprocess.run(
            command,
            cwd=scratch,  # where no project has settings for npm
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it has not answered for {_TIMEOUT_S / 60:.0f} min"
    return done.stderr
