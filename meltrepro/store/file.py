"""Sources of kind `file`: a file of this machine, copied into the store so that a run cannot see it change."""

from __future__ import annotations

import difflib
import hashlib
import os
from pathlib import Path

from meltrepro.errors import SourceError
from meltrepro.spec.manifest import FileSource
from meltrepro.store.atomic import reading
from meltrepro.store.names import text_digest
from meltrepro.store.source import Context, Pin, key_of


class File:
    """The provider."""

    def resolve(self, source: FileSource, context: Context) -> Pin:
        """Hash the file, or know its digest from last time where it has not been touched since."""
        path = _locate(source, context)
        with reading(path):
            info = path.stat()
            state = [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]
            known = context.store.get_ref("files", text_digest(str(path)))
            if known is None or known.get("state") != state:
                with path.open("rb") as file:
                    known = {"state": state, "digest": hashlib.file_digest(file, "sha256").hexdigest()}
                context.store.put_ref("files", text_digest(str(path)), known)
        return Pin(source=key_of(source), digest=known["digest"], size=info.st_size, filename=path.name)

    def fetch(self, source: FileSource, pin: Pin, context: Context) -> None:
        """Copy the file."""
        context.store.put_file(_locate(source, context), expected=pin.digest)

    def transfer_size(self, source: FileSource, context: Context) -> int | None:
        """Nothing is transferred from elsewhere."""
        return 0


def _locate(source: FileSource, context: Context) -> Path:
    path = Path(os.path.abspath(context.base / Path(source.file).expanduser()))
    if path.is_file():
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
