"""Archives: deterministic tars out of folders, safe folders out of tars, single members out of packages.

An archive is untrusted. Nothing of it decides where something is written: names are checked before the first byte,
and whatever is not a plain file or a folder (links, devices) is refused. Links are kept only where a root file system
is unpacked, and nothing is written through one. None of it relies on tarfile's filters, which Python has since 3.11.4
and could be got around until 3.11.13.
"""

from __future__ import annotations

import difflib
import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from meltrepro.atomic import HashingWriter, reason_of, writing
from meltrepro.errors import SourceError, StoreError
from meltrepro.store.globs import Glob

EPOCH = 1735689600
"""Time of every image, layer, member and file that we make: 2025-01-01, in seconds since 1970."""
_CHUNK = 1 << 20
_Members = dict[PurePosixPath, tarfile.TarInfo]
_LONGEST = 4096
"""Characters of a member's name; no file system takes more."""
_LONG, _MANY = 128, 1000
"""Characters of a name, and number of names, among which one that is nearly right is looked for."""
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a compression method that zipfile does not know
    RuntimeError,  # an encrypted member
    UnicodeDecodeError,
    OverflowError,  # a number in a header that no file can have
    ValueError,
)


def member_header(name: str, size: int) -> bytes:
    """The header of a plain file in a tar that we write ourselves; `padding` comes behind its content."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, EPOCH, 0o644
    return entry.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What fills the last block of a file of so many bytes."""
    return b"\0" * (-size % tarfile.BLOCKSIZE)


# -- folders ------------------------------------------------------------------------------------------------------


def pack_tree(folder: Path, destination: Path, *, prefix: str = "", links: bool = False) -> str:
    """Pack a folder into a tar that depends on names, contents and executable bits alone; return its sha256.

    Every member lies below `prefix`. Raises `StoreError` for anything but files, folders and, with `links`, symbolic
    links, which are kept as they are.
    """
    with writing(destination), destination.open("wb", buffering=0) as raw:
        writer = HashingWriter(raw, destination)
        with tarfile.open(
            fileobj=writer,
            mode="w|",
            format=tarfile.GNU_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
            bufsize=_CHUNK,
        ) as tar:
            for path, relative in _tree(folder):
                info = path.lstat()
                entry = tarfile.TarInfo((PurePosixPath(prefix) / relative).as_posix())
                entry.mtime, entry.mode = EPOCH, 0o755
                if stat.S_ISDIR(info.st_mode):
                    entry.type = tarfile.DIRTYPE
                    tar.addfile(entry)
                elif stat.S_ISREG(info.st_mode):
                    entry.size = info.st_size
                    entry.mode = 0o755 if info.st_mode & 0o100 else 0o644
                    with _open(path) as file:
                        tar.addfile(entry, file)
                elif links and stat.S_ISLNK(info.st_mode):
                    entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
                    tar.addfile(entry)
                else:
                    raise StoreError(f"{path}: only files and folders can be packed")
        return writer.digest


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {reason_of(error)}") from error


