"""What quantization does to accuracy: F6 and F7. Real weights only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from statistics import fmean, median

from meltrepro.report.results import CellResult, Device, Results, Score
from meltrepro.studies.melt import paper
from meltrepro.studies.melt.checks import check_scores, scores_of, standard_error
from meltrepro.studies.melt.findings import cells as of_cells
from meltrepro.studies.melt.findings.model import Definition, Judgement, Published, Quantity, Rule, missing

_LARGER = 1.5
"""How many times more parameters make a model the larger one."""
_SAME_SIZE = 0.2
_MOST_REMARKS = 3
_LOSS_OF_PAPER = 0.015
"""What 3 bits cost the paper's models, by this rule: 0.5452 - 0.5303."""
_NO_SCORES = "no cell with real weights has scores: needs a workload of accuracy"

_ACCURACIES = ("acc", "mc1")
"""Metrics that count right answers; `same_top` counts agreement with another model."""

Task = tuple[str, str, int]
"""Name of a task, of its metric, and how many questions were asked."""


@dataclass(frozen=True)
class _Tested:
    """One model in one quantization with its counted scores, which several cells may have."""

    cells: tuple[CellResult, ...]
    scores: Mapping[Task, Score]

    @property
    def cell(self) -> CellResult:
        """Any of them: all are of one file."""
        return self.cells[-1]


@dataclass(frozen=True)
class _Ladder:
    """One model without quantization, in 4 bits and in 3, over the tasks that all three have."""

    model: str
    parameters: float
    accuracy: Mapping[int, float]
    """By bits: 16, 4, 3."""
    error: Mapping[int, float]
    cells: tuple[CellResult, ...]
    tasks: int

    def drop(self, bits: int) -> float:
        """Part of the accuracy that quantization costs."""
        return 1 - self.accuracy[bits] / self.accuracy[16]


def costs_accuracy(cells: Sequence[CellResult]) -> Judgement:
    """F6: mean accuracy without quantization, in 4 and in 3 bits, and the relative loss by size of the model."""
    tested = list(_tested(cells))
    if not tested:
        return missing(_NO_SCORES)
    ladders = list(_ladders(tested))
    if not ladders:
        return missing("needs scores of one model without quantization, in 4 bits and in 3, on the same tasks")
    mean = {bits: fmean(ladder.accuracy[bits] for ladder in ladders) for bits in (16, 4, 3)}
    # Of the mean over models: their questions are the same, their answers are not.
    error = math.sqrt(sum(ladder.error[16] ** 2 + ladder.error[3] ** 2 for ladder in ladders)) / len(ladders)
    numbers = {
        "models": Quantity(len(ladders)),
        "tasks_fewest": Quantity(min(ladder.tasks for ladder in ladders)),
        "accuracy_unquantized": Quantity(mean[16]),
        "accuracy_4_bits": Quantity(mean[4]),
        "accuracy_3_bits": Quantity(mean[3]),
        "standard_error_of_loss": Quantity(error),
    }
    notes = list(_remarks(tested))
    ordered = mean[3] < mean[4] < mean[16] and mean[16] - mean[3] > error
    if not ordered and error > _LOSS_OF_PAPER:
        notes.append(
            f"one standard error of the loss, {error:.3f}, is more than the {_LOSS_OF_PAPER:.3f} that the paper's models lose in "
            "3 bits: with so few questions, that no loss shows says little"
        )
    smallest = min(ladders, key=lambda ladder: ladder.parameters)
    larger = [ladder.drop(3) for ladder in ladders if ladder.parameters >= _LARGER * smallest.parameters > 0]
    sizes_matter = True
    if larger:
        numbers["loss_of_smallest"] = Quantity(100 * smallest.drop(3), "%")
        numbers["loss_of_larger_mean"] = Quantity(100 * fmean(larger), "%")
        sizes_matter = smallest.drop(3) > fmean(larger)
    else:
        notes.append("one size of model: that small ones lose more was not tested")
    reason = (
        f"mean accuracy is {mean[16]:.4f} without quantization, {mean[4]:.4f} in 4 bits, {mean[3]:.4f} in 3; "
        f"one standard error of the loss is {error:.4f}"
        + ("" if sizes_matter else "; the smallest model loses no more than larger ones")
    )
    evidence = tuple(cell for ladder in ladders for cell in ladder.cells)
    return Judgement(ordered and sizes_matter, reason, numbers, evidence, tuple(notes))


