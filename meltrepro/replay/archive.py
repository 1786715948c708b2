"""The file format of a bundle: a plain tar that any tool can list, which we read by its own index alone.

The first member, `bundle.json`, names every other member with its size and sha256, in order; the last one,
`bundle.sha256`, holds the digest of the index and is read before it. Everything but the contents follows from the index, so the reader
predicts each header byte by byte and compares: links, devices, escaping names, swapped, added or missing members and
trailing data cannot even be expressed without being noticed, and a flipped byte is reported with its member's name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO

from pydantic import Field

from meltrepro import untrusted
from meltrepro.errors import BundleError, EscapingPath, TruncatedBundle, UnsafeMember
from meltrepro.manifest.base import Sha256, Strict
from meltrepro.store.archive import member_header, padding
from meltrepro.untrusted import as_model, load_json, open_regular
from meltrepro.words import shorten

INDEX, SEAL = "bundle.json", "bundle.sha256"
FORMAT = 1
_INDEX_LIMIT = 16 << 20
_CHUNK = 1 << 20
_LONGEST_NAME = 255
"""Bytes in one component of a path that every file system takes."""
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.DIRTYPE: "a folder",
    tarfile.FIFOTYPE: "a pipe",
}
_LONGEST_PATH = 1024
_AGAIN = "get it again from where it came from, or make it anew with: meltrepro bundle export"


class BundleMember(Strict):
    """One file of a bundle, as the index has it."""

    size: Annotated[int, Field(strict=True, ge=0, le=1 << 50)]
    """Bytes; at most more than any disk holds."""
    sha256: Sha256


@dataclass(frozen=True)
class Index:
    """What a bundle says about itself."""

    about: Mapping[str, object]
    """Name, versions, campaigns, withheld files: for people and for `bundle import`."""
    members: Mapping[str, BundleMember]

    @property
    def withheld(self) -> tuple[str, ...]:
        """Digests of what may not be passed on and was left out."""
        found = self.about.get("withheld")
        return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """What members are for people, by name."""
        found = self.about.get("labels")
        return {name: str(label) for name, label in found.items() if label} if isinstance(found, dict) else {}

    def label(self, name: str) -> str:
        """A member's name, with what it is for people."""
        return f"{name} ({shorten(self.labels[name], 200)})" if name in self.labels else name


def write(path: Path, about: Mapping[str, object], files: Mapping[str, Path | bytes]) -> Index:
    """Write a bundle of these files; the same files give the same bytes. Nothing is left behind where it fails."""
    members = {name: _describe(content) for name, content in sorted(files.items())}
    for name in members:
        _check_name(name)
    document = {
        "format": FORMAT,
        "about": dict(about),
        "members": {name: member.model_dump() for name, member in members.items()},
    }
    index = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("wb") as out:
            _put(out, INDEX, index)
            for name in members:
                _put(out, name, files[name])
            out.write(_tail(index))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BundleError(
            f"cannot write {path}: {error.strerror or error}", hint="free some space, or choose another place with -o"
        ) from error
    return Index(about, members)


def verify(path: Path, take: Callable[[str, Iterator[bytes]], None] | None = None) -> Index:
    """Check every byte of a bundle; raises `BundleError` or one of its kin that names the first bad member.

    `take` gets each member's name and its contents in pieces as they are read. The digest is known only at the end of a
    member: whoever takes must keep it aside until `verify` has returned.
    """
    with _open(path) as file:
        raw = _read_index(file)
        _check_seal(file, raw)
        index = parse_index(raw)
        for name, member in index.members.items():
            _expect(file, member_header(name, member.size), index.label(name))
            digest = hashlib.sha256()
            pieces = _pieces(file, index.label(name), member.size, digest.update)
            if take is not None:
                take(name, pieces)
            for _ in pieces:
                pass
            _check_digest(path, index, name, digest.hexdigest())
            _expect(file, padding(member.size), index.label(name))
        _expect(file, _tail(raw), SEAL)
        if file.read(1):
            raise BundleError(f"{path.name}: there is something behind the end of the bundle", hint=_AGAIN)
    return index


