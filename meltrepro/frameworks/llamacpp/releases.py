"""The two pinned releases, and others by their version: sdists of llama-cpp-python, which carry llama.cpp whole."""

from __future__ import annotations

import re
from collections.abc import Mapping

from meltrepro.frameworks.base import Release
from meltrepro.manifest.sources import PypiSource

OLD_SDIST = PypiSource(
    pypi="llama-cpp-python",
    version="0.2.53",
    kind="sdist",
    digest="f7ff8eda538ca6c80521a8bbf80d3ef4527ecb28f6d08fa9b3bb1f0cfc3b684e",
)
SDIST = PypiSource(
    pypi="llama-cpp-python",
    version="0.3.36",
    kind="sdist",
    digest="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
)
VENDORED = r"[^/]+/vendor/llama\.cpp/"
"""Pattern of what stands before the names of llama.cpp's own files in them."""
RELEASES: Mapping[str, Release] = {
    date: Release(date, commit, date, {"source.tar.gz": sdist})
    for date, commit, sdist in (
        ("2024-02-27", "cb49e0f8c906e5da49e9f6d64a57742a9a241c6a", OLD_SDIST),
        ("2026-10-01", "0c1e57098bba43ac29e6e3b677cdceebdd22334f", SDIST),
    )
}
"""By their days."""
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def version(name: str) -> Release | None:
    """The release that a version of llama-cpp-python holds, which a lock pins; `None` where the name is no version.

    Its commit is not told anywhere in it, so that the version stands in its place.
    """
    if not _VERSION.fullmatch(name):
        return None
    source = PypiSource(pypi=SDIST.pypi, version=name, kind="sdist")
    return Release(name, f"{SDIST.pypi}-{name}", "", {"source.tar.gz": source})


def known_as(name: str) -> str:
    """The pinned release whose knowledge stands for that of a version: the newer one, whose recipe and API its build begins with."""
    return "2026-10-01" if _VERSION.fullmatch(name) else name


def packaged_as(name: str) -> str:
    """The version of llama-cpp-python that a release came in; others are their own."""
    release = RELEASES.get(name)
    source = next(iter(release.sources.values())) if release is not None else None
    return source.version if isinstance(source, PypiSource) and source.version else name
