"""What llama.cpp's scorer printed, as scores; believed only as far as it adds up.

It prints one line per question with the share that is right so far, and a summary from 100 questions on. The count comes
from the lines, which must each fit the one before; the summary must say the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from meltrepro.accuracy.scores import Score, counted, of_each
from meltrepro.errors import RecordError
from meltrepro.record.trial import ScoringRequest

_HINT = "the scorer's whole output is in stdout.log and stderr.log of the record"
_LINE = re.compile(r"^([0-9]{1,9})\t\s*(\S+?)%?(?:\t.*)?$", re.MULTILINE)
_FINAL = {
    "multiple-choice": re.compile(r"Final result:\s*(\S+) \+/-"),
    "winogrande": re.compile(r"Final Winogrande score\(([0-9]{1,9}) tasks\):\s*(\S+) \+/-"),
}
_SUMMARY_FROM = 100
"""Fewer questions, or tokens of a text that is compared, have no summary."""
_ROUNDING = {"multiple-choice": 1e-6, "hellaswag": 1e-6, "winogrande": 1e-4}
"""Most by which the percentage on a line may be off: half of its last digit, and some."""
_FINAL_ROUNDING = 2e-4
_CHUNK = re.compile(r"\[([0-9]{1,9})\]([^,\s]+),")
_PERPLEXITY = re.compile(r"Final estimate: PPL = (\S+) \+/- (\S+)")
_KL_ROW = re.compile(
    r"^ *([0-9]{1,9}) +(\S+?)(?: ± +(\S+))? +\S+ ± +\S+ +(\S+) ± +(\S+) +.*?([0-9.]+|-?nan) ± +\S+( %)?$", re.MULTILINE
)
_KL_MEAN = re.compile(r"^(?:Average:|Mean +KLD:) *(\S+) ± *(\S+)$", re.MULTILINE)
_KL_ROUNDING = 2e-5
_COMPLAINTS = (
    ("does not fit in the context window", "raise the workload's context"),
    ("you need at least", "give a longer text, or lower the workload's context"),
    ("tokenizes to only", "give a longer text, or lower the workload's context"),
    ("inconsistent vocabulary", "compare with a model that has the same vocabulary"),
    ("does not look like a file", None),
    ("failed to open", None),
    ("failed reading", None),
    ("failed to read", None),
    ("failed to raad", None),
    ("failed to eval", None),
    ("failed to decode", None),
    ("decode() failed", None),
    ("malformed tasks", None),
    ("found bad task", None),
    ("found empty answer", None),
    ("no tasks", None),
    ("not a multiple of 6", None),
    ("failed to find comma", None),
    ("failed to parse answer", None),
    ("negative standard deviation", None),
)
"""What scorers say when they give up, which they do with exit status 0; and what helps."""


def read_scores(request: ScoringRequest, stdout: str, stderr: str) -> tuple[Score, ...]:
    """The scores of a trial, from what its scorer printed; raises `RecordError` where that is not whole or does not add up."""
    complaint = _complaint(stdout, stderr)
    if complaint is not None:
        raise complaint
    if request.mode == "perplexity":
        return (_perplexity(request, stdout, stderr),)
    if request.mode == "kl-divergence":
        return _kl_divergence(request, stdout)
    if request.mode not in _ROUNDING:
        raise _damaged(f"it has no mode {request.mode!r}")
    return (_questions(request, stdout, stderr),)


def _questions(request: ScoringRequest, stdout: str, stderr: str) -> Score:
    asked = request.questions or 0
    right = _right(_LINE.findall(stdout), _ROUNDING[request.mode])
    total = asked + request.padding
    if len(right) != total:
        raise _damaged(f"it was asked {total} questions and answered {len(right)}")
    final = _final(request, f"{stdout}\n{stderr}")
    if final is None and total >= _SUMMARY_FROM and request.mode in _FINAL:
        raise _damaged("its summary is missing")
    if final is not None and abs(final - 100 * right[-1] / total) > _FINAL_ROUNDING:
        raise _damaged(
            f"its summary says {final:g} %, and {right[-1]} of {total} right are {100 * right[-1] / total:.4f} %"
        )
    each = [k > before for before, k in pairwise([0, *right[:asked]])]
    return of_each(request.task, "mc1" if request.task == "truthfulqa" else "acc", each)


def _right(lines: Sequence[tuple[str, str]], rounding: float) -> list[int]:
    """How many were right after each question."""
    found: list[int] = []
    for place, (number, percentage) in enumerate(lines, 1):
        share = _number(percentage) / 100
        k = round(share * place)
        before = found[-1] if found else 0
        if int(number) != place or abs(share - k / place) > rounding or k - before not in (0, 1):
            raise _damaged(
                f"question {number} cannot bring the share to {percentage} % when {before} were right before it"
            )
        found.append(k)
    return found


def _final(request: ScoringRequest, text: str) -> float | None:
    pattern = _FINAL.get(request.mode)
    found = pattern.search(text) if pattern is not None else None
    if found is None:
        return None
    if request.mode == "winogrande" and int(found[1]) != (request.questions or 0) + request.padding:
        raise _damaged(f"its summary is over {found[1]} questions")
    return _number(found[found.re.groups])


def _perplexity(request: ScoringRequest, stdout: str, stderr: str) -> Score:
    chunks = _CHUNK.findall(stdout)
    final = _PERPLEXITY.search(f"{stdout}\n{stderr}")
    if final is None or not chunks:
        raise _damaged("its summary is missing")
    value, error = _number(final[1]), _number(final[2])
    _check_chunks(request, [number for number, _ in chunks])
    if abs(_number(chunks[-1][1]) - value) > 1e-3 * max(1.0, value) or value < 1:
        raise _damaged(f"its summary says {value:g}, its last window {chunks[-1][1]}")
    return Score(request.task, "perplexity", value, error, len(chunks) * scored(request.context), None)


def _kl_divergence(request: ScoringRequest, stdout: str) -> tuple[Score, ...]:
    rows = _KL_ROW.findall(stdout)
    mean = _KL_MEAN.search(stdout)
    if not rows:
        raise _damaged("its summary is missing")
    _check_chunks(request, [row[0] for row in rows])
    n = len(rows) * scored(request.context)
    _, perplexity, perplexity_error, divergence, divergence_error, same, percent = rows[-1]
    if mean is None and n >= _SUMMARY_FROM:
        raise _damaged("its summary is missing")
    value, error = map(_number, mean.groups() if mean else (divergence, divergence_error))
    if abs(_number(divergence) - value) > _KL_ROUNDING:
        raise _damaged(f"its summary says {value:g}, its last window {divergence}")
    share = _number(same) / (100 if percent else 1)
    k = round(share * n)
    if not 0 <= k <= n or abs(share - k / n) > 2e-5:
        raise _damaged(f"{share:.3%} of {n} tokens are no whole number of tokens")
    return (
        Score(request.task, "kl_divergence", value, error, n, None),
        Score(
            request.task,
            "perplexity",
            _number(perplexity),
            _number(perplexity_error) if perplexity_error else None,
            n,
            None,
        ),
        counted(request.task, "same_top", n, k),
    )


def scored(context: int) -> int:
    """Tokens of a window that are scored: its second half, without the last one's successor."""
    return context - 1 - context // 2


def _check_chunks(request: ScoringRequest, numbers: Sequence[str]) -> None:
    if [int(number) for number in numbers] != list(range(1, len(numbers) + 1)):
        raise _damaged("windows of the text are missing")
    if request.chunks is not None and len(numbers) != request.chunks:
        raise _damaged(
            f"it was asked for {request.chunks} windows of the text and scored {len(numbers)}",
            hint="give a longer text, or ask for fewer chunks",
        )


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _damaged(f"{text[:40]!r} is no number") from None
    if not math.isfinite(value):
        raise _damaged(f"it came to {text}, which is no number")
    return value


def _complaint(stdout: str, stderr: str) -> RecordError | None:
    for line in (*stdout.splitlines(), *stderr.splitlines()):
        for words, hint in _COMPLAINTS:
            if words in line:
                return RecordError(f"the scorer gave up: {line.strip()[:300]}", hint=hint or _HINT)
    return None


def _damaged(why: str, hint: str = _HINT) -> RecordError:
    return RecordError(f"the scorer's output does not add up: {why}", hint=hint)
