"""Real runners of every release, each with the model in the form that it can load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.frameworks.llamacpp.untie import untie
from tests.integration.bundles import Bundle
from tests.integration.runner.contract import MakeRunner, Runner


@pytest.fixture(scope="session")
def models(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Release -> the model as that release can load it."""
    untied = tmp_path_factory.mktemp("models") / "untied.gguf"

    def model(release: str) -> Path:
        if release != "2024-02-27":
            return smollm2
        if not untied.exists():
            assert untie(smollm2, untied)
        return untied

    return model


@pytest.fixture
def make_runner(runner_bundles: Mapping[str, Path], models: Callable[[str], Path], tmp_path: Path) -> MakeRunner:
    def make(release: str, machine: str) -> Runner:
        for folder in runner_bundles.values():
            bundle = Bundle(folder)
            if (bundle.facts["release"], bundle.machine) == (release, machine) and bundle.runnable:
                return Runner(bundle, models(release), tmp_path)
        pytest.skip(f"no bundle of {release} that {machine} programs can be run from")

    return make


@pytest.fixture(params=sorted(RELEASES))
def runner(request: pytest.FixtureRequest, make_runner: MakeRunner) -> Runner:
    return make_runner(request.param, "x86_64")
