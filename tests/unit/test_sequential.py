"""Levels of the looks of a sequential test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from meltrepro.stats.sequential import levels, nominal_levels


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
