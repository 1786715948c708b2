"""Files that travel with the toolkit (recipes, documentation, the quickstart), found alike in a checkout and in a wheel."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

_PACKAGE = Path(__file__).parent
_PAGE = re.compile(r"(?<![\w./-])docs/[\w/-]+\.md")
_QUICKSTART = ("quickstart.yaml", "quickstart.lock.yaml", "prompts/everyday.yaml")


def make(target: str) -> str | None:
    """The command for a target of the Makefile; `None` where the program does not run from a checkout's own environment.

    It names no path: what is said of skipped cells goes into records.
    """
    root = _PACKAGE.parent
    if not (root / "Makefile").is_file() or Path(sys.prefix).resolve() != (root / ".venv").resolve():
        return None
    return f"make {target}" if Path.cwd() == root else f"make {target}, in the folder of the checkout"


def _folder(name: str) -> Path:
    installed = _PACKAGE / "_data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def images() -> Path:
    """The folder of recipes."""
    return _folder("images")


def quickstart() -> dict[str, bytes]:
    """The quickstart's manifest first, then its lock and prompts, by their paths beside each other."""
    files = {name: (_folder("specs") / name).read_bytes() for name in _QUICKSTART}
    manifest = files[_QUICKSTART[0]]
    # The schema that it names for editors lies beside it in a checkout alone.
    files[_QUICKSTART[0]] = b"".join(line for line in manifest.splitlines(keepends=True) if b"$schema=" not in line)
    return files


def with_pages(text: str) -> str:
    """A text for people whose pages of documentation can be opened from the current folder."""

    def found(match: re.Match[str]) -> str:
        page = _folder("docs").parent / match[0]
        return str(page) if page.is_file() and not Path(match[0]).is_file() else match[0]

    return _PAGE.sub(found, text)


def runner() -> Path:
    """The part of the runner that all frameworks share: the folder `runner` of their recipes."""
    return images() / "runner"


def image_file(relative: str) -> bytes:
    """Content of one file below `images/`."""
    return (images() / relative).read_bytes()


def files(folder: Traversable) -> dict[str, bytes]:
    """Every file below a folder, by its path in it, in order; without what Python compiled beside its sources.

    One file is a folder of itself, by an empty path.
    """
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {path: file.read_bytes() for path, file in sorted(_walk(folder, ""))}


def _walk(folder: Traversable, place: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_file():
            yield place + entry.name, entry
        elif entry.is_dir() and entry.name != "__pycache__":
            yield from _walk(entry, f"{place}{entry.name}/")