def peek(path: Path, wanted: Collection[str]) -> tuple[Index, dict[str, bytes]]:
    """The index of a bundle and a few of its small members, verified, without reading the others.

    Raises `TruncatedBundle` where its end is missing, and otherwise what `verify` raises.
    """
    with _open(path) as file:
        raw = _read_index(file)
        _check_seal(file, raw)
        index = parse_index(raw)
        starts, at = {}, file.tell()
        for name, member in index.members.items():
            starts[name] = at
            at += len(member_header(name, member.size)) + member.size + len(padding(member.size))
        whole, here = at + len(_tail(raw)), file.seek(0, os.SEEK_END)
        if here < whole:
            with contextlib.suppress(TruncatedBundle):
                verify(path)  # what is shorter because it is a link or a device is called that
            raise TruncatedBundle(
                f"only {here} of the bundle's {whole} bytes are here: it was not copied to its end", hint=_AGAIN
            )
        contents = {}
        for name in wanted:
            size = index.members[name].size if name in index.members else _INDEX_LIMIT + 1
            if size > _INDEX_LIMIT:
                continue
            file.seek(starts[name])
            _expect(file, member_header(name, size), index.label(name))
            contents[name] = b"".join(_pieces(file, index.label(name), size, lambda _: None))
            _check_digest(path, index, name, hashlib.sha256(contents[name]).hexdigest())
    return index, contents


# -- reading ------------------------------------------------------------------------------------------------------


def _check_digest(path: Path, index: Index, name: str, found: str) -> None:
    if found != index.members[name].sha256:
        raise BundleError(
            f"{path.name}: {index.label(name)} is damaged: sha256 is {found}, expected {index.members[name].sha256}",
            hint=_AGAIN,
        )


