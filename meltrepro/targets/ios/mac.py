"""A Mac behind SSH: commands with their output as it comes, and files by their digest. It measures nothing; it builds.

Commands are those of macOS, whose tools are BSD's, and each ends when the link to it does: what reads its input to the end
then kills its process group.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from meltrepro.errors import StoreError, TargetError
from meltrepro.targets.base import Progress, silent
from meltrepro.targets.remote.deploy import pieces
from meltrepro.targets.remote.link import Link
from meltrepro.targets.remote.shell import Shell
from meltrepro.untrusted import whole_number

_PATH = 'PATH="$PATH:/opt/homebrew/bin:/usr/local/bin"; export PATH'
"""Sessions of SSH read no profile, and Homebrew's programs are not in the usual path."""
_RUN = (
    'cd "$1" || exit 1; mark=$2; shift 2; ' + _PATH + "; exec 3<&0; "
    "{ cat <&3 > /dev/null; kill -9 0; } > /dev/null 2>&1 & watch=$!; "
    '"$@" < /dev/null 2>&1 3<&-; status=$?; kill "$watch" 2> /dev/null; '
    'printf "\\n%s %s\\n" "$mark" "$status"; cat <&3 > /dev/null; exit 0'
)
_SUM = 'sum() { shasum -a 256 "$1" 2> /dev/null || sha256sum "$1"; }; '
_OLD = "find . -type f -mtime +7 -exec rm -f {} + ; find .. -maxdepth 1 -name 'build-*' -mtime +7 -exec rm -rf {} + ; "
"""What a build has left that broke off and was never taken up again."""
_LOOK = (
    'mkdir -p "$1" && cd "$1" || exit 1; '
    + _OLD
    + 'if [ -f "$2" ]; then echo whole; elif [ -f "$2.part" ]; then wc -c < "$2.part"; else echo 0; fi'
)
_APPEND = 'cat >> "$1"'
_VERIFY = (
    _SUM + 'cd "$1" || exit 1; found=$(sum "$2.part") || exit 1; found=${found%% *}; '
    'if [ "$found" = "$2" ]; then mv "$2.part" "$2" && echo verified; else rm -f "$2.part"; echo "$found"; fi'
)
_DIGEST = _SUM + 'found=$(sum "$1") || exit 1; echo "${found%% *}"'
_QUIET_S = 1800.0
"""A linker may say nothing for long."""
_HASH_S = 300.0


class Mac:
    """One Mac; everything of ours is below `root`, a folder of the user who logs in."""

    def __init__(self, link: Link, root: str, developer_dir: str | None = None) -> None:
        self._shell = Shell(link)
        self.root = root
        self._environment = ["/usr/bin/env", f"DEVELOPER_DIR={developer_dir}"] if developer_dir else []

    @property
    def name(self) -> str:
        """What people call it."""
        return self._shell.link.name

    def run(self, argv: Sequence[str], write: Callable[[str], object], folder: str = ".") -> int:
        """Run a command in a folder, with its output going to `write` as it comes; returns its exit status.

        Raises `TargetLost` where the link breaks, upon which the command ends too.
        """
        mark = secrets.token_hex(8)
        found, rest = re.compile(b"\n" + mark.encode() + rb" (\d+)\n"), b""
        text = codecs.getincrementaldecoder("utf-8")("replace")
        command = ["/bin/sh", "-c", _RUN, "sh", folder, mark, *self._environment, *argv]
        with contextlib.closing(self._shell.open(command)) as running:
            while (end := found.search(rest)) is None:
                keep = len(mark) + 16
                write(text.decode(rest[:-keep]))
                rest = rest[-keep:] + running.receive(_QUIET_S)
            write(text.decode(rest[: end.start()], final=True) + "\n")
            running.finish()
        return int(end[1])

    def ask(self, argv: Sequence[str]) -> tuple[int, str]:
        """Run a command that ends soon; returns its exit status and what it said."""
        said: list[str] = []
        status = self.run(argv, said.append)
        return status, "".join(said).strip()

    def make_folder(self, folder: str) -> None:
        """Make a folder and those above it."""
        self._shell.expect(self._shell.run(["/bin/mkdir", "-p", folder]), f"make {folder}")

    def remove(self, *paths: str) -> None:
        """Remove files and folders, as far as they are there."""
        self._shell.expect(self._shell.run(["/bin/rm", "-rf", "--", *paths], silence_s=_HASH_S), "remove a folder")

    def write(self, path: str, content: bytes) -> None:
        """Write a small file."""
        self._shell.expect(self._shell.script('cat > "$1"', path, source=[content]), f"write {path}")

    def upload(self, local: Path, digest: str, progress: Progress = silent) -> str:
        """Bring a file there unless it is, going on where an earlier try broke off; returns its path.

        Raises `TargetLost` (call again to go on), `TargetError` where the Mac stores other bytes.
        """
        folder, size = f"{self.root}/cas", local.stat().st_size
        for _ in range(2):
            said = self._shell.expect(self._shell.script(_LOOK, folder, digest), f"use {folder}").text
            if said == "whole":
                return f"{folder}/{digest}"
            there = whole_number(said) or 0
            there = there if there <= size else 0
            if there == 0:
                self.remove(f"{folder}/{digest}.part")
            source = pieces(local, there, lambda done: progress(done, size))
            self._shell.expect(self._shell.script(_APPEND, f"{folder}/{digest}.part", source=source), f"write {folder}")
            found = self._shell.script(_VERIFY, folder, digest, silence_s=_HASH_S)
            said = self._shell.expect(found, f"verify {digest[:12]}").text
            if said == "verified":
                return f"{folder}/{digest}"
        raise TargetError(
            f"{self.name}: stored other bytes than were sent: expected sha256 {digest}, found {said[:64]}"
        )

    def fetch(self, path: str, local: Path) -> str:
        """Bring a file here; returns its sha256, which both machines found. Raises `TargetError` where they differ."""
        reply = self._shell.script(_DIGEST, path, silence_s=_HASH_S)
        expected, found = self._shell.expect(reply, f"read {path}").text, hashlib.sha256()
        try:
            with local.open("wb") as file:

                def take(data: bytes) -> None:
                    file.write(data)
                    found.update(data)

                self._shell.expect(self._shell.run(["/bin/cat", path], sink=take), f"read {path}")
        except OSError as error:
            raise StoreError(f"cannot write {local}: {error.strerror or error}") from error
        if found.hexdigest() != expected:
            raise TargetError(
                f"{self.name}: {path} came with other bytes than it has there: sha256 {found.hexdigest()}"
            )
        return expected
