"""Long inference without pauses: many prompts laid out as conversations none of which can overflow its context.

A runner ends a conversation whose context is full. How many tokens a prompt has is only known to a model, and all models of a
campaign shall get the same layout; so a prompt counts as many tokens as it has bytes, which no tokenizer exceeds, and
an answer as many as it may have.
"""

from __future__ import annotations

from collections.abc import Sequence

from meltrepro.errors import ManifestError
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.manifest.schema import Workload
from meltrepro.manifest.yaml.tree import shorten

TURN_TOKENS = 80
"""Most that a chat template puts around a prompt, in bytes, with what tokenizers add of their own."""
FIRST_TURN_TOKENS = 128
"""Most that it puts before the first prompt, with a model's own system prompt."""


def lay_out(loaded: LoadedManifest, name: str, conversations: Sequence[Sequence[str]]) -> list[list[str]]:
    """All prompts of a workload in order, in as few conversations as are sure to fit its context.

    Raises `ManifestError` where a single prompt with its answer might not fit.
    """
    workload = loaded.manifest.conversations[name]
    pieces: list[list[str]] = []
    free = 0
    for prompt in (prompt for turns in conversations for prompt in turns):
        needed = len(prompt.encode()) + TURN_TOKENS + workload.max_tokens
        if not pieces or needed > free:
            pieces.append([])
            free = workload.context - FIRST_TURN_TOKENS - _system_tokens(workload)
        if needed > free:
            message = (
                f"the prompt {shorten(prompt)} and an answer of {workload.max_tokens} tokens may need "
                f"{workload.context - free + needed} tokens, and the context has {workload.context}"
            )
            raise ManifestError([problem_at(loaded, ("workloads", name, "context"), message)])
        pieces[-1].append(prompt)
        free -= needed
    return pieces


def _system_tokens(workload: Workload) -> int:
    return len(workload.system.encode()) if workload.system else 0
