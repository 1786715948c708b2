"""Files on a device, kept by their digest: what is there is not sent again, and what is sent is verified there.

Verified is the file as the device reads it back, not the stream that it was sent: behind whatever writes the file another
process reads it, so that its digest is known soon after its last byte has come. Nothing waits for the disk itself, as no
copying does: what a device that loses its power forgets shows in size, time or inode.

<root>/cas/<sha256>         a verified file
<root>/cas/<sha256>.ok      its size, time and inode when it was verified: whether it is still the same file
<root>/cas/<sha256>.part    as much of it as has arrived
<root>/folders/<sha256>/    a model that is a folder, or a bundle's libraries: links to files, each in its place
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from meltrepro.errors import StoreError, TargetError
from meltrepro.targets.base import Progress, silent
from meltrepro.targets.remote.link import PIECE
from meltrepro.targets.remote.shell import Shell
from meltrepro.untrusted import whole_number

_READ = 4 * PIECE
_TRIES = 3
"""What was there already may be wrong, and so may a part; what was sent whole may not."""
_ROOM = 1.05
"""Free space asked for, in sizes of the file: file systems that are nearly full lie, and slow down."""
_HASH_BYTES_PER_S = 20 << 20
"""A slow phone hashes this much in a second."""
_LARGE = 16 << 20
"""Bytes from which on a file is read while it is written; a smaller one is hashed sooner than it is worth to look again."""

_PRESENT = """
cd "$1/cas" 2>/dev/null || exit 0
shift
for digest in "$@"; do
    [ -f "$digest.ok" ] && [ "$(stat -c "%s %z %i" "$digest")" = "$(cat "$digest.ok")" ] && echo "$digest"
done 2>/dev/null
exit 0
"""
_LOOK = """
mkdir -p "$1/cas" || exit 1
cd "$1/cas" || exit 1
if [ -f "$2" ]; then
    [ "$(stat -c "%s %z %i" "$2")" = "$(cat "$2.ok" 2>/dev/null)" ] && echo present && exit
    if [ "$(stat -c %s "$2")" = "$3" ]; then mv "$2" "$2.part"; else rm -f "$2"; fi || exit 1
fi
size=$(stat -c %s "$2.part" 2>/dev/null) || size=0
free=$(stat -f -c "%a %S" .) || exit 1
echo "absent $size $free"
"""
_NO_APPEND = (2, 126, 127)
"""Exit statuses of an agent that does not know the command, and of shells that find none."""
# Shells of phones close all but the first three descriptors before a program runs, so each is named where it is used. The
# status of what writes and of what reads go around the pipe; what ended early, with its link, stays to be gone on with.
_STORE = """
part=$1/cas/$2.part
: >> "$part" && exec 3< "$part" 4<&0 || exit 1
sum() { if command -v openssl > /dev/null; then openssl dgst -sha256 -r; else sha256sum; fi; }
said=$({
    {
        if [ "$5" ]; then "$5" append "$part"; else cat >> "$part"; fi <&4 >&2 &
        while [ "$4" ] && kill -0 $!; do cat <&3; sleep 0.05 || sleep 1; done 2> /dev/null
        wait $!
        written=$?
        cat <&3
        echo "$written $?" >&5
    } | sum
} 5>&1)
file=$1/cas/$2 digest=$2 size=$3
set -- $said
[ "$1" = 0 ] || exit "${1:-1}"
[ "$2" = 0 ] && [ "$3" ] || { echo "it cannot be read back" >&2; exit 1; }
[ "$(stat -c %s "$part")" = "$size" ] || { echo "$3"; exit; }
if [ "$3" != "$digest" ]; then
    rm -f "$file.ok" "$part"
    echo "$3"
    exit
