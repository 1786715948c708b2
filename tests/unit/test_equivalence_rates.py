"""Error rates of the replay test on synthetic campaigns; the benchmark of the same name prints the whole table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from scipy import stats

from meltrepro.stats import ratio
from meltrepro.stats.equivalence import Baseline, Design, ReplayVerdict

CAMPAIGNS = 120
"""Were one verdict of ten wrong, more than one of twenty would be seen with probability 0.96."""


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of them: what that adds to the noise of an error is small beside that of so few trials."""
    monkeypatch.setattr(ratio, "RESAMPLES", 250)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "replay_error_rates.py"
    spec = importlib.util.spec_from_file_location("replay_error_rates", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("reference", list(Baseline))
@pytest.mark.parametrize("cv", [0.02, 0.10])
def test_wrong_verdicts_are_at_most_one_in_twenty(bench: ModuleType, reference: Baseline, cv: float) -> None:
    design = Design(reference=reference)
    same = bench.operate(bench.Noise(cv), 0.0, design, CAMPAIGNS)
    slower = bench.operate(bench.Noise(cv), 0.10, design, CAMPAIGNS)
    assert same.share[ReplayVerdict.differs] <= 0.05
    assert slower.share[ReplayVerdict.reproduced] <= 0.05


@pytest.mark.parametrize("reference", list(Baseline))
def test_at_the_margin_both_errors_keep_alpha(bench: ModuleType, reference: Baseline) -> None:
    row = bench.operate(bench.Noise(0.03), 0.05, Design(reference=reference), CAMPAIGNS)
    bound = float(stats.binom.ppf(0.999, CAMPAIGNS, 0.05)) / CAMPAIGNS
    assert row.share[ReplayVerdict.reproduced] <= bound
    assert row.share[ReplayVerdict.differs] <= bound


def test_quiet_campaigns_with_a_control_are_decided(bench: ModuleType) -> None:
    design = Design(reference=Baseline.control)
    same = bench.operate(bench.Noise(0.03), 0.0, design, 60)
    slower = bench.operate(bench.Noise(0.03), 0.10, design, 60)
    assert same.share[ReplayVerdict.reproduced] >= 0.9
    assert slower.share[ReplayVerdict.differs] >= 0.9
    assert max(same.mean_trials, slower.mean_trials) < 45
