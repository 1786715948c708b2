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
from meltrepro.report.values import Absent, Value

_SEPARATORS = re.compile(r"[^a-z0-9.]+")
_FULL = frozenset({"unquantised", "unquantized", "none", "f16", "f32", "bf16", "fp16", "fp32"})
_TASKS = {
    ("truthfulqa", "mc1"): "truthfulqa_mc1",
    ("truthfulqa", "mc2"): "truthfulqa_mc2",
}
SECONDHAND = "secondhand: a rough range, the paper itself was not read"


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


def remarks(reference: Reference) -> str:
    """Flags of a row in words."""
    words = [flag.replace("_", " ") for flag in reference.flags]
    return "; ".join([SECONDHAND, *words] if reference.secondhand else words)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in _SEPARATORS.split(name.lower()) if part)


def _contains(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the parts of the shorter name stand in a row within the longer one."""
    short, long = sorted((tuple(one), tuple(other)), key=len)
    return bool(short) and any(long[i : i + len(short)] == short for i in range(len(long) - len(short) + 1))


def _quantization(name: str) -> str:
    lowered = name.lower()
    return "unquantized" if lowered in _FULL else re.sub(r"^(q\d_k)_[sml]$", r"\1", lowered)
