"""Proofs that take minutes and hold until something changes that they rest on: kept by content in the cache.

A machine that has none proves anew, and so does one whose folder `proofs` of the cache was removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from meltrepro import settings

ROOT = Path(__file__).parents[2]


@contextmanager
def proof(name: str, rests_on: Iterable[str], *facts: object) -> Iterator[bool]:
    """Whether a proof has to be made: it is kept if the block ends well.

    `rests_on` are files and folders of this checkout; `facts` is what else it depends on.
    """
    digest = hashlib.sha256(repr(facts).encode())
    for path in sorted(path for place in rests_on for path in _files(ROOT / place)):
        digest.update(f"\n{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    kept = settings.load().cache / "proofs" / f"{name}-{digest.hexdigest()}"
    yield not kept.exists()
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.touch()


def _files(place: Path) -> Iterator[Path]:
    found = place.rglob("*") if place.is_dir() else [place]
    return (path for path in found if path.is_file() and path.suffix != ".pyc")
