"""The same model under several engines: which cells are compared with which, and whether their answers are the same tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from meltrepro.report.cells import ordered, software
from meltrepro.report.results import Answer, CellResult, Results
from meltrepro.stats.tokens import compare_tokens

_SPEEDS = frozenset({"prefill_tps", "generation_tps"})
_CODES = re.compile(r"b?f16|f32|as-is|q\d_\w+", re.IGNORECASE)
"""Quantizations whose names stand for the same numbers in every engine."""
_SHOWN, _BEFORE = 40, 20
"""Letters of an answer that are shown where two part, and how many of them may be what both have."""
Place = tuple[object, ...]
Prompts = Mapping[tuple[int, int], int]
"""Tokens of each prompt, by conversation and turn."""


@dataclass(frozen=True)
class Pair:
    """A cell, and the cell of another engine that it is compared with: that of the manifest's first which has it."""

    cell: CellResult
    reference: CellResult


def groups(results: Results) -> list[list[CellResult]]:
    """Cells of one device, model and workload that more than one engine was measured with, by scheme from the smallest on."""
    found: dict[Place, list[CellResult]] = {}
    for cell in ordered(results.measured):
        if cell.metrics.keys() & _SPEEDS:
            found.setdefault((cell.device.key, cell.model, cell.workload, cell.synthetic), []).append(cell)
    return [_by_scheme(cells) for cells in found.values() if len({cell.framework for cell in cells}) > 1]


def _by_scheme(cells: Sequence[CellResult]) -> list[CellResult]:
    smallest: dict[str, int] = {}
    for cell in cells:
        size = cell.model_bytes or 0
        smallest[cell.quantization] = min(smallest.get(cell.quantization, size), size)
    return sorted(
        cells,
        key=lambda cell: (smallest[cell.quantization], cell.quantization, cell.rank, software(cell), cell.campaign),
    )


def names(cells: Sequence[CellResult]) -> tuple[str, ...]:
    """The engines of some cells, in the order of the manifest."""
    return tuple(dict.fromkeys(software(cell) for cell in sorted(cells, key=lambda cell: (cell.rank, software(cell)))))


def pairs(results: Results) -> Iterator[Pair]:
    """Each cell of an engine with that of the first one, all else equal; within one campaign where there is such a one."""
    for group in groups(results):
        for scheme in dict.fromkeys(cell.quantization for cell in group):
            cells = [cell for cell in group if cell.quantization == scheme]
            first = [cell for cell in cells if software(cell) == software(cells[0])]
            for cell in cells[len(first) :]:
                within = [one for one in first if one.campaign == cell.campaign]
                yield Pair(cell, (within or first)[-1])


def prompts(cell: CellResult) -> Prompts:
    """Those of its first repetition."""
    first = min((turn.repetition for turn in cell.turns), default=0)
    return {(turn.conversation, turn.turn): turn.n_prompt for turn in cell.turns if turn.repetition == first}


@dataclass(frozen=True)
class Parting:
    """Where two answers part first; numbers count from 1."""

    conversation: int
    turn: int
    token: int
    ids: tuple[int | None, int | None]
    """Of the cell and of its reference; `None` where an answer has ended."""
    margins: tuple[float | None, ...]
    """By how much the logit of each exceeds the next largest of its engine; `None` where a record does not say."""
    texts: tuple[str, str]
    """What both wrote there, and a little of what is before."""


@dataclass(frozen=True)
class TokenCheck:
    """The answers of a pair. What follows an answer that differs follows another text, and is not compared."""

    pair: Pair
    answers: int
    equal_answers: int
    tokens: int
    equal_tokens: int
    parting: Parting | None
    """`None` where all are equal."""

    @property
    def same_prompts(self) -> bool:
        return prompts(self.pair.cell) == prompts(self.pair.reference)


def same_codes(cell: CellResult) -> bool:
    """Whether the weights are the same numbers in every engine that has them."""
    return _CODES.fullmatch(cell.quantization) is not None


def token_checks(results: Results) -> list[TokenCheck]:
    """Of all pairs that have the same weights and answered greedily."""
    return [
        _check(pair)
        for pair in pairs(results)
        if same_codes(pair.cell) and pair.cell.answers and pair.reference.answers
    ]


def _check(pair: Pair) -> TokenCheck:
    answers = equal_answers = tokens = equal_tokens = 0
    parting: Parting | None = None
    theirs = {(one.conversation, one.turn): one for one in pair.reference.answers}
    left: set[int] = set()
    for one in pair.cell.answers:
        other = theirs.get((one.conversation, one.turn))
        if other is None or one.conversation in left:
            continue
        (turn,) = compare_tokens([other.token_ids], [one.token_ids]).turns
        answers, tokens, equal_tokens = answers + 1, tokens + turn.n_longest, equal_tokens + turn.n_equal
        if turn.diverges_at is None:
            equal_answers += 1
        else:
            left.add(one.conversation)
            parting = parting or _parting(one, other, turn.diverges_at)
    return TokenCheck(pair, answers, equal_answers, tokens, equal_tokens, parting)


def _parting(one: Answer, other: Answer, at: int) -> Parting:
    ids = tuple(each.token_ids[at] if at < len(each.token_ids) else None for each in (one, other))
    margins = tuple(each.margins[at] if at < len(each.margins) else None for each in (one, other))
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.text, other.text, strict=False)))
    begin = max(one.text.rfind(" ", 0, same) + 1, same - _BEFORE, 0)
    ours, theirs = (_part(each.text, begin) for each in (one, other))
    return Parting(one.conversation + 1, one.turn + 1, at + 1, (ids[0], ids[1]), margins, (ours, theirs))


def _part(text: str, begin: int) -> str:
    shown = text[begin : begin + _SHOWN]
    return f"{'…' if begin else ''}{shown}{'…' if begin + _SHOWN < len(text) else ''}"
