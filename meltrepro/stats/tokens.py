"""Token-exact comparison of what two runs generated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest


@dataclass(frozen=True)
class TurnComparison:
    """One turn of both runs; a length is None where that run has no such turn."""

    turn: int
    n_reference: int | None
    n_replayed: int | None
    diverges_at: int | None
    """Position of the first token that differs or that one run lacks; None where the turn is equal."""

    @property
    def n_equal(self) -> int:
        """Tokens before the divergence: those after it follow another text and are not compared."""
        return (self.n_reference or 0) if self.diverges_at is None else self.diverges_at

    @property
    def n_longest(self) -> int:
        return max(self.n_reference or 0, self.n_replayed or 0)


@dataclass(frozen=True)
class TokenComparison:
    """All turns of two runs, in the order in which they were held."""

    turns: tuple[TurnComparison, ...]

    @property
    def exact(self) -> bool:
        """Whether both runs generated the same tokens in the same turns."""
        return self.first_divergence is None

    @property
    def first_divergence(self) -> TurnComparison | None:
        """First turn that differs; later turns of its conversation continue from another text."""
        return next((turn for turn in self.turns if turn.diverges_at is not None), None)

    @property
    def share_equal(self) -> float:
        """Tokens before each turn's divergence over the tokens of its longer answer; 1 where nothing was generated."""
        longest = sum(turn.n_longest for turn in self.turns)
        return sum(turn.n_equal for turn in self.turns) / longest if longest else float(self.exact)


def compare_tokens(reference: Sequence[Sequence[int]], replayed: Sequence[Sequence[int]]) -> TokenComparison:
    """Compare two runs turn by turn; each run is a list of turns, a turn the ids of its generated tokens."""
    return TokenComparison(tuple(_turn(i, *turns) for i, turns in enumerate(zip_longest(reference, replayed))))


def _turn(turn: int, reference: Sequence[int] | None, replayed: Sequence[int] | None) -> TurnComparison:
    if reference is None or replayed is None:
        diverges_at: int | None = 0
    else:
        diverges_at = next((i for i, (a, b) in enumerate(zip_longest(reference, replayed)) if a != b), None)
    return TurnComparison(
        turn=turn,
        n_reference=None if reference is None else len(reference),
        n_replayed=None if replayed is None else len(replayed),
        diverges_at=diverges_at,
    )