def larger_quantized_wins(cells: Sequence[CellResult]) -> Judgement:
    """F7: larger models in few bits against smaller ones without quantization, at about the same size."""
    tested = [one for one in _tested(cells) if one.cell.model_bytes and one.cell.parameters]
    if not tested:
        return missing(_NO_SCORES)
    differences, used = [], list[CellResult]()
    for a, b in combinations(tested, 2):
        small, large = sorted((a, b), key=lambda one: one.cell.parameters or 0)
        common = small.scores.keys() & large.scores.keys()
        if not (_comparable(small.cell, large.cell) and common):
            continue
        differences.append(_mean(large, common) - _mean(small, common))
        used += [*small.cells, *large.cells]
    if not differences:
        return missing(
            "needs scores of a small model without quantization and of a larger one in few bits whose files differ by a fifth at most"
        )
    better = sum(difference >= 0 for difference in differences)
    numbers = {
        "pairs": Quantity(len(differences)),
        "pairs_where_larger_wins": Quantity(better),
        "gain_median": Quantity(median(differences)),
    }
    reason = f"the larger model in few bits is at least as accurate in {of_cells.of(better, len(differences), 'pair')}"
    return Judgement(better == len(differences), reason, numbers, tuple(used), tuple(_remarks(tested)))


def _comparable(small: CellResult, large: CellResult) -> bool:
    sizes = sorted((small.model_bytes or 0, large.model_bytes or 0))
    return (
        of_cells.unquantised(small)
        and not of_cells.unquantised(large)
        and (large.parameters or 0) >= _LARGER * (small.parameters or 0)
        and sizes[1] <= (1 + _SAME_SIZE) * sizes[0]
    )


def _tested(cells: Iterable[CellResult]) -> Iterator[_Tested]:
    """Each model and quantization once, whatever the device: an artifact answers alike everywhere. The last counts."""
    found: dict[tuple[str, str, str, str], _Tested] = {}
    for cell in cells:
        scores = {
            (score.task, score.metric, score.n): score
            for score in cell.scores
            if score.metric in _ACCURACIES and score.k is not None and score.n
        }
        if scores and cell.state == "measured" and not cell.synthetic:
            key = (cell.model, cell.quantization, cell.framework, cell.release)
            known = found.get(key, _Tested((), {}))
            found[key] = _Tested((*known.cells, cell), {**known.scores, **scores})
    yield from found.values()


def _ladders(tested: Sequence[_Tested]) -> Iterator[_Ladder]:
    groups = of_cells.grouped(tested, lambda one: (one.cell.model, one.cell.framework, one.cell.release))
    for unordered in groups.values():
        group = sorted(unordered, key=lambda one: one.cell.quantization)  # f16 before f32
        full = [one for one in group if of_cells.unquantised(one.cell)]
        three = [one for one in group if of_cells.bits(one.cell.quantization) == 3]
        four = [one for one in group if of_cells.bits(one.cell.quantization) == 4]
        if not (full and three and four):
            continue
        low = three[0]
        same = [one for one in four if of_cells.scheme(one.cell.quantization) == of_cells.scheme(low.cell.quantization)]
        rungs = {16: full[0], 4: (same or four)[0], 3: low}
        common = set.intersection(*(set(one.scores) for one in rungs.values()))
        if common and _mean(rungs[16], common) > 0:
            yield _Ladder(
                model=full[0].cell.model,
                parameters=max(one.cell.parameters or 0 for one in rungs.values()),
                accuracy={bits: _mean(one, common) for bits, one in rungs.items()},
                error={bits: _error(one, common) for bits, one in rungs.items()},
                cells=tuple(cell for one in rungs.values() for cell in one.cells),
                tasks=len(common),
            )


def _mean(one: _Tested, tasks: Iterable[Task]) -> float:
    return fmean(one.scores[task].value for task in sorted(tasks))


def _error(one: _Tested, tasks: Iterable[Task]) -> float:
    """Standard error of the mean over tasks."""
    errors = [
        score.stderr if score.stderr is not None else standard_error(score.value, score.n)
        for score in (one.scores[task] for task in sorted(tasks))
    ]
    return math.sqrt(sum(error**2 for error in errors)) / len(errors)


