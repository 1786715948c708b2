"""Entries of strangers from a folder: each is checked, and what is not taken stands in a list with its reason."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from meltrepro import untrusted
from meltrepro.errors import EntryError, WrongSignature
from meltrepro.publish import signature
from meltrepro.publish.entry import MOST_BYTES, PublicEntry, parse_entry
from meltrepro.publish.signature import SignerKey
from meltrepro.untrusted import NotPlain, shown
from meltrepro.words import visible

ENDING = ".json"
MOST_FILES = 10_000
"""In one folder."""
_SHOWN = 300


class Standing(StrEnum):
    """Who vouches for an entry, from the best to the worst."""

    known = "signed"
    unknown = "unknown signer"
    unsigned = "unsigned"


class RefusalKind(StrEnum):
    """Why an entry is not taken."""

    damaged = "damaged"
    too_large = "too large"
    wrong_signature = "wrong signature"
    duplicate = "duplicate"
    unsigned = "unsigned"
    unreadable = "unreadable"


@dataclass(frozen=True)
class Refusal:
    """A file that is not taken."""

    file: str
    kind: RefusalKind
    detail: str

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}: {self.detail}"


@dataclass(frozen=True)
class Collected:
    """An entry that is taken."""

    file: str
    """Its path below the folder."""
    entry: PublicEntry
    content: bytes
    signature: bytes | None
    standing: Standing
    key: SignerKey | None = None
    signer: str = ""
    """Who signed, as the list of signers has it; empty where nobody there has that key."""


@dataclass(frozen=True)
class Collection:
    """All that a folder holds."""

    taken: tuple[Collected, ...]
    refused: tuple[Refusal, ...]


def collect(folder: Path, signers: Path | None = None, *, signed_only: bool = False) -> Collection:
    """The entries of a folder and of those below it, by path; `signers` is an `allowed_signers` file of OpenSSH.

    With `signed_only` what nobody in that file vouches for is refused. Raises `EntryError` where the folder cannot be read.
    """
    if not folder.is_dir():
        raise EntryError(f"{shown(folder)} is no folder", hint="name the folder that the entries are in")
    if signers is not None and not signers.is_file():
        raise EntryError(
            f"{shown(signers)}: there is no such file of signers", hint="docs/publish.md says how to make one"
        )
    known: dict[SignerKey, str | None] = {}
    taken: list[Collected] = []
    refused: list[Refusal] = []
    for name in _files(folder):
        found = _read(folder, name)
        if isinstance(found, Collected):
            found = _vouched(found, signers, known, signed_only=signed_only)
        if isinstance(found, Collected):
            taken.append(found)
        else:
            refused.append(found)
    unique, doubled = _unique(taken)
    return Collection(unique, tuple(sorted((*refused, *doubled), key=lambda one: one.file)))


def _files(folder: Path) -> Sequence[str]:
    found: list[str] = []

    def fail(error: OSError) -> None:
        raise EntryError(f"{shown(Path(str(error.filename)))} cannot be read: {error.strerror}") from error

    for inside, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            str(Path(inside, name).relative_to(folder))
            for name in names
            if name.endswith(ENDING) and not name.startswith(".")
        ]
        if len(found) > MOST_FILES:
            raise EntryError(
                f"{shown(folder)} holds more than {MOST_FILES:,} entries", hint="make several galleries of it"
            )
    return sorted(found)


def _read(folder: Path, name: str) -> Collected | Refusal:
    path, called = folder / name, shown(Path(name))[:_SHOWN]

    def refused(kind: RefusalKind, detail: object) -> Refusal:
        return Refusal(called, kind, visible(" ".join(str(detail).split()))[:_SHOWN])

    try:
        content = untrusted.read(path, MOST_BYTES)
        beside = path.with_name(path.name + signature.SUFFIX)
        signed = untrusted.read(beside, signature.MOST_BYTES) if os.path.lexists(beside) else None
    except NotPlain as error:
        kind = RefusalKind.too_large if error.errno == errno.EFBIG else RefusalKind.unreadable
        return refused(kind, error.strerror)
    except OSError as error:
        return refused(RefusalKind.unreadable, error.strerror or error)
    try:
        entry = parse_entry(content)
    except ValueError as error:
        return refused(RefusalKind.damaged, error)
    if signed is None:
        return Collected(called, entry, content, None, Standing.unsigned)
    try:
        key = signature.check(content, signed)
    except WrongSignature as error:
        return refused(RefusalKind.wrong_signature, error.message)
    return Collected(called, entry, content, signed, Standing.unknown, key)


def _vouched(
    found: Collected, signers: Path | None, known: dict[SignerKey, str | None], *, signed_only: bool
) -> Collected | Refusal:
    key = found.key
    if key is not None and found.signature is not None and signers is not None:
        if key not in known:  # whose a key is does not depend on what it signed
            known[key] = signature.principal(signers, found.content, found.signature)
        if (name := known[key]) is not None:
            return replace(found, standing=Standing.known, signer=visible(name)[:_SHOWN])
    if signed_only:
        why = "nobody signed it" if key is None else f"no signer of the list has the key {key.fingerprint}"
        return Refusal(found.file, RefusalKind.unsigned, why)
    return found


def _unique(taken: Sequence[Collected]) -> tuple[tuple[Collected, ...], tuple[Refusal, ...]]:
    """The entries with a cell that no better vouched one has, these first: two may be of other cells of one record."""
    order = list(Standing)
    holders: dict[tuple[str, int], str] = {}
    kept, doubled = [], []
    for one in sorted(taken, key=lambda one: (order.index(one.standing), one.file)):
        cells = [(one.entry.campaign.record, cell.number) for cell in one.entry.cells]
        if all(cell in holders for cell in cells):
            detail = f"{holders[cells[0]]} has the same cells of the same record"
            doubled.append(Refusal(one.file, RefusalKind.duplicate, detail))
            continue
        kept.append(one)
        for cell in cells:
            holders.setdefault(cell, one.file)
    return tuple(kept), tuple(doubled)


def counts(collection: Collection) -> Mapping[str, int]:
    """How many entries stand how, and how many are refused for what."""
    found = [str(one.standing) for one in collection.taken] + [f"refused: {one.kind}" for one in collection.refused]
    return {name: found.count(name) for name in dict.fromkeys(found)}
