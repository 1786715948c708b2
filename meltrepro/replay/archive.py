"""The file format of a bundle: a plain tar that any tool can list, which we read by its own index alone.

The first member, `bundle.json`, names every other member with its size and sha256, in order; the last one,
`bundle.sha256`, holds the digest of the index. Everything but the contents follows from the index, so the reader
predicts each header byte by byte and compares: links, devices, escaping names, swapped, added or missing members and
trailing data cannot even be expressed without being noticed, and a flipped byte is reported with its member's name.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from meltrepro.build.image import EPOCH
from meltrepro.errors import BundleError

INDEX, SEAL = "bundle.json", "bundle.sha256"
FORMAT = 1
_INDEX_LIMIT = 64 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file of a bundle."""

    size: int
    digest: str


@dataclass(frozen=True)
class Index:
    """What a bundle says about itself."""

    about: Mapping[str, object]
    """Name, versions, campaigns, withheld files: for people and for `bundle import`."""
    members: Mapping[str, Member]


def write(path: Path, about: Mapping[str, object], files: Mapping[str, Path | bytes]) -> Index:
    """Write a bundle of these files; the same files give the same bytes. Nothing is left behind where it fails."""
    members = {name: _describe(content) for name, content in sorted(files.items())}
    for name in members:
        _check_name(name)
    document = {
        "format": FORMAT,
        "about": dict(about),
        "members": {name: {"size": m.size, "sha256": m.digest} for name, m in members.items()},
    }
    index = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("wb") as out:
            _put(out, INDEX, index)
            for name in members:
                _put(out, name, files[name])
            _put(out, SEAL, _seal(index))
            out.write(b"\0" * 1024)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BundleError(
            f"cannot write {path}: {error.strerror or error}", hint="free some space, or choose another place with -o"
        ) from error
    return Index(about, members)


def read_index(path: Path) -> Index:
    """The index of a bundle, without checking its members."""
    with _open(path) as file:
        return _parse(_read_index(file))


def verify(path: Path, take: Callable[[str, Iterator[bytes]], None] | None = None) -> Index:
    """Check every byte of a bundle; raises `BundleError` that names the first bad member.

    `take` gets each member's name and its contents in pieces as they are read. The digest is known only at the end of a
    member: whoever takes must keep it aside until `verify` has returned.
    """
    with _open(path) as file:
        raw = _read_index(file)
        index = _parse(raw)
        for name, member in index.members.items():
            _expect(file, _header(name, member.size), name)
            digest = hashlib.sha256()
            pieces = _pieces(file, name, member.size, digest.update)
            if take is not None:
                take(name, pieces)
            for _ in pieces:
                pass
            if digest.hexdigest() != member.digest:
                raise BundleError(
                    f"{path.name}: {name} is damaged: sha256 is {digest.hexdigest()}, expected {member.digest}"
                )
            _expect(file, _padding(member.size), name)
        seal = _seal(raw)
        _expect(file, _header(SEAL, len(seal)) + seal + _padding(len(seal)) + b"\0" * 1024, SEAL)
        if file.read(1):
            raise BundleError(f"{path.name}: there is something behind the end of the bundle")
    return index


# -- reading ------------------------------------------------------------------------------------------------------


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error


def _read_index(file: BinaryIO) -> bytes:
    head = file.read(512)
    try:
        size = tarfile.TarInfo.frombuf(head, "utf-8", "strict").size
    except tarfile.HeaderError as error:
        raise BundleError("this is not a bundle of meltrepro", hint="make one with: meltrepro bundle export") from error
    if head != _header(INDEX, size) or not 0 < size <= _INDEX_LIMIT:
        raise BundleError(f"this is not a bundle of meltrepro: its first member is not a {INDEX} as we write it")
    raw = b"".join(_pieces(file, INDEX, size, lambda _: None))
    _expect(file, _padding(size), INDEX)
    return raw


def _parse(raw: bytes) -> Index:
    try:
        document = json.loads(raw)
        if document["format"] != FORMAT:
            raise BundleError(f"{INDEX}: format {document['format']!r}, expected {FORMAT}", hint="update meltrepro")
        members = {
            str(name): Member(int(entry["size"]), str(entry["sha256"])) for name, entry in document["members"].items()
        }
        about = dict(document["about"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{INDEX} is damaged: {type(error).__name__}: {error}") from error
    for name, member in members.items():
        _check_name(name)
        if member.size < 0:
            raise BundleError(f"{INDEX}: {name} has a negative size")
    return Index(about, members)


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    plain = path.as_posix() == name and not path.is_absolute() and ".." not in path.parts and name not in ("", ".")
    if not plain or "\\" in name or "\0" in name or name in (INDEX, SEAL):
        raise BundleError(f"unsafe member name {name!r}: it could be written outside of the folder it is unpacked to")


def _pieces(file: BinaryIO, name: str, size: int, seen: Callable[[bytes], None]) -> Iterator[bytes]:
    left = size
    while left:
        piece = file.read(min(left, _CHUNK))
        if not piece:
            raise BundleError(f"the bundle ends in the middle of {name}: {left} of {size} bytes are missing")
        left -= len(piece)
        seen(piece)
        yield piece


def _expect(file: BinaryIO, expected: bytes, name: str) -> None:
    found = file.read(len(expected))
    if found != expected:
        short = "the bundle ends before" if len(found) < len(expected) else "the bundle is damaged around"
        raise BundleError(f"{short} {name}: its entry is not the one that the index asks for")


# -- writing ------------------------------------------------------------------------------------------------------


def _describe(content: Path | bytes) -> Member:
    if isinstance(content, bytes):
        return Member(len(content), hashlib.sha256(content).hexdigest())
    with content.open("rb") as file:
        return Member(content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _put(out: BinaryIO, name: str, content: Path | bytes) -> None:
    if isinstance(content, bytes):
        out.write(_header(name, len(content)) + content + _padding(len(content)))
        return
    size = content.stat().st_size
    out.write(_header(name, size))
    with content.open("rb") as file:
        while piece := file.read(_CHUNK):
            out.write(piece)
    out.write(_padding(size))


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, EPOCH, 0o644
    return entry.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % 512)


def _seal(index: bytes) -> bytes:
    return (hashlib.sha256(index).hexdigest() + "\n").encode()
