"""How much work a manifest is, to say how long the rest of a study will take. An estimate, never a result."""

from __future__ import annotations

from collections.abc import Mapping

from meltrepro.manifest.accuracy import AccuracyWorkload, QuestionWorkload
from meltrepro.manifest.schema import Manifest

UNKNOWN_PARAMETERS = 1e9
"""For a model that does not say how many it has."""
PREFILL_SHARE = 0.2
"""Time of a prompt's token over that of a generated one, roughly, on CPUs."""
PROMPT_TOKENS, QUESTION_TOKENS = 40, 200
"""Of a prompt; of a question with all of its answers."""
QUESTIONS, CHUNKS = 1000, 8
"""Of a task that does not say how many."""


def effort(manifest: Manifest, turns: Mapping[str, int]) -> float:
    """Work of all trials in tokens x parameters; `turns` is the number of prompts of each workload of conversations.

    One token of a decoder costs about two operations per parameter, so that this is proportional to the time on one
    device.
    """
    trials = manifest.protocol.repetitions + manifest.protocol.warmups
    tokens = sum(
        trials * turns[name] * (workload.max_tokens + PREFILL_SHARE * PROMPT_TOKENS)
        for name, workload in manifest.conversations.items()
    )
    tokens += sum(workload.repetitions * PREFILL_SHARE * _scored(workload) for workload in manifest.accuracy.values())
    weights = sum(
        len(model.quantizations) * (model.parameter_count or UNKNOWN_PARAMETERS) for model in manifest.models.values()
    )
    return len(manifest.frameworks) * len(manifest.targets) * tokens * weights


def _scored(workload: AccuracyWorkload) -> int:
    """Tokens that are read."""
    if isinstance(workload, QuestionWorkload):
        return QUESTION_TOKENS * (workload.questions or QUESTIONS)
    return workload.context * (workload.chunks or CHUNKS)
