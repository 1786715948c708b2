"""Everything that a Mac needs to build the runner app, as one tar whose bytes follow from the recipe and its inputs.

ios/, runner/, llama.cpp/engine/  our sources
ios/third-party/llama.cpp/       the framework's, all of them where its library is built there, else headers alone
ios/third-party/llama.xcframework/
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from meltrepro.build.app_package import framework_files
from meltrepro.build.image import EPOCH
from meltrepro.build.model import Recipe
from meltrepro.errors import BuildError

THIRD_PARTY = "ios/third-party"
_SOURCE = re.compile(r"[^/]+/vendor/llama\.cpp/(.+)")
_HEADERS = ("include/", "ggml/include/", "LICENSE")


def pack(recipe: Recipe, tar: Path) -> None:
    """Write the tar; raises `BuildError` where an input is not what it should be, `OSError` where it cannot be written."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as packed:
        for name, content, mode in _files(recipe):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), EPOCH, mode
            packed.addfile(entry, io.BytesIO(content))


def _files(recipe: Recipe) -> Iterator[tuple[str, bytes, int]]:
    for name, content in sorted(recipe.files.items()):
        yield name, content, 0o644
    zipped = recipe.inputs.get("xcframework.zip")
    if zipped is not None:
        for name, content in sorted(framework_files(zipped, f"{recipe.name}: xcframework.zip").items()):
            yield f"{THIRD_PARTY}/llama.xcframework/{name}", content, 0o755
    found = False
    for name, content, mode in _framework_sources(recipe):
        if zipped is None or name.startswith(_HEADERS):
            found = True
            yield f"{THIRD_PARTY}/llama.cpp/{name}", content, mode
    if not found:
        raise BuildError(f"{recipe.name}: source.tar.gz holds no vendor/llama.cpp")


def _framework_sources(recipe: Recipe) -> Iterator[tuple[str, bytes, int]]:
    """The framework's files in the order of its archive; links are left out, nothing of it is one that a build needs."""
    try:
        with tarfile.open(recipe.inputs["source.tar.gz"]) as archive:
            for entry in archive:
                match = _SOURCE.fullmatch(entry.name)
                if match is None or not entry.isfile() or ".." in PurePosixPath(match[1]).parts:
                    continue
                content = archive.extractfile(entry)
                assert content is not None
                yield match[1], content.read(), 0o755 if entry.mode & 0o100 else 0o644
    except (tarfile.TarError, EOFError) as error:
        raise BuildError(f"{recipe.name}: source.tar.gz cannot be read: {error}") from error
