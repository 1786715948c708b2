"""Models of several files, each a source of its own: checkpoints, folders of weights in safetensors format; split GGUF files.

Their identity is the sha256 of a listing, a small JSON document with the digest of every file. So nothing is packed or
copied twice, a lock names every file, and what a repository holds besides (other formats, pictures) does not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import StringConstraints

from meltrepro.atomic import reading
from meltrepro.chat.own import FOLDER, in_own_file
from meltrepro.errors import DigestMismatch, SourceError
from meltrepro.manifest.base import Bytes, Sha256, Strict
from meltrepro.manifest.sources import (
    FileSource,
    FolderSource,
    HuggingFaceSource,
    Source,
    files_of,
    is_checkpoint,
    is_split,
)
from meltrepro.store.names import local_path
from meltrepro.store.source import Context, Pin, key_of
from meltrepro.untrusted import parse, read_regular

CONFIG, INDEX, WHOLE = "config.json", "model.safetensors.index.json", "model.safetensors"
TOKENIZERS = ("tokenizer.model", "tokenizer.json")
"""A checkpoint needs one of these."""
_BESIDES = (
    "added_tokens.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "vocab.json",
)
_TEXTS = ("", ".jinja", ".json", ".md", ".model", ".py", ".txt")
"""Endings of files that are no weights, whatever a repository is of."""
_MOST_OF_LISTING = 16 << 20
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")

Parted = HuggingFaceSource | FolderSource | FileSource
"""A checkpoint, or all files of a split model."""


class Listed(Strict):
    digest: Sha256
    size: Bytes


class _Listing(Strict):
    files: dict[Annotated[str, StringConstraints(pattern=rf"^({FOLDER}/)?[A-Za-z0-9][A-Za-z0-9._-]*$")], Listed]


class Pinner(Protocol):
    """What pins the single files; the fetcher."""

    def pin(self, source: Source, base_dir: Path) -> Pin:
        """Find out what a source is."""
        ...


def names(source: Parted, context: Context, mirror: Path | None) -> tuple[str, ...]:
    """The files that a checkpoint or split model consists of, sorted; `mirror` is a local copy of a repository.

    Raises `SourceError` where it cannot be listed, or where its names alone say that it is none or incomplete.
    """
    if not isinstance(source, FolderSource) and (files := files_of(source)):
        return tuple(name.rpartition("/")[2] for name in files)
    if isinstance(source, HuggingFaceSource) and mirror is None:
        from meltrepro.store.huggingface import list_files

        there = list_files(source, context)
    else:
        folder = mirror or local_path(context.base, source.folder if isinstance(source, FolderSource) else "")
        if not folder.is_dir():
            raise SourceError(
                f"{key_of(source)}: {folder} is not a folder"
                if folder.exists()
                else f"{key_of(source)}: {folder} does not exist",
                hint="name the folder of a checkpoint; a relative path counts from the manifest's folder",
            )
        there = _files(folder)
    return chosen(key_of(source), there)


def in_folder(source: FolderSource, folder: Path) -> dict[str, Path]:
    """The files of a checkpoint in a folder on this machine, by name; raises what `names` raises."""
    return {name: folder / name for name in chosen(key_of(source), _files(folder))}


def _files(folder: Path) -> list[str]:
    with reading(folder):
        below = [*folder.iterdir(), *(folder / FOLDER).glob("*")]
        return [path.relative_to(folder).as_posix() for path in below if path.is_file()]


def pin(source: Parted, found: Iterable[str], pinner: Pinner, context: Context) -> Pin:
    """Pin every file and store the listing; raises `DigestMismatch` where the source's own digest is another."""
    pins = {name: pinner.pin(part(source, name), context.base) for name in found}
    listing = _Listing(files={name: Listed(digest=each.digest, size=each.size) for name, each in pins.items()})
    digest = context.store.put_bytes(json.dumps(listing.model_dump(), sort_keys=True, separators=(",", ":")).encode())
    if source.digest not in (None, digest):
        raise DigestMismatch(
            f"{key_of(source)}: pinned to the listing with sha256 {source.digest}, but its files give {digest}"
            + _difference(source, listing, context),
            hint="bring back the files that were pinned; if the change is wanted, pin anew: meltrepro lock --upgrade NAME SPEC",
        )
    return Pin(source=key_of(source), digest=digest, size=sum(each.size for each in pins.values()))


def read(listing: Path) -> Mapping[str, Listed]:
    """The files of a stored listing by name; raises `SourceError` where the object is something else."""
    try:
        return parse(_Listing, read_regular(listing, _MOST_OF_LISTING)).files
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{listing.parent.name}{listing.name} is not the listing of a checkpoint",
            hint="pin the checkpoint anew: meltrepro lock --upgrade NAME SPEC",
        ) from error


