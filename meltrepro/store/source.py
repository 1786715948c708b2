"""What every kind of source has in common: its name, its pin, and the seam behind which each kind is one module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import Field

from meltrepro.manifest.base import Bytes, Label, Sha256, Strict
from meltrepro.manifest.shapes import TOKENIZERS
from meltrepro.manifest.sources import (
    DebianPackage,
    FileSource,
    FolderSource,
    GitSource,
    HuggingFaceSource,
    NpmPackage,
    PypiSource,
    Source,
    SyntheticSource,
    UrlSource,
)
from meltrepro.store.names import project_name, redact

if TYPE_CHECKING:
    from meltrepro.steps import Sink
    from meltrepro.store.cas import Store
    from meltrepro.store.download import Downloader

GENERATOR = 1
"""Version of what writes synthetic weights: another one writes other bytes, and is part of their name."""

S_contra = TypeVar("S_contra", contravariant=True)


class Pin(Strict):
    """A source with every question answered; holds neither servers of package indexes nor secrets."""

    source: str = Field(description="Canonical name of the source, see `key_of`.")
    digest: Sha256 = Field(description="sha256 of the bytes that are used.")
    size: Bytes = Field(description="Their number.")
    filename: Label | None = Field(default=None, description="File that they come from, or out of.")
    url: str | None = Field(default=None, description="Where they come from, for a source that is itself a URL.")
    archive_digest: Sha256 | None = Field(default=None, description="sha256 of the file that they are a member of.")
    archive_size: Bytes | None = None
    claimed: bool = Field(
        default=False,
        description="Whether the bytes were here before, and only a manifest or lock says that they are these.",
    )

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True)


@dataclass(frozen=True)
class Context:
    """What a source needs to answer: where bytes go, how they come, what relative paths count from."""

    store: Store
    downloader: Downloader
    base: Path
    sink: Sink


class Provider(Protocol[S_contra]):
    def resolve(self, source: S_contra, context: Context) -> Pin:
        """Find out what the source is; transfers its bytes into the store only where nothing less will tell.

        Raises `SourceError` and its kin.
        """
        ...

    def fetch(self, source: S_contra, pin: Pin, context: Context) -> None:
        """Bring the pinned bytes into the store; raises `SourceError` and its kin."""
        ...

    def transfer_size(self, source: S_contra, context: Context) -> int | None:
        """How many bytes a fetch would transfer, where that can be told without it; quick, and silent about errors."""
        return None


def key_of(source: Source) -> str:
    """The canonical name of a source in locks, mirror maps, messages and the store; holds no secrets."""
    match source:
        case PypiSource():
            member = f":{source.member}" if source.member else ""
            return f"pypi:{project_name(source.pypi)}=={source.version}:{source.filename or source.kind}{member}"
        case HuggingFaceSource():
            file = f":{source.file}" if source.file else ""
            commit = f"@{source.revision}" if source.revision else ""
            return f"huggingface:{source.huggingface}{commit}{file}"
        case GitSource():
            return f"git:{redact(source.git)}@{source.commit}"
        case UrlSource():
            return f"url:{redact(source.url)}"
        case DebianPackage():
            return f"debian:{source.file}"
        case NpmPackage():
            return f"npm:{source.file}"
        case FileSource():
            return f"file:{source.file}"
        case FolderSource():
            return f"folder:{source.folder}"
        case SyntheticSource():
            tail = f":{source.format}" if source.format else ""
            shape = source.shape
            words = f":{TOKENIZERS[shape.tokenizer].digest[:12]}" if shape.tokenizer else ""
            return f"synthetic:{shape.name}:{source.seed}:{GENERATOR}{words}{tail}"


def is_synthetic(key: str) -> bool:
    """Whether a canonical name is that of made-up weights, which any machine can make again."""
    return key.startswith("synthetic:")
