"""How llama.cpp's scorer (`perplexity`) is called; its two releases count windows and sequences differently."""

from __future__ import annotations

from collections.abc import Sequence

from meltrepro.build.model import MODEL, Argument, PathOf
from meltrepro.record.trial import Mode, ScoringRequest

SCORER = "bin/perplexity"
DATA, LOGITS = "data", "logits"
"""Names of the inputs."""
_OLD = frozenset({"2024-02-27"})
_SEQUENCES = 32
"""Answers that the newer scorer may decode together; the old one takes 128."""
_MODES = {
    "multiple-choice": ("--multiple-choice", "--multiple-choice-tasks"),
    "hellaswag": ("--hellaswag", "--hellaswag-tasks"),
    "winogrande": ("--winogrande", "--winogrande-tasks"),
}


def fewest(mode: Mode, release: str) -> int:
    """How many questions a file must have: with fewer than 100 the old scorer divides by zero while it reads them."""
    return 100 if release in _OLD and mode == "multiple-choice" else 1


def arguments(request: ScoringRequest, release: str) -> tuple[Argument, ...]:
    """What follows the program's name. Data are given as a binary file: of others the last line break is cut off."""
    old = release in _OLD
    common = ("-m", PathOf(MODEL), "-t", str(request.threads), *(() if old else ("--fit", "off", "--no-warmup")))
    if request.mode in _MODES:
        mode, tasks = _MODES[request.mode]
        count = (request.questions or 0) + request.padding
        return (*common, "-bf", PathOf(DATA), mode, tasks, str(count), *_room(request, old=old))
    data = ("-bf", PathOf(DATA)) if request.mode == "perplexity" else ()
    chunks = () if request.chunks is None else ("--chunks", str(request.chunks))
    kl = ("--kl-divergence", "--kl-divergence-base", PathOf(LOGITS)) if request.mode == "kl-divergence" else ()
    return (*common, *data, *windows(request.context, request.batch), *chunks, *kl)


def windows(context: int, batch: int) -> tuple[str, ...]:
    """Windows of a text, one at a time: the newer scorer would put as many into a batch as it holds."""
    return ("-c", str(context), "-b", str(min(batch, context)))


def logits_arguments(context: int, batch: int, chunks: int | None, threads: int, release: str) -> tuple[str, ...]:
    """What follows the program's name where the unquantized model's expectations are written to a file."""
    return (
        *("-m", "/model", "-t", str(threads), *(() if release in _OLD else ("--fit", "off", "--no-warmup"))),
        *("-bf", "/text", *windows(context, batch)),
        *(() if chunks is None else ("--chunks", str(chunks))),
        *("--kl-divergence-base", "/out/logits"),
    )


def _room(request: ScoringRequest, *, old: bool) -> Sequence[str]:
    """A window for one question with all its answers. The newer scorer takes one for each of its sequences, and sums them."""
    batch = ("-b", str(min(request.batch, request.context)))
    if old:
        return ("-c", str(request.context), *batch)
    sequences = max(_SEQUENCES, request.sequences)
    return ("-c", str(-(-request.context // sequences)), "-np", str(sequences), *batch)
