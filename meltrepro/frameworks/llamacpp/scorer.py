"""llama.cpp's scorer (`perplexity`): how it is called, and whether what it left is whole.

Its two releases count windows and sequences differently.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from meltrepro.accuracy.questions import Question, Sheet
from meltrepro.accuracy.scores import Score
from meltrepro.build.model import ADAPTER, MODEL, Argument, PathOf
from meltrepro.errors import BuildError
from meltrepro.frameworks.base import DATA, LOGITS
from meltrepro.frameworks.llamacpp import scorer_files as files
from meltrepro.frameworks.llamacpp.options import KNOBS, arguments
from meltrepro.frameworks.llamacpp.scorer_output import read_scores, scored
from meltrepro.manifest.accuracy import TextWorkload
from meltrepro.record.trial import Mode, ScoringRequest

_OLD = frozenset({"2024-02-27"})
_SEQUENCES = 32
"""Answers that the newer scorer may decode together; the old one takes 128."""
_OPTIONS = {
    "multiple-choice": ("--multiple-choice", "--multiple-choice-tasks"),
    "hellaswag": ("--hellaswag", "--hellaswag-tasks"),
    "winogrande": ("--winogrande", "--winogrande-tasks"),
}
_MODES: dict[str, Mode] = {
    "hellaswag": "hellaswag",
    "winogrande": "winogrande",
    "perplexity": "perplexity",
    "kl-divergence": "kl-divergence",
}
"""Tasks that it has a mode of its own for; all others are multiple choice."""
_LOGITS_THREADS = 2
"""Part of the identity of what it makes, so that it is the same on every machine."""
_LOGITS_HEAD = struct.Struct("<8s3i")
_LOGITS_MAGIC = b"_logits_"
_TAIL_LINES = 12


class PerplexityScorer:
    """The `Scorer` of llama.cpp's bundles."""

    program = "bin/perplexity"

    def refusal(self, task: str) -> str | None:
        return None

    def takes(self, options: Mapping[str, JsonValue]) -> dict[str, JsonValue] | None:
        """What is given for the CPU, which is what it computes on."""
        own = {name: value for name, value in options.items() if name in KNOBS and not KNOBS[name].gpu}
        return own if own.keys() - {"mmap"} else None

    def mode(self, task: str) -> Mode:
        return _MODES.get(task, "multiple-choice")

    def holds(self, mode: Mode, question: Question) -> bool:
        """Whether the format of a mode can hold a question: its CSV of WinoGrande knows no doubled quotes."""
        return mode != "winogrande" or files.holds_sentence(question)

    def sheet(self, mode: Mode, questions: Sequence[Question], release: str) -> Sheet:
        """The file of questions; with fewer than 100 the old multiple choice divides by zero while it reads them."""
        if mode == "winogrande":
            return files.winogrande(questions)
        if mode == "hellaswag":
            return files.hellaswag(questions)
        return files.multiple_choice(questions, 100 if release in _OLD else 1)

    def inputs(self, mode: Mode) -> Collection[str]:
        """The text's tokens stand in the file of expectations."""
        return (LOGITS,) if mode == "kl-divergence" else (DATA,)

    def arguments(self, request: ScoringRequest, release: str) -> tuple[Argument, ...]:
        """What follows its name. Data are given as a binary file: of others the last line break is cut off."""
        options = arguments(request.options or {}, release)
        scale = request.adapter_scale
        added = () if scale is None else ("--lora-scaled", PathOf(ADAPTER, f":{scale}"))
        common: tuple[Argument, ...] = ("-m", PathOf(MODEL), *added, *_common(request.threads, release), *options)
        if request.mode in _OPTIONS:
            mode, tasks = _OPTIONS[request.mode]
            count = (request.questions or 0) + request.padding
            window = _question_window(request, old=release in _OLD)
            return (*common, "-bf", PathOf(DATA), mode, tasks, str(count), *window)
        data = ("-bf", PathOf(DATA)) if request.mode == "perplexity" else ()
        kl = ("--kl-divergence", "--kl-divergence-base", PathOf(LOGITS)) if request.mode == "kl-divergence" else ()
        return (*common, *data, *_windows(request.context, request.batch, request.chunks), *kl)

    def read(self, request: ScoringRequest, stdout: str, stderr: str) -> tuple[Score, ...]:
        return read_scores(request, stdout, stderr)

    def logits_command(self, workload: TextWorkload, release: str) -> tuple[str, ...]:
        """The scorer, writing what `/model` expects of `/text` instead of scoring it; always with as many threads."""
        return (
            *(f"/bundle/{self.program}", "-m", "/model", *_common(_LOGITS_THREADS, release)),
            *("-bf", "/text", *_windows(workload.context, workload.batch, workload.chunks)),
            *("--kl-divergence-base", "/out/logits"),
        )

    def check_logits(self, workload: TextWorkload, path: Path, printed: str) -> None:
        """Raise `BuildError` where the file is not whole, or not of the windows that were asked for.

        The magic, then window, vocabulary and number of windows as int32, the text's tokens as int32, and for every token
        that is scored two floats and one uint16 for each entry of the vocabulary, all together of an even number. The
        scorer ends well where the text is too short, and does not look whether its writes succeed.
        """
        if "Final estimate: PPL" not in printed:
            tail = "\n".join(line for line in printed.splitlines()[-_TAIL_LINES:] if line.strip())
            raise BuildError(f"the scorer came to no estimate:\n{tail}")
        size, context, chunks = path.stat().st_size, workload.context, workload.chunks
        with path.open("rb") as file:
            head = file.read(_LOGITS_HEAD.size)
        if len(head) < _LOGITS_HEAD.size or not head.startswith(_LOGITS_MAGIC):
            raise BuildError(f"what the scorer wrote is no file of expectations: it has {size} bytes")
        _, window, vocabulary, windows = _LOGITS_HEAD.unpack(head)
        if window != context or windows < 1 or vocabulary < 1 or (chunks is not None and windows != chunks):
            wanted = f"{chunks or 'all'} windows of {context} tokens"
            raise BuildError(f"the scorer wrote {windows} windows of {window} tokens, and was asked for {wanted}")
        row = 2 * (vocabulary + vocabulary % 2 + 4)
        expected = _LOGITS_HEAD.size + windows * (4 * context + scored(context) * row)
        if size != expected:
            raise BuildError(
                f"what the scorer wrote is not whole: {size} bytes, {expected} are expected",
                hint="see whether the disk of the store has room, and run the same command again",
            )


def _common(threads: int, release: str) -> tuple[str, ...]:
    return ("-t", str(threads), *(() if release in _OLD else ("--fit", "off", "--no-warmup")))


def _windows(context: int, batch: int, chunks: int | None) -> tuple[str, ...]:
    """Windows of a text, one at a time: the newer scorer would put as many into a batch as it holds."""
    return ("-c", str(context), "-b", str(min(batch, context)), *(() if chunks is None else ("--chunks", str(chunks))))


def _question_window(request: ScoringRequest, *, old: bool) -> tuple[str, ...]:
    """A window for one question with all its answers. The newer scorer takes one for each of its sequences, and sums them."""
    batch = ("-b", str(min(request.batch, request.context)))
    if old:
        return ("-c", str(request.context), *batch)
    sequences = max(_SEQUENCES, request.sequences)
    return ("-c", str(-(-request.context // sequences)), "-np", str(sequences), *batch)
