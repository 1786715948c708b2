"""How much was done."""

from __future__ import annotations

from meltrepro.measure.metric import Metric

WORK = (
    Metric(
        name="prompt_tokens",
        unit="tokens",
        phase="work",
        better=None,
        meaning="tokens of all prompts that were read",
        formula="sum of n over turns",
        source="prefill_begin",
        invalid_when="never",
        compute=lambda facts: float(sum(turn.n_prompt for turn in facts.turns if turn.prefill is not None)),
    ),
    Metric(
        name="generated_tokens",
        unit="tokens",
        phase="work",
        better=None,
        meaning="sampled tokens, those that end an answer included",
        formula="sum of n_gen over turns",
        source="token",
        invalid_when="never",
        compute=lambda facts: float(sum(turn.n_gen for turn in facts.turns)),
    ),
    Metric(
        name="turns",
        unit="turns",
        phase="work",
        better=None,
        meaning="turns that were held; those whose prompt did not fit into the context are left out",
        formula="number of turns with a prefill",
        source="turn_end",
        invalid_when="never",
        compute=lambda facts: float(sum(turn.prefill is not None for turn in facts.turns)),
    ),
)