fi
chmod 755 "$part" && mv "$part" "$file" && stat -c "%s %z %i" "$file" > "$file.ok.part" || exit 1
mv "$file.ok.part" "$file.ok" && echo verified
"""
_FOLDER = """
mkdir -p "$1/folders/$2" && cd "$1/folders/$2" || exit 1
cas=$1/cas
shift 2
while [ $# -gt 0 ]; do
    case "$1" in */*) mkdir -p "${1%/*}" || exit 1 ;; esac
    ln -sf "$cas/$2" "$1" || exit 1
    shift 2
done
"""
_AT_ONCE = 100
"""Files of a folder that one command names: command lines have an end."""
_CLEAN = """
rm -rf "$1/folders"
cd "$1/cas" 2>/dev/null || exit 0
for file in *; do [ -f "$file" ] && stat -c %s "$file" && rm -f "$file"; done
exit 0
"""
_FORGET = 'cd "$1/cas" 2>/dev/null && rm -f "$2" "$2.ok" "$2.part"'


class DeviceCache:
    """The content-addressed folder of one device, below `root`."""

    def __init__(self, shell: Shell, root: str) -> None:
        self._shell = shell
        self._root = root
        self.agent: str | None = None
        """The bundle's agent on the device, once it is there: it writes faster than the tools of a phone."""

    def path(self, digest: str) -> str:
        """Where a file is, once it was deployed."""
        return f"{self._root}/cas/{digest}"

    def folder(self, digest: str) -> str:
        """Where the folder of an artifact is, once it was made."""
        return f"{self._root}/folders/{digest}"

    def make_folder(self, digest: str, files: Mapping[str, str]) -> None:
        """Make the folder of this digest of files that are there, by their names in it."""
        words = [word for file in files.items() for word in file]
        for first in range(0, len(words), 2 * _AT_ONCE):
            reply = self._shell.script(_FOLDER, self._root, digest, *words[first : first + 2 * _AT_ONCE])
            self._shell.expect(reply, f"make {self.folder(digest)}")

    def present(self, digests: Sequence[str]) -> set[str]:
        """Which of these files are on the device, verified and unchanged since."""
        reply = self._shell.expect(self._shell.script(_PRESENT, self._root, *digests), f"read {self._root}")
        return set(digests) & set(reply.text.split())

    def deploy(self, local: Path, digest: str, progress: Progress = silent) -> str:
        """Bring a file to the device unless it is there, going on where an earlier try broke off; returns its path.

        Raises `TargetLost` (call again to go on), `TargetError` where there is no room or the device stores something
        else, `StoreError` where the local file cannot be read.
        """
        path = self.path(digest)
        try:
            size = local.stat().st_size
        except OSError as error:
            raise StoreError(f"cannot read {local}: {error.strerror}") from error
        found: str | None = None
        for _ in range(_TRIES):  # each look may find what a command left that went on after its link was lost
            state = self._look(digest, size)
            if state[0] == "present":
                return path
            found = self._send(local, digest, size, state, progress)
            if found is None:
                return path
        raise TargetError(
            f"{self._shell.link.name}: stored other bytes than were sent: expected sha256 {digest}, found {found}",
            hint="its storage may be failing; try another one by 'root'",
        )

    def forget(self, digest: str) -> None:
        """Remove a file, verified or not."""
        self._shell.script(_FORGET, self._root, digest)

    def clean(self) -> int:
        """Remove every file; returns how many bytes that freed."""
        reply = self._shell.expect(self._shell.script(_CLEAN, self._root), f"clean {self._root}")
        return sum(whole_number(size) or 0 for size in reply.text.split())

    def _look(self, digest: str, size: int) -> list[str]:
        reply = self._shell.expect(self._shell.script(_LOOK, self._root, digest, str(size)), f"use {self._root}")
        words = reply.text.split()
        if words == ["present"]:
            return words
        if len(words) != 4 or words[0] != "absent" or None in map(whole_number, words[1:]):
            raise TargetError(f"{self._shell.link.name}: a garbled answer about {self._root}: {reply.text[:100]!r}")
        return words

    def _send(self, local: Path, digest: str, size: int, state: list[str], progress: Progress) -> str | None:
        """Send what is missing and verify the whole; returns the digest that was found instead, if any."""
        there, free = int(state[1]), int(state[2]) * int(state[3])
        if there > size:
            self.forget(digest)
            there = 0
        if free < (size - there) * _ROOM:
            raise TargetError(
                f"{self._shell.link.name}: {self._root} has {free:,} bytes free; {local.name} needs {size - there:,}",
                hint="free space on the device, or see: meltrepro devices clean",
            )
        reply = self._shell.script(
            _STORE,
            *(self._root, digest, str(size), "large" if size - there >= _LARGE else "", self.agent or ""),
            source=pieces(local, there, lambda done: progress(done, size)),
            silence_s=30 + size / _HASH_BYTES_PER_S,
        )
        if self.agent and reply.status in _NO_APPEND:
            self.agent = None  # it is that of an older bundle, or gone: it has taken nothing
            return self._send(local, digest, size, state, progress)
        found = self._shell.expect(reply, f"write {self.path(digest)}").text
        return None if found == "verified" else found


def pieces(local: Path, start: int, sent: Callable[[int], None]) -> Iterator[bytes]:
    """A file from some byte on; `sent` hears how far it is. Raises `StoreError`."""
    try:
        with local.open("rb") as file:
            file.seek(start)
            while data := file.read(_READ):
                yield data
                start += len(data)
                sent(start)
    except OSError as error:
        raise StoreError(f"cannot read {local}: {error.strerror}") from error


def members(folder: Path) -> dict[str, Path]:
    """The files of a folder, by their names in it."""
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def digest_of(path: Path) -> str:
    """The sha256 of a file of an artifact, read again only where it changed; raises `StoreError`."""
    try:
        status = path.stat()
        return _read_digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise StoreError(
            f"cannot read {path}: {error.strerror}", hint="build it again with: meltrepro build"
        ) from error


@lru_cache(maxsize=4096)
def _read_digest(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
