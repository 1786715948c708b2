"""What the commands on public records print with `--json`, like all `documents`."""

from __future__ import annotations

from pathlib import Path

from meltrepro.cli.documents import Document
from meltrepro.publish.entry import PublicEntry


class PublishDocument(Document):
    """An entry, and where it was written."""

    path: Path | None
    """Its file; `null` where nothing was written."""
    signature: Path | None
    """The signature's file; `null` where nobody signed it."""
    fingerprint: str | None
    """Of the key that signed it."""
    size: int
    """In bytes."""
    entry: PublicEntry
    """All that becomes public."""


class RefusalDocument(Document):
    """A file that is not in the gallery."""

    file: str
    """Its path below the folder of entries."""
    kind: str
    """Damaged, too large, wrong signature, duplicate, unsigned or unreadable."""
    detail: str
    """What is wrong."""


class GalleryDocument(Document):
    """A site of entries."""

    page: Path
    """Its page."""
    entries: dict[str, int]
    """How many were taken, by who vouches for them: signed, unknown signer, unsigned."""
    refused: list[RefusalDocument]
    """What was not taken."""
