"""Token-exact comparison of two runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meltrepro.stats.tokens import TurnComparison, compare_tokens

runs = st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=4)


def test_equal_runs() -> None:
    comparison = compare_tokens([[1, 2, 3], [4]], [[1, 2, 3], [4]])
    assert comparison.exact and comparison.first_divergence is None
    assert comparison.share_equal == 1.0


def test_divergence_is_placed_and_what_follows_it_does_not_count() -> None:
    comparison = compare_tokens([[1, 2], [5, 6, 7, 8]], [[1, 2], [5, 9, 7, 8]])
    assert comparison.first_divergence == TurnComparison(turn=1, n_reference=4, n_replayed=4, diverges_at=1)
    assert comparison.share_equal == (2 + 1) / (2 + 4)


def test_a_shorter_answer_diverges_where_it_ends() -> None:
    comparison = compare_tokens([[1, 2, 3]], [[1, 2]])
    assert comparison.turns[0].diverges_at == 2
    assert comparison.share_equal == 2 / 3


def test_a_missing_turn_is_a_difference_even_when_it_is_empty() -> None:
    comparison = compare_tokens([[1], []], [[1]])
    assert comparison.turns[1] == TurnComparison(turn=1, n_reference=0, n_replayed=None, diverges_at=0)
    assert not comparison.exact
    assert compare_tokens([[]], []).share_equal == 0.0


def test_nothing_generated_is_equal() -> None:
    assert compare_tokens([], []).share_equal == 1.0
    assert compare_tokens([[]], [[]]).exact


@given(runs, runs)
def test_exact_means_equal_and_shares_are_symmetric(a: list[list[int]], b: list[list[int]]) -> None:
    there, back = compare_tokens(a, b), compare_tokens(b, a)
    assert there.exact == (a == b)
    assert there.share_equal == back.share_equal
    assert 0 <= there.share_equal <= 1
    assert [turn.diverges_at for turn in there.turns] == [turn.diverges_at for turn in back.turns]


@given(runs)
def test_a_run_equals_itself(run: list[list[int]]) -> None:
    assert compare_tokens(run, run).share_equal == 1.0
