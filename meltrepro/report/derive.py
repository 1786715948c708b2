"""What follows from results: speeds of single repetitions, curves over prompts, ratios of releases, of memory."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from meltrepro.measure.operators import Share
from meltrepro.report.results import CellResult, Results, TurnResult

_SUSTAINED_FROM = 12
"""Turns of a single conversation from which on a workload counts as sustained."""
MEMORY_LIMIT = 1.15
"""How many times model file and KV cache a run may take at most."""


_ATTENTION = ("SOFT_MAX", "FLASH_ATTN_EXT")


def is_attention(share: Share) -> bool:
    """Whether an operator is attention over the KV cache: by the names of its products (`kq`, `kqv`), or by that word."""
    module = share.module.lower()
    named = module.startswith("kq") or "fattn" in module or "attention" in module
    return share.name in _ATTENTION or named or "attention" in share.name.lower()


def attention_share(cell: CellResult) -> float | None:
    """Attention's part of the decoder's time in generation; `None` where no trial was profiled."""
    found = cell.operators.get("generation")
    return None if found is None else sum(share.time_share for share in found.shares if is_attention(share))


def repetition_speeds(cell: CellResult, phase: str) -> list[float]:
    """Tokens per second of each repetition, by the definitions of `prefill_tps` and `generation_tps`."""
    found = []
    for turns in _repetitions(cell).values():
        if phase == "prefill":
            parts = [(turn.n_read, turn.prefill_tps) for turn in turns if turn.prefill_tps]
        else:
            parts = [(turn.n_written, turn.generation_tps) for turn in turns if turn.generation_tps]
        seconds = sum(tokens / speed for tokens, speed in parts if speed)
        if seconds > 0:
            found.append(sum(tokens for tokens, _ in parts) / seconds)
    return found


def _repetitions(cell: CellResult) -> dict[int, list[TurnResult]]:
    found: dict[int, list[TurnResult]] = {}
    for turn in cell.turns:
        found.setdefault(turn.repetition, []).append(turn)
    return found


@dataclass(frozen=True)
class PromptSpeed:
    """Generation after one prompt of a sustained run, over the repetitions."""

    prompt: int
    """From 1."""
    median: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Sustained:
    """Speed and temperature of one cell over its prompts."""

    cell: CellResult
    speeds: tuple[PromptSpeed, ...]
    temperatures: tuple[tuple[float, float], ...]
    """Number of the prompt that was being answered, with its fraction done, and degrees Celsius."""
    first_quarter: float
    """Mean tokens per second over the first quarter of the prompts."""
    last_quarter: float


def sustained(cell: CellResult) -> Sustained | None:
    """The curve of a cell; `None` where it has no speeds, or was not one conversation with many turns."""
    groups = list(_repetitions(cell).values())
    one_by_one = [len({turn.conversation for turn in turns}) == 1 and len(turns) >= _SUSTAINED_FROM for turns in groups]
    if not groups or not all(one_by_one):
        return None
    speeds = []
    for position in range(max(map(len, groups))):
        values = [
            speed for turns in groups if position < len(turns) and (speed := turns[position].generation_tps) is not None
        ]
        if values:
            speeds.append(PromptSpeed(position + 1, median(values), min(values), max(values), len(values)))
    if len(speeds) < 4:
        return None
    quarter = max(1, len(speeds) // 4)
    return Sustained(
        cell,
        tuple(speeds),
        _by_prompt(cell.temperatures, groups[0]),
        fmean(speed.median for speed in speeds[:quarter]),
        fmean(speed.median for speed in speeds[-quarter:]),
    )


def _by_prompt(
    temperatures: Sequence[tuple[float, float]], turns: Sequence[TurnResult]
) -> tuple[tuple[float, float], ...]:
    """Temperatures by prompt instead of by time; a prompt lasts until the next begins."""
    begins = [turn.began_s for turn in turns]
    usual = median(b - a for a, b in itertools.pairwise(begins)) if len(begins) > 1 else 1.0
    ends = [*begins[1:], begins[-1] + max(usual, 1e-9)]
    found = []
    for seconds, celsius in temperatures:
        if begins[0] <= seconds <= ends[-1]:
            index = max(bisect_right(begins, seconds) - 1, 0)
            length = ends[index] - begins[index]
            done = (seconds - begins[index]) / length if length > 0 else 0.0
            found.append((index + 1 + min(done, 1.0), celsius))
    return tuple(found)


@dataclass(frozen=True)
class MemoryUse:
    """Peak memory of a cell beside what it must hold, in bytes."""

    expected: float
    """Model file and KV cache."""
    peak: float
    low: float
    high: float

    @property
    def ratio(self) -> float:
        return self.peak / self.expected


def memory_use(cell: CellResult) -> MemoryUse | None:
    """`None` where peak, file or cache is not known."""
    peak = cell.metrics.get("peak_memory_bytes")
    if peak is None or not cell.model_bytes or cell.kv_bytes is None:
        return None
    return MemoryUse(cell.model_bytes + cell.kv_bytes, peak.median, peak.low, peak.high)


@dataclass(frozen=True)
class ReleaseDrift:
    """One speed of a newer release over the same speed of an older one, all else equal."""

    older: CellResult
    newer: CellResult
    phase: str
    ratio: float
    low: float | None
    """Lower bound of the 95 % interval; `None` where a side has a single repetition."""
    high: float | None
    n_older: int
    n_newer: int


def drifts(results: Results) -> list[ReleaseDrift]:
    """Every newer release against the oldest one on the same device, model, quantization and workload.

    A pair is taken within one campaign where there is one, because then both ran in turns.
    """
    groups: dict[tuple[object, ...], list[CellResult]] = {}
    for cell in results.measured:
        groups.setdefault(_sameness(cell), []).append(cell)
    found = []
    for cells in groups.values():
        oldest = min(cell.release for cell in cells)
        for newer in cells:
            olders = [cell for cell in cells if cell.release == oldest]
            within = [cell for cell in olders if cell.campaign == newer.campaign]
            if newer.release != oldest:
                pairs = (_drift((within or olders)[-1], newer, phase) for phase in ("prefill", "generation"))
                found += [pair for pair in pairs if pair is not None]
    return found


def _sameness(cell: CellResult) -> tuple[object, ...]:
    return (
        *(cell.device.key, cell.framework, cell.model),
        *(cell.quantization, cell.workload, cell.accelerated, cell.synthetic),
    )


def _drift(older: CellResult, newer: CellResult, phase: str) -> ReleaseDrift | None:
    from meltrepro.stats.ratio import comparable, ratio_interval

    before, after = repetition_speeds(older, phase), repetition_speeds(newer, phase)
    if comparable(before) and comparable(after):
        found = ratio_interval(before, after)
        known = found.low > 0 and math.isfinite(found.high)
        low, high = (found.low, found.high) if known else (None, None)
        return ReleaseDrift(older, newer, phase, found.ratio, low, high, len(before), len(after))
    medians = (older.metrics.get(f"{phase}_tps"), newer.metrics.get(f"{phase}_tps"))
    if medians[0] is None or medians[1] is None or medians[0].median <= 0:
        return None
    return ReleaseDrift(
        older, newer, phase, medians[1].median / medians[0].median, None, None, medians[0].n, medians[1].n
    )


def prompt_tokens(cell: CellResult) -> float | None:
    counts = [turn.n_prompt for turn in cell.turns]
    return fmean(counts) if counts else None
