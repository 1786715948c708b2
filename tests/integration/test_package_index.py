"""The configured package index itself: a small wheel, pinned, fetched and opened."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from meltrepro.errors import DownloadError
from meltrepro.manifest.sources import PypiSource
from meltrepro.settings import Settings
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher

pytestmark = pytest.mark.network

SIX = PypiSource(pypi="six", version="1.17.0")
SIX_DIGEST = "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    settings = Settings(cache=tmp_path, home=tmp_path, offline=False, mirrors=None, jobs=1)
    made = Fetcher(Store(tmp_path / "store"), settings, silent)
    try:
        made.pin(SIX, tmp_path)
    except DownloadError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the package index cannot be reached: {error}")
    return made


def test_a_wheel_of_the_real_index(fetcher: Fetcher, tmp_path: Path) -> None:
    pin = fetcher.pin(SIX, tmp_path)
    assert (pin.digest, pin.filename) == (SIX_DIGEST, "six-1.17.0-py2.py3-none-any.whl")
    assert fetcher.estimate(SIX) == pin.size
    path = fetcher.get(SIX)
    assert path.stat().st_size == pin.size
    assert "six.py" in zipfile.ZipFile(path).namelist()


def test_one_member_of_a_real_source_distribution(fetcher: Fetcher, tmp_path: Path) -> None:
    source = PypiSource(pypi="six", version="1.17.0", kind="sdist", member="*/six.py")
    with zipfile.ZipFile(fetcher.get(SIX)) as wheel:
        assert fetcher.get(source, tmp_path).read_bytes() == wheel.read("six.py")
