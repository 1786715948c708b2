"""How much work a manifest is, to say how long the rest of a study will take. An estimate, never a result."""

from __future__ import annotations

from collections.abc import Mapping

from meltrepro.spec.manifest import Manifest

UNKNOWN_PARAMETERS = 1e9
"""For a model that does not say how many it has."""
PREFILL_SHARE = 0.2
"""Time of a prompt's token over that of a generated one, roughly, on CPUs."""
PROMPT_TOKENS = 40


def effort(manifest: Manifest, turns: Mapping[str, int]) -> float:
    """Work of all trials in tokens x parameters; `turns` is the number of prompts of each workload.

    One token of a decoder costs about two operations per parameter, so that this is proportional to the time on one
    device.
    """
    protocol = manifest.protocol
    trials = (protocol.repetitions + protocol.warmups) * len(manifest.frameworks) * len(manifest.targets)
    tokens = sum(
        turns[name] * (workload.max_tokens + PREFILL_SHARE * PROMPT_TOKENS)
        for name, workload in manifest.workloads.items()
    )
    weights = sum(
        len(model.quantizations) * (model.parameters or UNKNOWN_PARAMETERS) for model in manifest.models.values()
    )
    return trials * tokens * weights
