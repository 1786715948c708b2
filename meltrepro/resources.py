"""Files that travel with the toolkit (recipes, schema), found alike in a checkout and in an installed wheel."""

from __future__ import annotations

import sys
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


def schema() -> Path:
    """The JSON Schema of manifests."""
    name = "manifest.schema.json"
    installed = _PACKAGE / "_data" / "schema" / name
    return installed if installed.is_file() else _PACKAGE.parent / "docs" / "schema" / name


def image_file(relative: str) -> bytes:
    """Content of one file below `images/`."""
    return (images() / relative).read_bytes()


def image_files(folder: str) -> list[str]:
    """Every file below one folder of `images/`, relative to it, sorted; without what Python compiled beside its sources."""
    root = images() / folder
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in files if "__pycache__" not in path.parts)
