"""Which of the paper's rows is about the same model in the same quantization as one of ours.

Names differ: `llama-2-7b` of the scores is `llama-2-7b-chat` on devices, and a manifest may say `stablelm-zephyr-3b`. Two
names mean the same model where the parts of one stand in a row within the other's; a name that fits several models, as
`gemma` does, means none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from meltrepro.report.content import Reference
from meltrepro.report.results import CellResult, Score
from meltrepro.report.values import Absent, Remark, Remarks, Value

_SEPARATORS = re.compile(r"[^a-z0-9.]+")
_FULL = frozenset({"unquantised", "unquantized", "none", "f16", "f32", "bf16", "fp16", "fp32"})
_TASKS = {
    ("truthfulqa", "mc1"): "truthfulqa_mc1",
    ("truthfulqa", "mc2"): "truthfulqa_mc2",
}
SECONDHAND = "quoted by others: a rough range, because the paper itself was not read"
_QUOTED = Remark("secondhand", SECONDHAND)
_FLAGS = {
    "in_memory_equals_on_disk_no_gib_conversion": Remark(
        "not converted", "the size in memory is the size on disk again, where other rows have it in GiB"
    ),
    "in_memory_not_size_converted_to_gib": Remark(
        "other size in memory", "the size in memory is not the size on disk in GiB, as it is in other rows"
    ),
    "max_ram_equals_size_plus_2.5": Remark(
        "peak not measured", "the published peak memory is the size plus 2.5 GB in every row: an estimate"
    ),
    "suspect_copy_of_tinyllama": Remark("copy of TinyLlama's", "all published scores of the row are TinyLlama's"),
    "replaces_suspect_row": Remark("recomputed", "stands for a published row that is a copy of another model's"),
    "stderr_inconsistent_with_n": Remark(
        "std. error of another", "the standard error does not follow from the score and the number of questions"
    ),
    "framework_label_suspect": Remark("framework doubtful", "the framework that the published row names is doubtful"),
    "variant_unclear": Remark("variant unclear", "it is not known which variant of the task was scored"),
    "missing": Remark("missing", "the published table has a gap here"),
}
"""Flags of the reference data in plain words."""


def same_model(references: Iterable[Reference], model: str) -> list[Reference]:
    """The references about a model; none where its name fits several."""
    found = [reference for reference in references if _contains(_parts(reference.model), _parts(model))]
    names = {_parts(reference.model) for reference in found}
    shortest = min(names, key=len, default=())
    return found if all(_contains(name, shortest) for name in names) else []


def same_quantization(a: str, b: str) -> bool:
    """`q3_K`, `q3_k` and `q3_K_M` are the same, and so are all names for not quantized."""
    one, other = _quantization(a), _quantization(b)
    return one == other


def paper_task(score: Score) -> str:
    """What the paper's table calls the task of a score."""
    return _TASKS.get((score.task, score.metric), score.task).lower().replace("-", "_")


def paper_score(references: Sequence[Reference], cell: CellResult, score: Score) -> Reference | None:
    """The paper's score of the same model, quantization and task, by the same framework where there is a choice."""
    task = paper_task(score)
    found = [
        reference
        for reference in same_model((r for r in references if r.table == "accuracy" and r.metric == task), cell.model)
        if same_quantization(reference.quantization, cell.quantization)
    ]
    ours = cell.framework.replace(".", "").lower()
    return min(found, key=lambda r: (r.framework.replace(".", "").lower() != ours, r.value is None), default=None)


def beside(reference: Reference | None) -> tuple[Value, Value]:
    """The paper's value, and what is known against it."""
    if reference is None:
        return None, None
    return Absent("missing in the paper's table") if reference.value is None else reference.value, remarks(reference)


def remarks(reference: Reference) -> Remarks:
    """Flags of a row in words."""
    words = tuple(_FLAGS[flag] for flag in reference.flags)
    return Remarks((_QUOTED, *words) if reference.secondhand else words)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in _SEPARATORS.split(name.lower()) if part)


def _contains(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the parts of the shorter name stand in a row within the longer one."""
    short, long = sorted((tuple(one), tuple(other)), key=len)
    return bool(short) and any(long[i : i + len(short)] == short for i in range(len(long) - len(short) + 1))


def _quantization(name: str) -> str:
    lowered = name.lower()
    return "unquantized" if lowered in _FULL else re.sub(r"^(q\d_k)_[sml]$", r"\1", lowered)