def _remarks(tested: Sequence[_Tested]) -> Iterator[str]:
    """What is odd about the scores, and models that were quantized before."""
    remarks = check_scores(scores_of(Results(tuple(cell for one in tested for cell in one.cells))))
    yield from (f"{remark.kind}: {remark.text}" for remark in remarks[:_MOST_REMARKS])
    if len(remarks) > _MOST_REMARKS:
        yield f"{len(remarks) - _MOST_REMARKS} more remarks on scores"
    again = {one.cell.model: of_cells.requantized_from(one.cell) for one in tested}
    for model, source in ((model, source) for model, source in again.items() if source):
        yield f"the weights of {model} come from a file in {source}: without quantization they are no better than that"


@cache
def cells_of_paper() -> tuple[CellResult, ...]:
    """The study's scores and sizes as cells, defective rows and composites left out, to decide F6 and F7 by its own data."""
    device = Device("study", "study", "study", memory_bytes=None, virtual=False)
    sizes = {(row.model, row.quantization): row for row in paper.sizes()}
    groups = of_cells.grouped(
        (row for row in paper.accuracy() if row.sound and row.kind == "reported" and row.task in paper.SPLITS),
        lambda row: (row.model, row.quantization),
    )
    found = []
    for (model, quantization), rows in groups.items():
        size = sizes.get((model, quantization))
        if size is None:
            continue
        # llama.cpp's scores before those of other frameworks, which come in where it has none.
        ordered = sorted(rows, key=lambda row: row.framework == "llamacpp")
        scores = {row.task: _counted(row.task, row.value or 0) for row in ordered}
        found.append(
            CellResult(
                campaign="paper",
                cell=f"{model}/{quantization}",
                state="measured",
                reason=None,
                device=device,
                framework="study",
                release="",
                model=model,
                quantization="f16" if quantization == paper.UNQUANTISED else quantization,
                workload="accuracy",
                parameters=size.parameters,
                model_bytes=round(size.disk_gb * 1e9),
                scores=tuple(scores.values()),
            )
        )
    return tuple(found)


def _counted(task: str, value: float) -> Score:
    """A published score as the count that it was before it was printed."""
    n = paper.SPLITS[task]
    k = round(value * n)
    return Score(task, "acc", k / n, standard_error(k / n, n), n, k)


def _by_rule(rule: Rule, files: str, *names: str) -> tuple[Published, ...]:
    """What a rule makes of the study's own figures."""
    numbers = rule(cells_of_paper()).numbers
    return tuple(Published(name, numbers[name], f"derived: MELT-public {files}, by this rule") for name in names)


def _losses_of_paper() -> tuple[Published, ...]:
    means = ("accuracy_unquantized", "accuracy_4_bits", "accuracy_3_bits")
    return _by_rule(costs_accuracy, "results.csv", *means, "loss_of_smallest", "loss_of_larger_mean")


def _pairs_of_paper() -> tuple[Published, ...]:
    names = ("pairs", "pairs_where_larger_wins", "gain_median")
    return _by_rule(larger_quantized_wins, "results.csv and model_specs.csv", *names)


F6 = Definition(
    id="F6",
    claim="Quantization costs accuracy, more in 3 bits than in 4, and more of small models.",
    threshold="mean accuracy over tasks and models: 3 bits < 4 bits < none, the loss in 3 bits beyond one standard error; and the relative "
    f"loss in 3 bits larger for the smallest model than in the mean over those of {_LARGER:g} times its parameters or more",
    needs="scores (counted ones: acc, mc1) of one real model in f16, a 4-bit and a 3-bit quantization on the same tasks; of two sizes for the "
    "last part",
    decide=costs_accuracy,
    synthetic=False,
    reference=_losses_of_paper,
)
F7 = Definition(
    id="F7",
    claim="At equal memory, a larger quantized model beats a smaller one without quantization.",
    threshold=f"files within {_SAME_SIZE:.0%}, {_LARGER:g} times the parameters: mean accuracy over common tasks of the larger one not below the "
    "smaller one's, in every pair",
    needs="scores of two real models: the smaller in f16 and the larger in few bits, with files of about one size",
    decide=larger_quantized_wins,
    synthetic=False,
    reference=_pairs_of_paper,
)
ACCURACIES = (F6, F7)
