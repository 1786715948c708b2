"""The three-way sequential test: its answers, its borders, its order of trials."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from meltrepro.errors import RecordError, UsageError
from meltrepro.stats.equivalence import (
    MAX_LOOKS,
    Baseline,
    Design,
    ReplayVerdict,
    decide,
    identical,
    trials_to_show_sameness,
)

CONTROL = Design(reference=Baseline.control)
RECORDED = Design(reference=Baseline.recorded)


def trials(n: int, centre: float, cv: float = 0.02, seed: int = 0) -> list[float]:
    return [float(x) for x in centre * np.exp(np.random.default_rng(seed).normal(0, cv, n))]


@pytest.mark.parametrize("design", [CONTROL, RECORDED])
@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (1.0, ReplayVerdict.reproduced),
        (0.8, ReplayVerdict.differs),
        (1.25, ReplayVerdict.differs),
        (1 / 1.05, ReplayVerdict.inconclusive),
    ],
)
def test_plain_cases(design: Design, ratio: float, verdict: ReplayVerdict) -> None:
    decision = decide(trials(30, 20, 0.005, 1), trials(30, 20 * ratio, 0.005, 2), design)
    assert decision.verdict is verdict
    assert decision.ratio == pytest.approx(ratio, rel=0.01)
    assert decision.low < decision.ratio < decision.high
    assert decision.final


def test_reason_names_the_side_on_which_the_interval_lies() -> None:
    slower = decide(trials(5, 20, seed=1), trials(5, 12, seed=2), CONTROL)
    faster = decide(trials(5, 12, seed=1), trials(5, 20, seed=2), CONTROL)
    assert "lies below 0.952" in slower.reason
    assert "lies above 1.050" in faster.reason


def test_difference_inside_the_margin_is_reproduced_and_said() -> None:
    decision = decide(trials(30, 20, 0.002, 1), trials(30, 20.4, 0.002, 2), CONTROL)
    assert decision.verdict is ReplayVerdict.reproduced
    assert "a difference is established" in decision.reason


def test_swapping_the_arms_inverts_the_ratio_and_keeps_the_verdict() -> None:
    a, b = trials(30, 20, 0.03, 1), trials(30, 18, 0.03, 2)
    there, back = decide(a, b, CONTROL), decide(b, a, CONTROL)
    assert there.verdict is back.verdict
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert (there.low, there.high) == pytest.approx((1 / back.high, 1 / back.low))


def test_same_input_same_answer_and_another_seed_hardly_another() -> None:
    a, b = trials(30, 20, 0.05, 1), trials(30, 20, 0.05, 2)
    first = decide(a, b, CONTROL)
    assert decide(a, b, CONTROL) == first
    other = decide(a, b, replace(CONTROL, seed=5))
    assert other != first
    assert other.low == pytest.approx(first.low, rel=0.01)


def test_scale_of_the_metric_does_not_matter() -> None:
    a, b = trials(10, 20, seed=1), trials(10, 19, seed=2)
    here = decide(a, b, RECORDED)
    there = decide([x * 1e-9 for x in a], [x * 1e-9 for x in b], RECORDED)
    assert (there.verdict, there.look) == (here.verdict, here.look)
    assert (there.low, there.ratio, there.high) == pytest.approx((here.low, here.ratio, here.high))


@pytest.mark.parametrize("design", [CONTROL, RECORDED])
def test_the_first_look_that_decides_stands(design: Design) -> None:
    a = trials(30, 20, 0.005, 1)
    b = trials(10, 20, 0.005, 2) + trials(20, 10, 0.005, 3)
    early = decide(a if design is RECORDED else a[:10], b[:10], design)
    assert early.verdict is ReplayVerdict.reproduced
    assert decide(a, b, design) == early


def test_trials_between_two_looks_wait() -> None:
    a, b = trials(14, 20, 0.05, 1), trials(14, 20, 0.05, 2)
    assert decide(a, b, CONTROL) == decide(a[:10], b[:10], CONTROL)


def test_trials_past_the_maximum_are_not_used() -> None:
    a, b = trials(60, 20, 0.1, 1), trials(60, 20, 0.1, 2)
    assert decide(a, b, CONTROL) == decide(a[:30], b[:30], CONTROL)


def test_too_few_trials_is_not_yet_an_answer() -> None:
    decision = decide(trials(5, 20), trials(2, 20), CONTROL)
    assert (decision.verdict, decision.look, decision.final) == (ReplayVerdict.inconclusive, 0, False)
    assert (decision.low, decision.high) == (0, math.inf)
    assert (decision.n_reference, decision.n_replayed) == (2, 2)
    assert "2 of the 5 trials" in decision.reason


def test_a_drift_common_to_both_arms_cancels() -> None:
    drift = np.linspace(1, 2, 30)
    a = [float(x) for x in drift * trials(30, 20, 0.01, 1)]
    b = [float(x) for x in drift * trials(30, 20, 0.01, 2)]
    assert decide(a, b, CONTROL).verdict is ReplayVerdict.reproduced


def test_one_stray_trial_does_not_change_the_answer() -> None:
    a, b = trials(30, 20, seed=1), trials(30, 20, seed=2)
    b[3] /= 50
    assert decide(a, b, CONTROL).verdict is ReplayVerdict.reproduced


@pytest.mark.parametrize("design", [CONTROL, RECORDED])
@pytest.mark.parametrize(("replayed", "verdict"), [(100.0, ReplayVerdict.reproduced), (120.0, ReplayVerdict.differs)])
def test_metric_without_any_spread(design: Design, replayed: float, verdict: ReplayVerdict) -> None:
    design = replace(design, session_cv=0)
    decision = decide([100.0] * 5, [replayed] * 5, design)
    assert (decision.verdict, decision.look) == (verdict, 1)
    assert decision.low == decision.ratio == decision.high == pytest.approx(replayed / 100)


def test_one_recorded_value_decides_nothing_and_says_why() -> None:
    decision = decide([20.0], trials(30, 20), RECORDED)
    assert (decision.verdict, decision.more_needed) == (ReplayVerdict.inconclusive, None)
    assert (decision.low, decision.high) == (0, math.inf)
    assert "single value" in decision.reason


def test_more_trials_are_proposed_where_they_help() -> None:
    a, b = trials(30, 20, 0.08, 3), trials(30, 20, 0.08, 4)
    decision = decide(a, b, CONTROL)
    assert decision.verdict is ReplayVerdict.inconclusive and decision.more_needed is not None
    assert f"about {decision.more_needed} more trials" in decision.reason
    assert 20 <= decision.more_needed <= 300


def test_more_trials_fall_with_a_wider_margin() -> None:
    a, b = trials(30, 20, 0.15, 3), trials(30, 20, 0.15, 4)
    narrow, wide = (decide(a, b, replace(CONTROL, margin=margin)) for margin in (0.05, 0.08))
    assert narrow.more_needed is not None and wide.more_needed is not None
    assert narrow.more_needed > wide.more_needed > 0


def test_recorded_sample_that_is_too_uncertain_is_named() -> None:
    decision = decide(trials(5, 20, 0.1, 1), trials(30, 20, 0.02, 2), RECORDED)
    assert (decision.verdict, decision.more_needed) == (ReplayVerdict.inconclusive, None)
    assert "5 recorded values" in decision.reason


def test_uncertain_sessions_widen_a_comparison_with_recorded_values_only() -> None:
    a, b = trials(30, 20, 0.01, 1), trials(30, 20, 0.01, 2)
    assert decide(a, b, replace(RECORDED, session_cv=0)).verdict is ReplayVerdict.reproduced
    assert decide(a, b, replace(RECORDED, session_cv=0.05)).verdict is ReplayVerdict.inconclusive
    assert decide(a, b, replace(CONTROL, session_cv=0.05)).verdict is ReplayVerdict.reproduced


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_values_without_a_ratio_are_refused(bad: float) -> None:
    with pytest.raises(RecordError, match="finite values above zero"):
        decide([1.0] * 5, [1.0] * 4 + [bad], RECORDED)


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(RecordError, match="the sample is empty"):
        decide([1.0] * 5, [], RECORDED)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"margin": 0}, "margin must be above 0 and below 1, got 0"),
        ({"margin": 1}, "margin must be above 0 and below 1, got 1"),
        ({"margin": math.nan}, "margin must be above 0 and below 1, got nan"),
        ({"alpha": 0}, "alpha must be above 0 and at most 0.25, got 0"),
        ({"alpha": 0.26}, "alpha must be above 0 and at most 0.25, got 0.26"),
        ({"minimum": 2}, "minimum must be at least 3 trials, got 2"),
        ({"maximum": 4}, "maximum must be at least the minimum, 5, got 4"),
        ({"step": 0}, "step must be at least 1 trial, got 0"),
        ({"rho": 0.9}, "rho must be from 1 to 5, got 0.9"),
        ({"rho": 5.1}, "rho must be from 1 to 5, got 5.1"),
        ({"session_cv": -0.1}, "session_cv must be from 0 to below 1, got -0.1"),
        ({"session_cv": 1}, "session_cv must be from 0 to below 1, got 1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_senseless_designs_are_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        Design(**fields)
    assert str(caught.value) == f"replay design: {expected}"


def test_designs_at_the_borders_are_allowed() -> None:
    Design(alpha=0.25, minimum=3, maximum=3, step=1, rho=1, session_cv=0, seed=0)
    Design(margin=0.99, rho=5, session_cv=0.99)
    assert len(Design(minimum=3, maximum=2 + MAX_LOOKS, step=1).looks) == MAX_LOOKS


def test_too_many_looks_are_refused_with_a_step_that_works() -> None:
    with pytest.raises(UsageError) as caught:
        Design(maximum=1000, step=1)
    assert str(caught.value).startswith("replay design: 996 looks, at most 100 are supported")
    assert caught.value.hint == "use a step of at least 11 trials"
    assert len(Design(maximum=1000, step=11).looks) <= 100
    with pytest.raises(UsageError) as caught:
        Design(minimum=10, maximum=1000, step=9)
    assert caught.value.hint == "use a step of at least 10 trials"
    assert len(Design(minimum=10, maximum=1000, step=10).looks) == MAX_LOOKS


def test_looks_end_at_the_maximum() -> None:
    assert Design(minimum=5, maximum=22, step=5).looks == (5, 10, 15, 20, 22)
    assert Design(minimum=5, maximum=5).looks == (5,)


@pytest.mark.parametrize(
    ("reference", "replayed", "design", "more", "reason"),
    [
        (
            trials(30, 20, 0.002, 1),
            trials(30, 20.4, 0.002, 2),
            CONTROL,
            0,
            "interval 1.012 to 1.025 lies within 0.952 to 1.050; a difference is established, but it is smaller than the margin",
        ),
        (
            trials(30, 20.4, 0.002, 1),
            trials(30, 20, 0.002, 2),
            CONTROL,
            0,
            "interval 0.972 to 0.986 lies within 0.952 to 1.050; a difference is established, but it is smaller than the margin",
        ),
        (
            trials(10, 20, 0.02, 5),
            trials(30, 20, 0.02, 6),
            RECORDED,
            0,
            "interval 0.974 to 1.044 lies within 0.952 to 1.050",
        ),
        (trials(5, 20, seed=1), trials(5, 12, seed=2), CONTROL, 0, "interval 0.553 to 0.633 lies below 0.952"),
        (
            trials(30, 20, 0.08, 3),
            trials(30, 20, 0.08, 4),
            CONTROL,
            84,
            "interval 0.937 to 1.053 crosses 0.952 and 1.050; about 84 more trials per arm would decide",
        ),
        (
            trials(30, 20, 0.01, 1),
            trials(30, 21, 0.01, 2),
            CONTROL,
            None,
            (
                "interval 1.045 to 1.054 crosses 1.050; the ratio seems to lie at the margin itself: no sensible number of"
                " trials decides"
            ),
        ),
        (
            trials(5, 20, 0.1, 1),
            trials(30, 20, 0.02, 2),
            RECORDED,
            None,
            (
                "interval 0.844 to 1.070 crosses 0.952 and 1.050; the 5 recorded values and the change of session alone leave 10.1%"
                " of uncertainty (two standard errors): more trials hardly help; run the recorded"
                " artifact beside it (--reference control), calibrate the device on several days (meltrepro calibrate), or declare"
                " a larger margin"
            ),
        ),
        (
            trials(30, 20, 0.002, 1),
            trials(5, 21, 0.02, 4),
            replace(RECORDED, session_cv=0.0),
            None,
            "interval 0.982 to 1.120 crosses 1.050; the ratio seems to lie at the margin itself: no sensible number of trials decides",
        ),
        (
            trials(30, 20, 0.002, 1),
            trials(5, 21, 0.02, 7),
            replace(RECORDED, session_cv=0.0),
            34,
            "interval 1.019 to 1.071 crosses 1.050; about 34 more trials per arm would decide",
        ),
        (
            trials(30, 20, 0.002, 1),
            trials(5, 21, 0.02, 8),
            replace(RECORDED, session_cv=0.0),
            1,
            "interval 0.984 to 1.055 crosses 1.050; about 1 more trial per arm would decide",
        ),
        (
            [20.0],
            trials(30, 20),
            RECORDED,
            None,
            "too few to judge: a single value was recorded, 3 are needed, or a control",
        ),
        (
            [20.0, 21.0],
            trials(30, 20),
            RECORDED,
            None,
            "too few to judge: 2 values were recorded, 3 are needed, or a control",
        ),
        (
            trials(5, 20),
            trials(2, 20),
            CONTROL,
            None,
            "too few to judge: 2 of the 5 trials that the first look needs",
        ),
        (trials(5, 20), trials(3, 20), CONTROL, None, "3 of the 5 trials that the first look needs"),
        (trials(9, 20), trials(4, 20), RECORDED, None, "4 of the 5 trials that the first look needs"),
    ],
)
def test_what_is_said_of_trials(
    reference: list[float], replayed: list[float], design: Design, more: int | None, reason: str
) -> None:
    """The words and the numbers in them, which are the same for a seed wherever it runs."""
    decision = decide(reference, replayed, design)
    assert (decision.more_needed, decision.reason) == (more, reason)


def test_what_a_decision_rests_on() -> None:
    early = decide(trials(9, 20), trials(4, 20), RECORDED)
    assert (early.n_reference, early.n_replayed, early.look, early.looks) == (9, 4, 0, 6)
    assert (early.confidence, early.final) == (1, False)
    assert early.ratio == pytest.approx(1, rel=0.05)
    look = decide(trials(30, 20, 0.08, 3), trials(12, 20, 0.08, 4), CONTROL)
    assert (look.n_reference, look.n_replayed, look.look, look.looks, look.final) == (10, 10, 2, 6, False)
    assert look.confidence == pytest.approx(1 - 2 * CONTROL.levels(None)[1])
    last = decide(trials(9, 20, 0.08, 3), trials(60, 20, 0.08, 4), RECORDED)
    assert (last.n_reference, last.n_replayed, last.look, last.final) == (9, 30, 6, True)
    assert last.confidence == pytest.approx(1 - 2 * RECORDED.levels(9)[5])
    single = decide([20.0, 20.2], trials(60, 20), RECORDED)
    assert (single.n_reference, single.n_replayed, single.look, single.final) == (2, 30, 0, True)


def test_levels_spend_alpha_where_information_grows() -> None:
    assert sum(RECORDED.levels(9)) > RECORDED.alpha > RECORDED.levels(9)[0]
    assert RECORDED.levels(9)[0] == pytest.approx(0.05 * ((1 / (1 / 9 + 1 / 5)) / (1 / (1 / 9 + 1 / 30))) ** 2)
    assert CONTROL.levels(None)[0] == pytest.approx(0.05 * (5 / 30) ** 2)


def test_the_same_trials_on_both_sides_are_reproduced() -> None:
    a, b = trials(30, 20, 0.2, 1), trials(30, 20, 0.2, 2)
    same = identical(decide(a, b, CONTROL))
    assert (same.verdict, same.ratio, same.low, same.high) == (ReplayVerdict.reproduced, 1, 1, 1)
    assert (same.look, same.final, same.more_needed) == (6, True, 0)
    assert same.reason == "both sides are the same trials"
    early = identical(decide(a[:2], b[:2], CONTROL))
    assert (early.look, early.final) == (1, True)


def test_trials_that_would_show_sameness() -> None:
    """By hand from the formula of Phillips 1990, with s^2 / n for the variance of a mean of four values."""
    a, b = trials(4, 20, 0.02, 1), trials(4, 20, 0.02, 2)
    spread = sum(float(np.var(np.log(values), ddof=1)) for values in (a, b))
    allowed = (math.log(1.05) / (stats.norm.ppf(0.95) + stats.norm.ppf(0.9))) ** 2 - 2 * 0.01**2
    assert trials_to_show_sameness(a, b, RECORDED) == pytest.approx(spread / allowed, rel=0.15, abs=1)
    assert trials_to_show_sameness(trials(10, 20, 0.05, 1), trials(10, 20, 0.05, 2), RECORDED) == 54
    assert trials_to_show_sameness(trials(10, 20, 0.2, 1), trials(10, 20, 0.2, 2), RECORDED) == 853
    assert trials_to_show_sameness([20.0] * 3, [20.0] * 3, RECORDED) == 3, "fewer are never enough"
    assert trials_to_show_sameness([20.0, 20.1], [20.0, 20.1], RECORDED) == 3
    assert trials_to_show_sameness([20.0], [20.0] * 9, RECORDED) is None
    assert trials_to_show_sameness([20.0] * 9, [20.0], RECORDED) is None
    assert trials_to_show_sameness(trials(30, 20, 1.0, 1), trials(30, 20, 1.0, 2), RECORDED) is None
    assert trials_to_show_sameness(a, b, replace(RECORDED, session_cv=0.02)) is None
