"""Packages of Debian's archive that are pinned by digest: compilers that are no packages of Python.

`mmdebstrap` fetches them, with whatever servers this machine is set up for. The archive keeps one version of each package; those of
a suite that is no longer the newest change no more, or for security alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from meltrepro.errors import DownloadError
from meltrepro.manifest.sources import DebianPackage
from meltrepro.steps import step
from meltrepro.store.proxies import for_apt, without_logins
from meltrepro.store.source import Context, Pin, Provider, key_of

_HINT = "import a bundle that has it, or name a copy of the file in the mirror map"
_TIMEOUT_S = 1800.0


class Debian(Provider[DebianPackage]):
    def resolve(self, source: DebianPackage, context: Context) -> Pin:
        """What its digest says; fetches the package where it is not here, to know its size."""
        digest = source.digest or ""
        if not context.store.has(digest):
            _bring(source, context)
        return Pin(source=key_of(source), digest=digest, size=context.store.size(digest), filename=source.file)

    def fetch(self, source: DebianPackage, pin: Pin, context: Context) -> None:
        """Fetch the package, and others of the same build with it."""
        _bring(source, context)


def _bring(source: DebianPackage, context: Context) -> None:
    """Fetch a package with all that it depends on; raises `DownloadError` where the archive has other bytes by now."""
    program = shutil.which("mmdebstrap")
    if program is None:
        raise DownloadError(f"{key_of(source)}: mmdebstrap is not installed", hint="apt-get install mmdebstrap")
    downloader = context.downloader
    if downloader.offline:
        raise DownloadError(f"{key_of(source)}: not here, and this is offline", hint=_HINT)
    with (
        context.store.lock(f"debian-{source.suite}-{source.brought_by}"),
        context.store.scratch() as scratch,
        step(context.sink, "fetch", f"Debian {source.suite}: {source.brought_by}"),
    ):
        if context.store.has(source.digest or ""):
            return
        scratch.chmod(0o755)  # apt's own user reads it
        said = _download(program, source, scratch)
        found = {context.store.put_file(file) for file in sorted((scratch / "debs").glob("*.deb"))}
        if source.digest not in found:
            last = said.strip().splitlines()[-1:] or ["the archive has another version by now"]
            raise DownloadError(f"{key_of(source)}: cannot be had from Debian's archive: {last[0]}", hint=_HINT)


def _download(program: str, source: DebianPackage, scratch: Path) -> str:
    """Have mmdebstrap fetch what it would install, and nothing installed; returns its complaints."""
    (scratch / "debs").mkdir()
    command = [
        *(program, "--variant=extract", f"--include={source.brought_by}", "--architectures=amd64"),
        *("--components=main,contrib,non-free", "--skip=essential/unlink,cleanup"),
        f"--extract-hook=sync-out /var/cache/apt/archives {scratch / 'debs'}",
        *(source.suite, "/dev/null"),
    ]
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TMPDIR": str(scratch), **for_apt()}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it has not answered for {_TIMEOUT_S / 60:.0f} min"
    return without_logins(done.stderr) if done.returncode else ""
