"""Error rates of the replay test on synthetic campaigns; the benchmark of the same name prints the whole table."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from meltrepro.stats import ratio
from meltrepro.stats.equivalence import Baseline, Design, ReplayVerdict
from meltrepro.stats.sequential import levels, nominal_levels

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


def test_levels_match_published_boundaries() -> None:
    """Five equal looks, one-sided 0.025, both spending functions of Lan and DeMets 1983."""
    fractions = tuple(k / 5 for k in range(1, 6))
    tail = stats.norm.isf(0.0125)
    obrien_fleming = tuple(float(2 * stats.norm.sf(tail / math.sqrt(t))) for t in fractions)
    pocock = tuple(0.025 * math.log(1 + (math.e - 1) * t) for t in fractions)
    assert stats.norm.isf(levels(fractions, obrien_fleming)) == pytest.approx(
        [4.877, 3.357, 2.680, 2.290, 2.031], abs=1e-3
    )
    assert stats.norm.isf(levels(fractions, pocock)) == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=1e-3)


def test_levels_spend_alpha_on_random_walks() -> None:
    alpha, information = 0.05, (5.0, 10.0, 12.0, 25.0, 30.0)
    steps = np.sqrt(np.diff(information, prepend=0.0))
    walk = np.cumsum(np.random.default_rng(3).normal(0, steps, (200_000, 5)), axis=1) / np.sqrt(information)
    crossed = (walk > stats.norm.isf(nominal_levels(information, alpha, 2.0))).any(axis=1).mean()
    assert crossed == pytest.approx(alpha, abs=0.002)


def test_one_look_spends_everything() -> None:
    assert nominal_levels((7.0,), 0.05, 2.0) == pytest.approx((0.05,))
