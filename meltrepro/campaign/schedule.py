"""The order of trials: decided before the first one runs, the same for the same cells, protocol and seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from meltrepro.manifest.protocol import Order, Protocol
from meltrepro.record.layout import Trial, TrialKind


def schedule(
    cell_ids: Sequence[str], protocol: Protocol, *, profile: bool = False, own: Mapping[str, int] | None = None
) -> tuple[Trial, ...]:
    """Every trial of a campaign in the order in which it runs.

    `interleaved`: rounds of one repetition per cell, each round in an order of its own. `blocked`: cell after cell, the
    cells in an order drawn from the seed. `as-written`: cell after cell as the manifest names them. A cell's warm-ups
    come right before its first repetition, its profiled trial, where one is asked for, after its last.

    `own` has the repetitions of cells that do not follow the protocol, by id: they have neither warm-ups nor profiles.
    """
    return tuple(_trials(cell_ids, protocol, profile, own or {}))


def _trials(cell_ids: Sequence[str], protocol: Protocol, profile: bool, own: Mapping[str, int]) -> Iterator[Trial]:
    most = max([protocol.repetitions * any(cell_id not in own for cell_id in cell_ids), *own.values()])

    def repetitions(cell_id: str, indices: Iterable[int]) -> Iterator[Trial]:
        for index in indices:
            if index >= own.get(cell_id, protocol.repetitions):
                continue
            if cell_id in own:
                yield Trial(cell_id, TrialKind.repetition, index)
                continue
            if index == 0:
                yield from (Trial(cell_id, TrialKind.warmup, warmup) for warmup in range(protocol.warmups))
            yield Trial(cell_id, TrialKind.repetition, index)
            if profile and index == protocol.repetitions - 1:
                yield Trial(cell_id, TrialKind.profile, 0)

    if protocol.order is Order.interleaved:
        for index in range(most):
            for cell_id in _shuffled(cell_ids, protocol.seed, index):
                yield from repetitions(cell_id, [index])
        return
    blocks = cell_ids if protocol.order is Order.as_written else _shuffled(cell_ids, protocol.seed, 0)
    for cell_id in blocks:
        yield from repetitions(cell_id, range(most))


def _shuffled(cell_ids: Iterable[str], seed: int, index: int) -> list[str]:
    """Ordered by a digest: no random generator whose algorithm may change with the Python version."""
    return sorted(cell_ids, key=lambda cell_id: hashlib.sha256(f"{seed}/{index}/{cell_id}".encode()).digest())