def _tree(folder: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    """Everything below a folder with its relative path, ordered by the bytes of that path."""
    found = [Path(parent) / name for parent, folders, files in os.walk(folder) for name in (*folders, *files)]
    relative = {path: PurePosixPath(path.relative_to(folder)) for path in found}
    yield from sorted(relative.items(), key=lambda item: os.fsencode(item[1]))


def unpack_tree(tar: Path, folder: Path, name: str) -> None:
    """Unpack an uncompressed tar, called `name` in messages, into a new, read-only folder.

    Raises `SourceError` for a tar that is damaged or holds anything but plain files and folders inside `folder`, and
    `StoreError` where the disk does not take them.
    """
    with _undamaged(name), tarfile.open(tar, "r:", encoding="utf-8", errors="surrogateescape") as archive:
        members = _checked(archive, name)
        with writing(folder):
            folder.mkdir()
            _write(archive, members, folder, lambda mode: 0o555 if mode & 0o100 else 0o444)
            for parent, _, _ in os.walk(folder, topdown=False):
                if Path(parent) != folder:  # who renames the folder itself must still be able to write to it
                    os.chmod(parent, 0o555)


def member_digests(tar: IO[bytes], wanted: Collection[str], name: str) -> dict[str, str]:
    """The sha256 of those files of an uncompressed tar that are wanted and there, by name; raises what `unpack_tree` does."""
    with _undamaged(name), tarfile.open(fileobj=tar, mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        found = {}
        for path, member in _checked(archive, name).items():
            if str(path) in wanted and (content := archive.extractfile(member)) is not None:
                digest = hashlib.sha256()
                while block := content.read(_CHUNK):
                    digest.update(block)
                found[str(path)] = digest.hexdigest()
    return found


def unpack_below(archive: tarfile.TarFile, top: str, folder: Path, name: str) -> None:
    """Unpack an open tar, all of it below its folder `top`, into an empty folder; hard links are kept.

    Raises `SourceError` for anything else than plain files and folders there, `TarError` or `EOFError` for a tar that is
    damaged, and `OSError` where the disk does not take them.
    """
    members = _checked(archive, name, allowed=(tarfile.LNKTYPE,))
    for path, member in members.items():
        if not path.is_relative_to(top) or (path == PurePosixPath(top) and not member.isdir()):
            raise SourceError(f"{name}: unsafe to unpack: {str(path)!r} does not lie below {top}")
    _write(archive, members, folder, _usual, top)


def unpack_root(layers: Sequence[Path], folder: Path, name: str, mount_points: Iterable[str] = ()) -> None:
    """Unpack uncompressed tars into one new folder that will be somebody's root, and make folders to mount on.

    Owners are left out. Links are kept; where a symbolic one leads is a matter of that root, and nothing here goes
    through it. Raises `SourceError` for a layer that is damaged, or holds a device, something that leads out, or
    something where a file or a link already stands, and `OSError` where the disk does not take them.
    """
    with _undamaged(name), ExitStack() as stack:
        known: _Members = {}
        parts = []
        for layer in layers:
            archive = stack.enter_context(tarfile.open(layer, "r:", encoding="utf-8", errors="surrogateescape"))
            parts.append((archive, _checked(archive, name, known, allowed=(tarfile.LNKTYPE, tarfile.SYMTYPE))))
        points = _checked(map(_folder, mount_points), name, known)
        folder.mkdir()
        for archive, members in parts:
            _write(archive, members, folder, _usual)
        for point in points:
            (folder / point).mkdir(parents=True, exist_ok=True)


def _folder(name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    return entry


def _checked(
    entries: Iterable[tarfile.TarInfo], label: str, known: _Members | None = None, allowed: Sequence[bytes] = ()
) -> _Members:
    """The members of a tar by names that are safe to write to, where `known` is already; those are added to it.

    Raises `SourceError` for any that is not safe, or neither a plain file nor a folder nor of a kind that is `allowed`.
    """
    known = {} if known is None else known
    members: _Members = {}
    for member in entries:
        if max(len(member.name), len(member.linkname)) > _LONGEST:
            raise SourceError(
                f"{label}: unsafe to unpack: a name of {len(member.name)} characters, at most {_LONGEST} expected"
            )
        name = PurePosixPath(member.name)
        shown = f"{label}: unsafe to unpack: {member.name!r}"
        if _leads_out(member.name) or (member.islnk() and _leads_out(member.linkname)):
            raise SourceError(f"{shown} leads out of the folder")
        if not (member.isdir() or member.isreg() or member.type in allowed) or member.issparse():
            raise SourceError(f"{shown} is neither a plain file nor a folder")
        if member.islnk():
            target = members.get(PurePosixPath(member.linkname))
            if target is None or not target.isreg():
                raise SourceError(f"{shown} is a link to no file before it")
        before = known.get(name)
        clashes = before is not None and not (before.isdir() and member.isdir())
        if clashes or not (name.parts or member.isdir()):
            raise SourceError(f"{shown} stands where something else of the archive stands")
        members[name] = known[name] = member
    for name in known:
        if any(parent in known and not known[parent].isdir() for parent in name.parents):
            raise SourceError(f"{label}: unsafe to unpack: {str(name)!r} lies below a file")
    return members


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name


def _usual(mode: int) -> int:
    """What `tar` makes of a mode with a umask of 022; its owner can always write, and so remove it."""
    return mode & 0o755 | 0o600


def _write(
    archive: tarfile.TarFile, members: _Members, folder: Path, mode: Callable[[int], int], top: str = ""
) -> None:
    """Write members that were checked, without `top` in their names, below a folder; `mode` is that of its file."""
    for path, member in members.items():
        target = folder / path.relative_to(top)
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            target.chmod(member.mode & 0o755 | 0o700)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.issym():
            target.symlink_to(member.linkname)
        elif member.islnk():
            target.hardlink_to(folder / PurePosixPath(member.linkname).relative_to(top))
        else:
            source = archive.extractfile(member)
            assert source is not None, "a plain file has content"
            with target.open("xb") as file:
                _copy(source, file, member.size)
            target.chmod(mode(member.mode))
            os.utime(target, (EPOCH, EPOCH))


def tree_state(folder: Path) -> dict[str, list[int]]:
    """Mode, size, and times of change of everything below a folder: differs as soon as anything in it was touched."""
    return {
        relative.as_posix(): [info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
        for path, relative in _tree(folder)
        for info in [path.lstat()]
        if not stat.S_ISDIR(info.st_mode)
    }


# -- single members -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """One plain file inside an archive; `size` in bytes, as its header says."""

    name: str
    size: int


@contextmanager
def open_member(archive: Path, pattern: str, name: str) -> Iterator[tuple[Member, IO[bytes]]]:
    """The one member that the glob `pattern` names, open for reading, of a zip or tar that messages call `name`.

    `*` and `?` stop at a slash, `**` does not. Raises `SourceError` where none or several match, or the archive is
    damaged.
    """
    with _undamaged(name):
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as package:
                files = {i.filename: i.file_size for i in package.infolist() if not i.is_dir()}
                member = _choose(name, pattern, files)
                with package.open(member.name) as file:
                    yield member, file
        else:
            with tarfile.open(archive, "r:*") as tar:
                entries = {entry.name: entry for entry in tar if entry.isreg() and not entry.issparse()}
                member = _choose(name, pattern, {path: entry.size for path, entry in entries.items()})
                content = tar.extractfile(entries[member.name])
                assert content is not None, "a plain file has content"
                with content:
                    yield member, content


def _choose(label: str, pattern: str, files: dict[str, int]) -> Member:
    matches = [pattern] if pattern in files else list(filter(Glob(pattern).matches, files))
    if len(matches) == 1:
        return Member(matches[0], files[matches[0]])
    if matches:
        raise SourceError(
            f"{label}: {len(matches)} members match {pattern!r}: {_listing(matches)}",
            hint="write a pattern that only one of them matches",
        )
    wanted = PurePosixPath(pattern).name
    names = islice((name for path in files if len(name := PurePosixPath(path).name) <= _LONG), _MANY)
    near = difflib.get_close_matches(wanted[:_LONG], set(names), n=5, cutoff=0.5)
    candidates = [name for name in files if PurePosixPath(name).name in near]
    candidates = candidates or sorted(files, key=files.__getitem__, reverse=True)
    raise SourceError(
        f"{label}: no member matches {pattern!r}",
        hint=f"did you mean {_listing(candidates)}?" if candidates else "the archive holds no files",
    )


def _listing(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


# -- both ---------------------------------------------------------------------------------------------------------


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    """Turn what the archive libraries raise on damaged files into a `SourceError`."""
    try:
        yield
    except _DAMAGED as error:
        raise SourceError(
            f"{name}: damaged, or not an archive of a known kind: {error or type(error).__name__}",
            hint="see that the source names the file you mean",
        ) from error


def _copy(source: IO[bytes], file: IO[bytes], size: int) -> None:
    """Copy exactly `size` bytes; raises `EOFError` where there are fewer."""
    left = size
    while left:
        block = source.read(min(_CHUNK, left))
        if not block:
            raise EOFError(f"ends {left} bytes early")
        file.write(block)
        left -= len(block)
