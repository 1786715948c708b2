"""The order of trials: everything once, the same every time, and what each order promises."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from meltrepro.campaign.conduct import schedule
from meltrepro.manifest.protocol import Order, Protocol
from meltrepro.record.layout import Trial, TrialKind

CELLS = st.lists(st.text("abc/", min_size=1, max_size=6), min_size=1, max_size=8, unique=True)
PROTOCOLS = st.builds(
    Protocol,
    repetitions=st.integers(1, 6),
    warmups=st.integers(0, 3),
    order=st.sampled_from(Order),
    seed=st.integers(0, 2**32 - 1),
)


@given(CELLS, PROTOCOLS, st.booleans())
def test_every_trial_exactly_once(cells: list[str], protocol: Protocol, profile: bool) -> None:
    trials = schedule(cells, protocol, profile=profile)
    expected = {Trial(cell, TrialKind.warmup, i) for cell in cells for i in range(protocol.warmups)}
    expected |= {Trial(cell, TrialKind.repetition, i) for cell in cells for i in range(protocol.count)}
    expected |= {Trial(cell, TrialKind.profile, 0) for cell in cells if profile}
    assert len(trials) == len(expected)
    assert set(trials) == expected
    assert len({(trial.cell_id, trial.folder) for trial in trials}) == len(trials)


@given(CELLS, PROTOCOLS, st.booleans())
def test_the_same_seed_gives_the_same_order(cells: list[str], protocol: Protocol, profile: bool) -> None:
    assert schedule(cells, protocol, profile=profile) == schedule(list(cells), protocol, profile=profile)


@given(CELLS, PROTOCOLS)
def test_warmups_come_right_before_the_first_repetition(cells: list[str], protocol: Protocol) -> None:
    trials = schedule(cells, protocol)
    for cell in cells:
        first = trials.index(Trial(cell, TrialKind.repetition, 0))
        warmups = [Trial(cell, TrialKind.warmup, i) for i in range(protocol.warmups)]
        assert list(trials[first - protocol.warmups : first]) == warmups


@given(CELLS, PROTOCOLS)
def test_what_each_order_promises(cells: list[str], protocol: Protocol) -> None:
    trials = [trial for trial in schedule(cells, protocol) if trial.kind is TrialKind.repetition]
    blocks = [cell for cell, _ in groupby(trial.cell_id for trial in trials)]
    match protocol.order:
        case Order.interleaved:
            assert [trial.index for trial in trials] == sorted(trial.index for trial in trials)
        case Order.blocked:
            assert sorted(blocks) == sorted(cells)
        case Order.as_written:
            assert blocks == cells


def test_interleaved_rounds_differ_from_each_other_and_from_seed_to_seed() -> None:
    cells = [f"cell{i}" for i in range(12)]

    def rounds(seed: int) -> list[list[str]]:
        trials = schedule(cells, Protocol(repetitions=4, warmups=0, seed=seed))
        return [[trial.cell_id for trial in trials[i * 12 : (i + 1) * 12]] for i in range(4)]

    assert len({tuple(order) for order in rounds(1)}) == 4
    assert rounds(1) != rounds(2)


def test_the_order_is_pinned() -> None:
    """Changing it would make old campaigns impossible to repeat in their order."""
    trials = schedule(["a", "b", "c"], Protocol(repetitions=2, warmups=1, seed=7))
    assert " ".join(f"{trial.cell_id}/{trial.folder}" for trial in trials) == (
        "b/w000 b/r000 c/w000 c/r000 a/w000 a/r000 c/r001 b/r001 a/r001"
    )