def parts(source: Parted, listing: Path) -> dict[str, Source]:
    """The files of a stored listing as sources, each with its digest."""
    return {name: part(source, name, listed.digest) for name, listed in read(listing).items()}


def part(source: Parted, name: str, digest: str | None = None) -> Source:
    if isinstance(source, FolderSource):
        return FileSource(file=f"{source.folder.rstrip('/')}/{name}", digest=digest)
    folder, slash, _ = (source.file or "").rpartition("/")
    return source.model_copy(update={"file": f"{folder}{slash}{name}", "digest": digest})


def is_of(key: str, source: Source) -> bool:
    """Whether a name in a lock is that of a source, or of a file of this checkpoint."""
    if key == key_of(source):
        return True
    if isinstance(source, FolderSource):
        here = f"file:{source.folder.rstrip('/')}"
        return key.rpartition("/")[0] in (here, f"{here}/{FOLDER}")
    if is_split(source):
        return key in {key_of(source.model_copy(update={"file": name})) for name in files_of(source)}
    return is_checkpoint(source) and key.startswith(f"{key_of(source)}:")


def chosen(key: str, there: Iterable[str]) -> tuple[str, ...]:
    """Of all names in a folder, and below it, those that belong to the checkpoint."""
    everywhere = set(there)
    present = {name for name in everywhere if "/" not in name}
    _refuse_others(key, present, sorted(name for name in everywhere if name.lower().endswith(".gguf")))
    if CONFIG not in present:
        shown = ", ".join(sorted(present)[:5]) or "nothing"
        raise SourceError(
            f"{key}: there is no {CONFIG}, so this is no checkpoint; there is {shown}",
            hint="name the folder that Hugging Face's files are in, or one file of a repository with the key 'file'",
        )
    shards = {name: match for name in present if (match := _SHARD.fullmatch(name))}
    weights = {INDEX, *shards} & present if shards else {WHOLE} & present
    if not weights - {INDEX}:
        others = sorted(name for name in present if Path(name).suffix not in _TEXTS)
        raise SourceError(
            f"{key}: there is neither {WHOLE} nor model-00001-of-...; there is {', '.join(others[:3]) or 'no other weight'}",
            hint="only weights in safetensors format are converted; choose a revision that has them",
        )
    for count in {match[2] for match in shards.values()}:
        missing = [i for i in range(1, int(count) + 1) if f"model-{i:05}-of-{count}.safetensors" not in present]
        if missing:
            raise SourceError(
                f"{key}: {len(missing)} of {int(count)} files of weights are missing, "
                f"the first is model-{missing[0]:05}-of-{count}.safetensors",
                hint="download the checkpoint again, as a whole",
            )
    if not present & set(TOKENIZERS):
        raise SourceError(
            f"{key}: there is no tokenizer: neither {' nor '.join(TOKENIZERS)}",
            hint="put the tokenizer's files beside the weights",
        )
    templates = {name for name in everywhere if in_own_file(name) is not None}
    return tuple(sorted({CONFIG, *weights, *templates, *(present & {*TOKENIZERS, *_BESIDES})}))


_ADAPTER, _PIPELINE = "adapter_config.json", "model_index.json"


def _refuse_others(key: str, present: set[str], files: list[str]) -> None:
    """Raise `SourceError` for what else folders of the hub hold."""
    whole = CONFIG in present and any(name == WHOLE or _SHARD.fullmatch(name) for name in present)
    if _ADAPTER in present and not whole:
        raise SourceError(
            f"{key}: it is an adapter (LoRA), which changes a model and is none",
            hint="merge it into its model first, and name the folder of what comes out",
        )
    if _PIPELINE in present and not whole:
        raise SourceError(f"{key}: it is a pipeline of several models ({_PIPELINE})", hint="name a language model")
    if files and not whole:
        repository = key.removeprefix("huggingface:").partition("@")[0]
        example = f", or as hf:{repository}/{files[0]}" if repository != key else ""
        raise SourceError(
            f"{key}: there is no checkpoint in it, but GGUF files: {', '.join(files[:3])}",
            hint=f"name one of them with the key 'file'{example}",
        )


def _difference(source: Parted, now: _Listing, context: Context) -> str:
    """Which files are not as the pinned listing has them, where that is known."""
    if source.digest is None or not context.store.has(source.digest):
        return ""
    then = read(context.store.verify(source.digest))
    changed = sorted(name for name in {*then, *now.files} if then.get(name) != now.files.get(name))
    return f"; not as they were: {', '.join(changed[:5])}"
