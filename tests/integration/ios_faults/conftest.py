"""A virtual iPhone for every test, with pymobiledevice3 as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.targets.base import RUNNER
from meltrepro.testing.targets import Bench
from tests.integration.ios_faults.lab import Lab
from tests.support.ios_targets import paired, target, virtual_iphone


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with virtual_iphone(tmp_path / "phone", tmp_path / "bundle" / RUNNER) as device:
        phone = paired(device, tmp_path / "pairings", answer_s=4, piece_s=2)
        yield Lab(device, phone, Bench(target(phone, reconnect_s=8), tmp_path))
