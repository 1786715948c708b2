"""The two pinned releases: sdists of llama-cpp-python, which carry llama.cpp whole, at a known commit."""

from __future__ import annotations

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
