"""Sources of kind `file` and `url`: one file of this machine, copied into the store so that a run cannot see it change, or
behind an http, https or file URL, pinned by the manifest itself.

Where a source may also be a folder, that is packed into a tar: everything else knows one file with one digest.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from pathlib import Path

from meltrepro.atomic import reading
from meltrepro.errors import SourceError
from meltrepro.manifest.sources import FileSource, TreeSource, UrlSource
from meltrepro.steps import step
from meltrepro.store import archive
from meltrepro.store.cas import Store
from meltrepro.store.download import FileRequest, file_url_path
from meltrepro.store.http import login_hint
from meltrepro.store.names import local_path, redact, split_url, text_digest
from meltrepro.store.source import Context, Pin, key_of

PREFIX = "tree"
"""What everything of a packed folder lies below."""
_SCHEMES = ("https", "http", "file")


class File:
    """The provider of kind `file`."""

    def resolve(self, source: FileSource, context: Context) -> Pin:
        """Hash the file, or know its digest from last time where it has not been touched since."""
        path = _locate(source, context)
        if path.is_dir():
            return _pin_folder(source, path, context)
        with reading(path):
            info = path.stat()
            state = _state(info)
            known = context.store.get_ref("files", text_digest(str(path)))
            if known is None or known.get("state") != state:
                with path.open("rb") as file:
                    known = {"state": state, "digest": hashlib.file_digest(file, "sha256").hexdigest()}
                context.store.put_ref("files", text_digest(str(path)), known)
        return Pin(source=key_of(source), digest=known["digest"], size=info.st_size, filename=path.name)

    def fetch(self, source: FileSource, pin: Pin, context: Context) -> None:
        path = _locate(source, context)
        if path.is_dir():
            _pack(source, path, context, pin.digest)
        else:
            context.store.put_file(path, expected=pin.digest)

    def transfer_size(self, source: FileSource, context: Context) -> int | None:
        """Nothing is transferred from elsewhere."""
        return 0


def remembered(source: FileSource, store: Store, base: Path) -> str | None:
    """The digest of a file that was hashed before and not touched since; `None` for any other."""
    path = local_path(base, source.file)
    known = store.get_ref("files", text_digest(str(path))) if path.is_file() else None
    return str(known["digest"]) if known is not None and known.get("state") == _state(path.stat()) else None


def _state(info: os.stat_result) -> list[int]:
    return [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]


def _pin_folder(source: FileSource, path: Path, context: Context) -> Pin:
    """Pack the folder, or know its digest from last time where nothing in it has been touched since."""
    key = text_digest(str(path))
    with reading(path):
        state = text_digest(json.dumps(archive.tree_state(path), sort_keys=True))
    known = context.store.get_ref("files", key)
    if known is None or known.get("state") != state:
        digest = _pack(source, path, context)
        known = {"state": state, "digest": digest, "size": context.store.size(digest)}
        context.store.put_ref("files", key, known)
    return Pin(source=key_of(source), digest=known["digest"], size=known["size"], filename=f"{path.name}.tar")


def _pack(source: FileSource, path: Path, context: Context, expected: str | None = None) -> str:
    with step(context.sink, "pack", key_of(source)), context.store.scratch() as scratch:
        archive.pack_tree(path, scratch / "tree.tar", prefix=PREFIX, links=True)
        return context.store.put_file(scratch / "tree.tar", move=True, expected=expected, subject=f"the tar of {path}")


def _locate(source: FileSource, context: Context) -> Path:
    path = local_path(context.base, source.file)
    if path.is_file() or (isinstance(source, TreeSource) and path.is_dir()):
        return path
    if path.exists():
        raise SourceError(
            f"file:{source.file}: {path} is not a regular file", hint="name one file, not a folder or device"
        )
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=3)
    raise SourceError(
        f"file:{source.file}: {path} does not exist",
        hint=f"did you mean {', '.join(near)}?" if near else "a relative path counts from the manifest's folder",
    )


class Url:
    """The provider of kind `url`."""

    def resolve(self, source: UrlSource, context: Context) -> Pin:
        """The digest stands in the manifest, the size with the server; transfers the file where it does not say."""
        key = key_of(source)
        size = self.transfer_size(source, context)
        if size is None:
            context.downloader.download(_request(source))
            size = context.store.size(source.digest)
        url = redact(source.url)
        return Pin(source=key, digest=source.digest, size=size, filename=url.rpartition("/")[2] or None, url=url)

    def fetch(self, source: UrlSource, pin: Pin, context: Context) -> None:
        context.downloader.download(_request(source))

    def transfer_size(self, source: UrlSource, context: Context) -> int | None:
        """Size of the file, as its server says."""
        request = _request(source)
        if context.store.has(source.digest):
            return context.store.size(source.digest)
        if split_url(source.url).scheme == "file":
            path = file_url_path(source.url)
            return path.stat().st_size if path.is_file() else None
        return context.downloader.length(request)


def _request(source: UrlSource) -> FileRequest:
    scheme = source.url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise SourceError(
            f"{key_of(source)}: cannot fetch {scheme!r} URLs", hint=f"expected one of: {', '.join(_SCHEMES)}"
        )
    asked = login_hint(source.url)
    return FileRequest(source.url, key_of(source), source.digest, explain={401: asked, 403: asked})
