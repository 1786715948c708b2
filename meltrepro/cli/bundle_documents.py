"""What the commands on bundles print with `--json`, like all `documents`."""

from __future__ import annotations

from pathlib import Path

from meltrepro.cli.documents import Document, GapDocument


class BundleDocument(Document):
    """A bundle that was written."""

    path: Path
    """The file."""
    size: int
    """In bytes."""
    sha256: str
    """Of the file."""
    files: int
    """How many it holds."""
    withheld: list[str]
    """Digests of what it leaves out, because it may not be passed on."""


class ClaimDocument(Document):
    """Something that a bundle names by digest."""

    name: str
    """Its name in locks."""
    digest: str
    """sha256 as the bundle says."""
    here: str | None
    """sha256 as this machine found out by itself; `null` where it never did."""


class CheckedBundleDocument(Document):
    """A bundle that is whole; nothing in it is signed."""

    path: Path
    """The file."""
    size: int
    """In bytes."""
    sha256: str
    """Of the file."""
    files: int
    """How many it holds."""
    artifacts: list[ClaimDocument]
    """What it says that was built."""
    sources: list[ClaimDocument]
    """What that was built from."""


class ImportedBundleDocument(Document):
    """What was taken over from a bundle."""

    objects: int
    """How many objects were new."""
    campaigns: list[Path]
    """Folders of its campaigns."""
    gaps: list[GapDocument]
    """What is neither in it nor here."""