def _open(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise BundleError(
            f"cannot read {path}: {error.strerror or error}", hint="name the file of a bundle that this user may read"
        ) from error


def _read_index(file: BinaryIO) -> bytes:
    head = file.read(512)
    if len(head) < 512 and INDEX.encode().startswith(head[: len(INDEX)]):
        raise TruncatedBundle(f"the bundle ends in the header of {INDEX}, after {len(head)} bytes", hint=_AGAIN)
    found = _header_in(head)
    size = found.size if found is not None else 0
    if not 0 < size <= _INDEX_LIMIT or head != member_header(INDEX, size):
        raise BundleError(
            f"this is not a bundle of meltrepro, or the header of its first member, {INDEX}, is damaged", hint=_AGAIN
        )
    raw = b"".join(_pieces(file, INDEX, size, lambda _: None))
    _expect(file, padding(size), INDEX)
    return raw


def parse_index(raw: bytes) -> Index:
    try:
        document = load_json(raw)
        if document["format"] != FORMAT:
            raise BundleError(
                f"{INDEX}: format version {shorten(repr(document['format']))}, expected {FORMAT}",
                hint="read it with the version of meltrepro that wrote it",
            )
        members = {name: as_model(BundleMember, entry) for name, entry in document["members"].items()}
        about = dict(document["about"].items())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BundleError(f"{INDEX} is damaged: {type(error).__name__}: {error}", hint=_AGAIN) from error
    for name in members:
        _check_name(name)
        below = next((str(parent) for parent in PurePosixPath(name).parents if str(parent) in members), None)
        if below is not None:
            raise BundleError(f"{INDEX}: {name} lies below {below}, which is a file", hint=_AGAIN)
    return Index(about, members)


def _check_name(name: str) -> None:
    if len(name) > _LONGEST_PATH:
        raise BundleError(f"unsafe member name {shorten(name)!r}: meltrepro writes none so long", hint=_AGAIN)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise EscapingPath(
            f"unsafe member name {name!r}: it could be written outside of the folder it is unpacked to",
            hint="do not trust this bundle: meltrepro writes none such",
        )
    fits = _is_text(name) and all(len(part.encode()) <= _LONGEST_NAME for part in path.parts)
    if path.as_posix() != name or name in ("", ".", INDEX, SEAL) or not fits:
        raise BundleError(f"unsafe member name {name!r}: meltrepro writes none such", hint=_AGAIN)


def _is_text(name: str) -> bool:
    """Whether a name has bytes in UTF-8 and none that ends it early."""
    return "\0" not in name and not any("\ud800" <= character <= "\udfff" for character in name)


def _pieces(file: BinaryIO, name: str, size: int, seen: Callable[[bytes], None]) -> Iterator[bytes]:
    left = size
    while left:
        piece = file.read(min(left, _CHUNK))
        if not piece:
            raise TruncatedBundle(
                f"the bundle ends in the middle of {name}: {left} of {size} bytes are missing", hint=_AGAIN
            )
        left -= len(piece)
        seen(piece)
        yield piece


def _expect(file: BinaryIO, expected: bytes, name: str) -> None:
    """Read what follows from the index; raises what fits where it is something else."""
    found = file.read(len(expected))
    if found == expected:
        return
    if expected.startswith(found):
        raise TruncatedBundle(
            f"the bundle ends around {name}: {len(expected) - len(found)} bytes of its entry are missing", hint=_AGAIN
        )
    entry = _header_in(found[:512])
    if entry is not None and entry.type in _KINDS:
        target = f" to {entry.linkname!r}" if entry.linkname else ""
        raise UnsafeMember(
            f"{name} is {_KINDS[entry.type]}{target}, expected a plain file as the index has it",
            hint="do not trust this bundle: meltrepro writes none such",
        )
    if entry is not None and entry.isreg():
        _check_name(entry.name)
    raise BundleError(f"the bundle is damaged around {name}: its entry is not as the index has it", hint=_AGAIN)


def _header_in(block: bytes) -> tarfile.TarInfo | None:
    """The tar header that a block of 512 bytes is, if it is one."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None


def _check_seal(file: BinaryIO, index: bytes) -> None:
    """Compare the index with the seal at the very end, before the index is believed; the file stays where it was.

    Where the end is no seal, nothing is said: reading on finds out what is wrong there.
    """
    expected, here = _tail(index), file.tell()
    start = max(file.seek(0, os.SEEK_END) - len(expected), 0)
    file.seek(start)
    found = file.read()
    file.seek(here)
    at = slice(512, 512 + len(_seal(index)))
    if found[: at.start] + expected[at] + found[at.stop :] != expected or found == expected:
        return
    # Digests of different texts agree in few places by chance; a seal that is nearly right was damaged itself.
    same = sum(a == b for a, b in zip(found[at], expected[at], strict=True))
    name = SEAL if same > len(expected[at]) // 2 else INDEX
    raise BundleError(
        f"{name} is damaged: {INDEX} has sha256 {_shown(expected[at])}, {SEAL} says {_shown(found[at])}", hint=_AGAIN
    )


def _shown(seal: bytes) -> str:
    return seal.decode("ascii", "backslashreplace").rstrip("\n")


# -- writing ------------------------------------------------------------------------------------------------------


def _describe(content: Path | bytes) -> BundleMember:
    if isinstance(content, bytes):
        return BundleMember(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    with untrusted.opened(content, None) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return BundleMember(size=os.fstat(file.fileno()).st_size, sha256=digest)


def _put(out: BinaryIO, name: str, content: Path | bytes) -> None:
    if isinstance(content, bytes):
        out.write(member_header(name, len(content)) + content + padding(len(content)))
        return
    with untrusted.opened(content, None) as file:
        size = os.fstat(file.fileno()).st_size
        out.write(member_header(name, size))
        while piece := file.read(_CHUNK):
            out.write(piece)
    out.write(padding(size))


def _seal(index: bytes) -> bytes:
    return (hashlib.sha256(index).hexdigest() + "\n").encode()


def _tail(index: bytes) -> bytes:
    """Everything behind the last member."""
    seal = _seal(index)
    return member_header(SEAL, len(seal)) + seal + padding(len(seal)) + b"\0" * 1024
