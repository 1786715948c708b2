"""Files that travel with the toolkit (recipes), found alike in a checkout and in an installed wheel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path

_PACKAGE = Path(__file__).parent


def make(target: str) -> str | None:
    """The command for a target of the Makefile; `None` where the program does not run from a checkout's own environment.

    It names no path: what is said of skipped cells goes into records.
    """
    root = _PACKAGE.parent
    if not (root / "Makefile").is_file() or Path(sys.prefix).resolve() != (root / ".venv").resolve():
        return None
    return f"make {target}" if Path.cwd() == root else f"make {target}, in the folder of the checkout"


def images() -> Path:
    """The folder of recipes."""
    installed = _PACKAGE / "_data" / "images"
    return installed if installed.is_dir() else _PACKAGE.parent / "images"


def runner() -> Path:
    """The part of the runner that all frameworks share: the folder `runner` of their recipes."""
    return images() / "runner"


def image_file(relative: str) -> bytes:
    """Content of one file below `images/`."""
    return (images() / relative).read_bytes()


def files(folder: Traversable) -> dict[str, bytes]:
    """Every file below a folder, by its path in it, in order; without what Python compiled beside its sources."""
    return {path: file.read_bytes() for path, file in sorted(_walk(folder, ""))}


def _walk(folder: Traversable, place: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_file():
            yield place + entry.name, entry
        elif entry.is_dir() and entry.name != "__pycache__":
            yield from _walk(entry, f"{place}{entry.name}/")
