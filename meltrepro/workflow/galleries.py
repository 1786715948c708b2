"""A site of many public records; it needs none of what campaigns and replays are made with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from meltrepro.atomic import remove, write_bytes
from meltrepro.errors import EntryError
from meltrepro.publish.collect import Collection, collect
from meltrepro.publish.site import ENTRIES, PAGE, earlier, gallery_files


@dataclass(frozen=True)
class Gallery:
    """A site on disk."""

    page: Path
    collection: Collection


def gallery(
    folder: Path | str,
    out: Path | str = "gallery",
    *,
    title: str = "Measurements that can be repeated",
    signers: Path | str | None = None,
    signed_only: bool = False,
) -> Gallery:
    """Write a static site of the entries in a folder; what is not taken stands there with its reason.

    `signers` says whose keys count (OpenSSH's `allowed_signers`); with `signed_only` no other entry is taken. Raises
    `EntryError` where the folder cannot be read, `StoreError`.
    """
    folder, out = Path(folder), Path(out)
    here, there = folder.resolve(), out.resolve()
    if here in (there, there / ENTRIES, *there.parents):
        raise EntryError(
            f"{out}: the site would lie among the entries that it is made of", hint="name another folder with -o"
        )
    collection = collect(folder, Path(signers) if signers is not None else None, signed_only=signed_only)
    files = gallery_files(collection, title)
    for stale in earlier(out) - files.keys():
        remove(out / stale)
    for name in sorted(files, key=lambda name: name == PAGE):
        write_bytes(out / name, files[name], durable=False)
    return Gallery(out / PAGE, collection)
