"""The table of what each release knows says what the releases' own sources say."""

from __future__ import annotations

import pytest

from meltrepro import settings
from meltrepro.frameworks.llamacpp.knowledge import of_release, of_source
from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_knows_what_its_source_says(name: str) -> None:
    here = settings.load()
    source = next(iter(RELEASES[name].sources.values()))
    assert of_release(name) == of_source(Fetcher(Store(here.cache / "store"), here, silent).get(source))
