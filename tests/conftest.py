"""What all tests share: a marker by folder, and folders of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from meltrepro.track import environment
from tests.support.examples import examples
from tests.support.prebuild import PREBUILD

TESTS = Path(__file__).parent
TIMEOUT_S = {"unit": 120, "contract": 300, "fault": 300, "integration": 1800}
"""Seconds that one test may take; integration tests compile and measure, on two cores where it must be."""
# No test is timed. On CI examples are the same every time: its verdict must not hang on chance. Elsewhere they are new.
settings.register_profile(
    "meltrepro", deadline=None, max_examples=examples(100), derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("meltrepro")
REAL_CACHE = os.environ.get("MELTREPRO_CACHE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the folder that it lies in, and limit its time by that."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in TIMEOUT_S:
            item.add_marker(getattr(pytest.mark, folder))
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S[folder]))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to build what the last tests need, where they come after many others; one worker does."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    if session.config.option.collectonly or os.environ.get("MELTREPRO_TEST_BUNDLES") or worker != "gw0":
        return
    wanted = ["runner_bundles" in getattr(item, "fixturenames", ()) for item in session.items]
    if any(wanted) and not wanted[0]:
        PREBUILD.start()


def pytest_sessionfinish() -> None:
    PREBUILD.stop()


@pytest.fixture
def same_environment() -> Iterator[None]:
    """Whatever a test does to the environment is undone when it ends; the next one would start in it."""
    before = _environment()
    yield
    after = _environment()
    os.environ.update(before)
    assert after == before


def _environment() -> dict[str, str]:
    """Without what pytest says of itself and what keeps MLflow quiet, which is set once per process."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTEST_CURRENT_TEST", *environment.ENVIRONMENT}
    }


@pytest.fixture(autouse=True)
def own_folders(
    same_environment: None, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test sees the user's records, settings or secrets; only integration tests share the user's cache."""
    for name in list(os.environ):
        if name.startswith(("MELTREPRO_", "MLFLOW_")) and name != "MELTREPRO_TEST_BUNDLES":
            monkeypatch.delenv(name)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MELTREPRO_LOCKS", str(tmp_path / "locks"))  # tests run at the same time on one machine
    if "integration" not in request.path.parts:
        monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    elif REAL_CACHE:
        monkeypatch.setenv("MELTREPRO_CACHE", REAL_CACHE)
