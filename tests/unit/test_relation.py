"""Lines and ranks, against scipy and against what they must not depend on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from meltrepro.stats.relation import fit_line, fit_within, spearman

X = [1.0, 2.0, 3.0, 4.0, 5.5, 7.0]
Y = [2.1, 3.9, 6.2, 7.8, 11.5, 13.7]


def test_a_line_agrees_with_scipy() -> None:
    line = fit_line(X, Y)
    theirs = stats.linregress(X, Y)
    assert line is not None
    assert line.slope == pytest.approx(theirs.slope)
    assert line.intercept == pytest.approx(theirs.intercept)
    assert line.r2 == pytest.approx(theirs.rvalue**2)
    assert line.p == pytest.approx(theirs.pvalue)
    assert line.n == 6


def test_small_units_hide_no_scatter() -> None:
    small = fit_line(X, [y * 1e-9 for y in Y])
    assert small is not None
    assert small.p == pytest.approx(stats.linregress(X, Y).pvalue)


def test_no_slope_and_a_slope_of_one() -> None:
    level, one = fit_line([1, 2, 3], [1, 2, 1]), fit_line([1, 2, 3], [1, 2, 3])
    assert level is not None and one is not None
    assert (level.slope, level.p) == (0, 1)
    assert (one.slope, one.p) == (1, 0)


def test_points_on_a_line() -> None:
    line = fit_line([1, 2, 3], [1, 3, 5])
    assert line is not None
    assert (line.slope, line.intercept, line.r2, line.p) == (2, -1, 1, 0)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3])])
def test_no_line_can_be_had(x: list[float], y: list[float]) -> None:
    assert fit_line(x, y) is None


def test_what_does_not_vary_has_no_slope() -> None:
    line = fit_line([1, 2, 3], [5, 5, 5])
    assert line is not None
    assert (line.slope, line.r2, line.p) == (0, 0, 1)


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1]), ([1, 2, math.nan], [1, 2, 3]), ([1, 2, 3], [1, 2, math.inf])])
def test_bad_points_are_refused(x: list[float], y: list[float]) -> None:
    said = "as many values of y as of x are needed" if len(x) != len(y) else "a value is not finite"
    with pytest.raises(ValueError, match=f"^{said}$"):
        fit_line(x, y)


def test_groups_keep_their_own_level() -> None:
    """Pooled, the two groups would rise; within each, y falls."""
    falling = [([1, 2, 3, 4], [10, 9.1, 8, 6.9]), ([5, 6, 7, 8], [30, 29, 28.1, 27])]
    within = fit_within(falling)
    pooled = fit_line([x for group, _ in falling for x in group], [y for _, group in falling for y in group])
    assert within is not None
    assert pooled is not None
    assert within.slope == pytest.approx(-1.0, abs=0.05)
    assert within.p < 0.001
    assert pooled.slope > 0


def test_groups_of_one_point_say_nothing() -> None:
    groups: list[tuple[list[float], list[float]]] = [([1, 2, 3], [1, 2, 2.5]), ([9], [100])]
    assert fit_within(groups) == fit_within(groups[:1])
    assert fit_within([*groups[:1], ([1, 2], [5, 9])]) != fit_within(groups[:1]), "two points have a slope"


def test_degrees_of_freedom_count_the_levels() -> None:
    """Against the regression with one indicator a group, by hand: t = slope / se with n - groups - 1."""
    groups = [([0.0, 1, 2], [0.0, 1.1, 1.9]), ([0.0, 1, 2], [5.0, 6.2, 6.8])]
    line = fit_within(groups)
    assert line is not None
    centred_x = [-1.0, 0, 1] * 2
    centred_y = [-1.0, 0.1, 0.9, -1.0, 0.2, 0.8]
    sxx = sum(x * x for x in centred_x)
    slope = sum(x * y for x, y in zip(centred_x, centred_y, strict=True)) / sxx
    rest = sum((y - slope * x) ** 2 for x, y in zip(centred_x, centred_y, strict=True))
    expected = 2 * stats.t.sf(slope / math.sqrt(rest / 3 / sxx), 3)
    assert line.slope == pytest.approx(slope)
    assert line.p == pytest.approx(float(expected))


def test_ranks_agree_with_scipy_also_with_ties() -> None:
    x, y = [1, 2, 2, 4, 5, 9], [3, 1, 4, 4, 8, 7]
    assert spearman(x, y) == pytest.approx(float(stats.spearmanr(x, y).statistic))
    assert spearman([1, 2, 3], [9, 5, 1]) == -1


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2])])
def test_no_ranks_can_be_had(x: list[float], y: list[float]) -> None:
    assert spearman(x, y) is None


def test_ranks_need_pairs() -> None:
    with pytest.raises(ValueError, match="^as many values of y as of x are needed$"):
        spearman([1, 2, 3], [1, 2])


POINTS = st.lists(st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000)), min_size=4, max_size=20)


@given(POINTS, st.sampled_from([0.001, 3.0, 1e6]))
def test_neither_units_nor_order_matter(points: list[tuple[int, int]], scale: float) -> None:
    x, y = [float(a) for a, _ in points], [float(b) for _, b in points]
    line, scaled = fit_line(x, y), fit_line([a * scale for a in reversed(x)], [b / scale for b in reversed(y)])
    assert (line is None) == (scaled is None)
    if line is not None and scaled is not None:
        assert scaled.slope * scale**2 == pytest.approx(line.slope, rel=1e-6, abs=1e-9)
        assert scaled.r2 == pytest.approx(line.r2, abs=1e-6)
    ranks, same = spearman(x, y), spearman([a * scale + 7 for a in x], y)
    assert (ranks is None) == (same is None)
    if ranks is not None:
        assert same == pytest.approx(ranks)
